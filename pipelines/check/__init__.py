"""What is wrong with labelled data, found before money is spent on training."""

from pipelines.check.check import check

__all__ = ["check"]
