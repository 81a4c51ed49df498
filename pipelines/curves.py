"""Precision-recall and ROC curves, thinned to what a plot can show (library: scikit-learn)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from pipelines.records import FloatArray, IntArray, SystemScore

POINTS = 200  # of one curve
CLASSES = 6  # with more than two classes, curves of the most frequent ones


def curves_section(
    labels: tuple[str, ...], targets: IntArray, systems: list[SystemScore], positive: int
) -> dict[str, Any]:
    """Curves of the given systems: of the positive class if there are two, else of each class against the rest.

    Args:
        labels: C classes.
        targets: (N,).
        systems: those to draw.
        positive: class number, for two classes.
    """
    if len(labels) == 2:
        classes = [positive]
    else:
        support = np.bincount(targets, minlength=len(labels))
        classes = [int(c) for c in np.argsort(-support, kind="stable")[:CLASSES] if 0 < support[c] < len(targets)]
    drawn = [
        {"system": system.name, "class": labels[c], **_curves(targets == c, system.probabilities[:, c])}
        for system in systems
        for c in classes
        if 0 < (targets == c).sum() < len(targets)
    ]
    which = (
        "of the positive class"
        if len(labels) == 2
        else f"of one class against the rest, the {len(classes)} most frequent"
    )
    return {
        "curves": drawn,
        "caveat": f"The curves are {which}. Precision depends on how frequent the class is among the items; "
        "recall and the false positive rate do not.",
    }


def _curves(truth: Any, scores: FloatArray) -> dict[str, Any]:
    false, true, _ = roc_curve(truth, scores)
    precision, recall, _ = precision_recall_curve(truth, scores)
    return {"roc": _thin(false, true), "precision_recall": _thin(recall[:-1], precision[:-1])}


def _thin(x: FloatArray, y: FloatArray) -> list[list[float]]:
    kept = np.unique(np.linspace(0, len(x) - 1, min(POINTS, len(x))).astype(int))
    return [[round(float(x[i]), 4), round(float(y[i]), 4)] for i in kept]
