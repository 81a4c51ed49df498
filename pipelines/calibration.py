"""Do probabilities mean what they say? Temperature scaling, and the reliability diagram before and after it.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599; library: scikit-learn. The
temperature is fitted on validation and becomes part of the model's weights (`Backbone.scale_logits`).
"""

from __future__ import annotations

from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold

from pipelines.intervals import interval
from pipelines.metrics import CALIBRATION_BINS, calibration_error, confidence_bins
from pipelines.records import FloatArray, IntArray

FOLDS = 5
FEWEST = 50  # validation items below which a temperature is not fitted
TINY = np.finfo(np.float64).tiny


class _Logits(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator whose features are a model's logits (N, C), for scikit-learn to calibrate."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, X: FloatArray, y: IntArray) -> _Logits:
        return self

    def decision_function(self, X: FloatArray) -> FloatArray:
        return (X[:, 1] - X[:, 0]) / 2 if self.classes == 2 else X


def fit_temperature(logits: FloatArray, targets: IntArray) -> float:
    """The temperature T for which softmax(logits / T) has the lowest log loss; logits (N, C), targets (N,)."""
    everything = np.arange(len(targets))
    calibrator = CalibratedClassifierCV(
        FrozenEstimator(_Logits(logits.shape[1])), method="temperature", ensemble=True, cv=[(everything, everything)]
    )
    with catch_warnings():
        filterwarnings("ignore", "The number of unique classes")  # many classes and few items are no mistake here
        calibrated = calibrator.fit(logits, targets)
    return float(1 / calibrated.calibrated_classifiers_[0].calibrators[0].beta_)


def choose_temperature(logits: FloatArray, targets: IntArray, seed: int) -> tuple[float, str]:
    """The temperature for a model and why; 1.0 where scaling does not lower the calibration error.

    Decided on the validation part alone, by cross-validation: a temperature is fitted on four fifths and its effect on
    the expected calibration error seen on the other fifth.
    """
    N = len(targets)
    if N < FEWEST:
        return 1.0, f"Scaling is off: {N} validation items are too few to fit a temperature (at least {FEWEST})."
    if (logits.argmax(axis=1) == targets).all():  # the colder the better, without end
        return 1.0, f"Scaling is off: all {N} validation items are right, so that no temperature is the best."
    after = np.empty_like(logits)
    for fitted, held_out in KFold(FOLDS, shuffle=True, random_state=seed).split(logits):
        after[held_out] = softmax(logits[held_out] / fit_temperature(logits[fitted], targets[fitted]), axis=1)
    errors = [calibration_error(p, targets) for p in (softmax(logits, axis=1), after)]
    effect = f"the calibration error on held-out validation items goes from {errors[0]:.3f} to {errors[1]:.3f}"
    if errors[1] >= errors[0]:
        return 1.0, f"Scaling is off: {effect}, so it does not help here."
    return fit_temperature(logits, targets), f"Scaling is on: {effect}."


def calibration_section(
    probabilities: FloatArray, targets: IntArray, temperature: float, reason: str, resamples: int, seed: int
) -> dict[str, Any]:
    """Calibration on the test part, before and after scaling.

    Args:
        probabilities: (N, C), of the model as it is saved: scaled.
        targets: (N,).
        temperature, reason: see `choose_temperature`.
        resamples, seed: of the bootstrap.
    """
    before = softmax(temperature * np.log(np.maximum(probabilities, TINY)), axis=1)
    states, draws = {}, {}
    for name, p in (("before", before), ("after", probabilities)):
        states[name], draws[name] = _reliability(p, targets, resamples, seed)
    change = states["after"]["ece"] - states["before"]["ece"]
    change_ci = interval(draws["after"] - draws["before"])
    return {
        "temperature": temperature,
        "scaled": temperature != 1.0,
        "reason": reason,
        **states,
        "change": change,
        "change_ci": change_ci,
        "sentence": _sentence(states["before"], states["after"], change_ci, temperature),
        "caveat": "The error of a perfectly calibrated model is not zero on few items: it grows as bins empty; "
        "the intervals are of this estimate. It is of the most probable class, over all classes together.",
    }


def _sentence(before: dict[str, Any], after: dict[str, Any], change_ci: list[float], temperature: float) -> str:
    error = f"{after['ece']:.3f} ({after['ece_ci'][0]:.3f} to {after['ece_ci'][1]:.3f})"
    if temperature == 1.0:
        return f"The model's probabilities are as trained; their calibration error on the test part is {error}."
    change = "falls" if after["ece"] < before["ece"] else "does not fall"
    return (
        f"With temperature {temperature:.2f} the calibration error on the test part {change}: from "
        f"{before['ece']:.3f} ({before['ece_ci'][0]:.3f} to {before['ece_ci'][1]:.3f}) to {error}; 95% interval of the "
        f"change {change_ci[0]:+.3f} to {change_ci[1]:+.3f}."
    )


def _reliability(
    probabilities: FloatArray, targets: IntArray, resamples: int, seed: int
) -> tuple[dict[str, Any], FloatArray]:
    """Error with its interval, and per bin: items, mean confidence, share that is right; and the error's resamples."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    number = confidence_bins(probabilities)
    bins = [
        {"items": int(own.sum()), "confidence": float(confidence[own].mean()), "accuracy": float(right[own].mean())}
        for b in range(CALIBRATION_BINS)
        if (own := number == b).any()
    ]
    rng = np.random.default_rng(seed)
    gaps = right - confidence
    errors = np.empty(resamples)
    for r in range(resamples):
        chosen = rng.integers(0, len(targets), len(targets))
        errors[r] = np.abs(np.bincount(number[chosen], weights=gaps[chosen])).sum() / len(targets)
    ece = calibration_error(probabilities, targets)
    around = errors - (errors.mean() - ece)  # resampling adds noise to bins, which adds error
    return {"ece": ece, "ece_ci": interval(np.maximum(around, 0.0)), "bins": bins}, around
