"""Every reported value as a local `evaluate` module: nothing is fetched from a hub.

All take class probabilities as `predictions`, N rows of C, and class numbers as `references`, N.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from pipelines.intervals import proportion_interval
from pipelines.records import FloatArray, IntArray

CALIBRATION_BINS = 15


class _ProbabilityMetric(evaluate.Metric):  # type: ignore[misc]
    """A metric of class probabilities; the subclass's docstring is its description."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="",
            inputs_description="predictions: N lists of C probabilities; references: N class numbers",
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return self.score(np.asarray(predictions, dtype=np.float64), np.asarray(references), **options)

    def score(self, probabilities: FloatArray, targets: IntArray, **options: Any) -> dict[str, Any]:
        raise NotImplementedError


class Accuracy(_ProbabilityMetric):
    """Share of items whose most probable class is the right one."""

    def score(self, probabilities: FloatArray, targets: IntArray, **options: Any) -> dict[str, Any]:
        return {"accuracy": float(accuracy_score(targets, probabilities.argmax(axis=1)))}


class MacroF1(_ProbabilityMetric):
    """Mean F1 over the classes that occur among the references."""

    def score(self, probabilities: FloatArray, targets: IntArray, **options: Any) -> dict[str, Any]:
        return {"macro_f1": macro_f1(targets, probabilities.argmax(axis=1))}


class PerClass(_ProbabilityMetric):
    """Precision and recall with 95% intervals, F1 and number of references of every class; the confusion matrix."""

    def score(self, probabilities: FloatArray, targets: IntArray, **options: Any) -> dict[str, Any]:
        classes = np.arange(probabilities.shape[1])
        predicted = probabilities.argmax(axis=1)
        rows = zip(*precision_recall_fscore_support(targets, predicted, labels=classes, zero_division=0.0), strict=True)
        matrix = confusion_matrix(targets, predicted, labels=classes)
        per_class: list[dict[str, Any]] = [
            {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)} for p, r, f, n in rows
        ]
        for c, row in enumerate(per_class):
            for name, trials in (("precision_ci", matrix[:, c].sum()), ("recall_ci", matrix[c].sum())):
                row[name] = proportion_interval(int(matrix[c, c]), int(trials)) if trials else None
        return {"per_class": per_class, "confusion_matrix": matrix.tolist()}


class AreasUnderCurves(_ProbabilityMetric):
    """ROC-AUC and PR-AUC (average precision): of the positive class if binary, else the mean of one-vs-rest.

    None where a curve is not defined, because every reference is of one class.
    """

    def score(self, probabilities: FloatArray, targets: IntArray, **options: Any) -> dict[str, Any]:
        C = probabilities.shape[1]
        classes = [int(options.get("positive", 1))] if C == 2 else [c for c in range(C) if np.any(targets == c)]
        truths = [(targets == c, probabilities[:, c]) for c in classes]
        if not all(truth.any() and not truth.all() for truth, _ in truths):
            return {"roc_auc": None, "pr_auc": None}
        return {
            "roc_auc": float(np.mean([roc_auc_score(truth, scores) for truth, scores in truths])),
            "pr_auc": float(np.mean([average_precision_score(truth, scores) for truth, scores in truths])),
        }


class CalibrationError(_ProbabilityMetric):
    """Expected calibration error of the top class, 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599)."""

    def score(self, probabilities: FloatArray, targets: IntArray, **options: Any) -> dict[str, Any]:
        return {"ece": calibration_error(probabilities, targets)}


def calibration_error(probabilities: FloatArray, targets: IntArray) -> float:
    """Expected calibration error: over bins of confidence, the mean gap between confidence and accuracy."""
    gaps = (probabilities.argmax(axis=1) == targets) - probabilities.max(axis=1)
    per_bin = np.bincount(confidence_bins(probabilities), weights=gaps)
    return float(np.abs(per_bin).sum() / len(targets))


def confidence_bins(probabilities: FloatArray) -> IntArray:
    """Number of the bin that each item's highest probability falls into, (N,)."""
    bins: IntArray = (probabilities.max(axis=1) * CALIBRATION_BINS).astype(np.int64)
    return np.minimum(bins, CALIBRATION_BINS - 1, out=bins)


def macro_f1(targets: IntArray, predicted: IntArray) -> float:
    """Mean F1 over the classes that occur among the targets, both (N,).

    A model may know more classes (see `start_from`): naming one of those costs recall, not a class of its own.
    """
    return float(f1_score(targets, predicted, labels=np.unique(targets), average="macro", zero_division=0.0))


def all_metrics(probabilities: FloatArray, targets: IntArray, positive: int) -> dict[str, Any]:
    """Every reported value.

    Args:
        probabilities: (N, C), rows sum to 1.
        targets: (N,), class numbers.
        positive: the class that binary areas under curves refer to.
    """
    values: dict[str, Any] = {}
    with TemporaryDirectory() as cache:  # evaluate always makes one; the home directory may be read-only
        for metric in (Accuracy, MacroF1, PerClass, AreasUnderCurves, CalibrationError):
            options = {"positive": positive} if metric is AreasUnderCurves else {}
            module = metric(keep_in_memory=True, cache_dir=cache)
            values |= module.compute(predictions=probabilities, references=targets, **options)
    return values
