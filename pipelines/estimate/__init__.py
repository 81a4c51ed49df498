"""What a run would take, before it is run."""

from pipelines.estimate.estimate import estimate
from pipelines.estimate.fit import Budget, budget_of, fit

__all__ = ["Budget", "budget_of", "estimate", "fit"]
