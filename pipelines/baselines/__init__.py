"""What fine-tuning has to beat: the majority class, and logistic regression on three kinds of features.

A strong baseline, not a straw man: regularisation and class weighting are chosen by cross-validation on training data.
"""

from pipelines.baselines.base import Baseline, load_baseline, make_baseline

__all__ = ["Baseline", "load_baseline", "make_baseline"]
