"""A map of the representation, before and after fine-tuning: the last hidden layer in two dimensions.

Principal components (scikit-learn's PCA), because they are deterministic and keep large distances; and the silhouette
of the classes in all dimensions (Rousseeuw 1987), because two dimensions can mislead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from pipelines.backbones import Backbone
from pipelines.device import Precision
from pipelines.predict import embed
from pipelines.records import FloatArray, IntArray, Splits, column
from pipelines.sampling import at_most

DIGITS = 3


def representation_map(
    pretrained: Backbone, tuned: Backbone, splits: Splits, precision: Precision, most: int, seed: int
) -> dict[str, Any]:
    """Two coordinates of some test items, and how well their classes are apart, before and after fine-tuning.

    Args:
        pretrained, tuned: the same backbone, before and after.
        most: test items that are shown: some, stratified.
        seed: of that choice.
    """
    items = at_most(splits.test, most, seed)
    texts, targets = column(items, "text"), splits.targets(items)
    states = {
        "before": embed(pretrained, pretrained.encode(texts), precision),
        "after": embed(tuned, tuned.encode(texts), precision),
    }
    return {"items": len(items), "targets": targets.tolist()} | {
        name: _two_dimensions(values) | {"silhouette": _silhouette(values, targets)} for name, values in states.items()
    }


def _two_dimensions(states: FloatArray) -> dict[str, Any]:
    """Points (N, 2), and the share of all variance that they show."""
    if len(states) < 3:
        return {"points": np.zeros((len(states), 2)).tolist(), "variance": 0.0}
    pca = PCA(n_components=2, svd_solver="full")
    points = pca.fit_transform(states)
    return {"points": points.round(DIGITS).tolist(), "variance": float(pca.explained_variance_ratio_.sum())}


def _silhouette(states: FloatArray, targets: IntArray) -> float | None:
    """-1 to 1: how much nearer items are to their own class than to the next one; None where it has no meaning."""
    classes = len(np.unique(targets))
    return float(silhouette_score(states, targets)) if 1 < classes < len(targets) else None
