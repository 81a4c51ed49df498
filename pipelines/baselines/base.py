"""The interface of a baseline, and the table from names to baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.baselines.features import Features
from pipelines.baselines.logistic import LogisticRegressionBaseline
from pipelines.baselines.majority import MajorityBaseline
from pipelines.baselines.manual import ManualFeatures
from pipelines.baselines.tfidf import TfidfFeatures
from pipelines.device import Precision
from pipelines.errors import RunDirectoryError
from pipelines.records import CLIENT, FloatArray, IntArray

EMBEDDINGS = "logistic-regression-embeddings"  # of the pretrained backbone


class Baseline(Protocol):
    """A classifier of texts that is trained in seconds and saved without pickle."""

    details: dict[str, Any]

    def fit(self, texts: Sequence[str], targets: IntArray, groups: IntArray, classes: int, seed: int) -> None:
        """Train on N texts with class numbers (N,); items of one group stay together in cross-validation."""

    def predict_probabilities(self, texts: Sequence[str]) -> FloatArray:
        """(N, C), rows sum to 1."""

    def save(self, path: Path) -> None:
        """Write safetensors and JSON into a directory, which is made."""

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""


def make_baseline(
    name: str, backbone: Backbone | None, precision: Precision, store: ActivationStore | None = None
) -> Baseline:
    """An untrained baseline.

    Args:
        name: as in `RunConfig.baselines`.
        backbone: pretrained and not fine-tuned; its embeddings are the features of one baseline. The others need none.
        precision: of those embeddings.
        store: of the embeddings of training items.
    """
    if name == "majority":
        return MajorityBaseline()
    features: dict[str, Features] = {
        "logistic-regression-manual": ManualFeatures(),
        "logistic-regression-tfidf": TfidfFeatures(),
    }
    if name == EMBEDDINGS:
        if backbone is None:
            raise ValueError(f"{name} needs the pretrained backbone")
        features[name] = EmbeddingFeatures(backbone, precision, store)
    return LogisticRegressionBaseline(features[name])


def load_baseline(path: Path, backbone: Backbone | None, precision: Precision) -> Baseline:
    """A trained baseline from its directory, whose name is the baseline's; see `make_baseline` for the backbone.

    Raises:
        RunDirectoryError: not a baseline's directory, or of another backbone.
    """
    try:
        baseline = make_baseline(path.name.removesuffix(CLIENT), backbone, precision)
        baseline.load(path)
    except (KeyError, OSError, json.JSONDecodeError, SafetensorError) as error:
        raise RunDirectoryError(f"{path}: cannot be read as a baseline: {error!r}") from None
    return baseline
