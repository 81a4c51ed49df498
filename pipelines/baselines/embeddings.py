"""The pretrained backbone's own embeddings: masked mean of its last hidden layer, nothing fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.activation_store import ActivationStore
from pipelines.activations import kept
from pipelines.backbones import Backbone
from pipelines.device import Precision
from pipelines.durable import write_json
from pipelines.errors import RunDirectoryError, StoreError
from pipelines.lower_layers import LowerLayers
from pipelines.predict import embed
from pipelines.records import FloatArray, finished


class EmbeddingFeatures:
    """(N, D) dense.

    Args:
        backbone: pretrained, not fine-tuned.
        precision: of its forward pass.
        kept_in: store of training items' embeddings; what is only predicted is computed, so that its rate is real.
    """

    store = "off"

    def __init__(self, backbone: Backbone, precision: Precision, kept_in: ActivationStore | None) -> None:
        self.backbone = backbone
        self.precision = precision
        self.kept_in = kept_in

    def fit_transform(self, texts: Sequence[str]) -> FloatArray:
        """Nothing to learn."""
        if self.kept_in is None:
            return self.transform(texts)
        lower = LowerLayers(self.backbone, self.backbone.depth, "mean", self.precision)
        try:
            states = finished(kept(lower, self.backbone.encode(texts), self.kept_in))
        except StoreError as error:
            self.store = f"off ({error})"
            return self.transform(texts)
        self.store = "cold" if states.computed else "warm"
        features: FloatArray = states.batch(np.arange(len(texts)))[:, 0].double().cpu().numpy()
        return features

    def transform(self, texts: Sequence[str]) -> FloatArray:
        return embed(self.backbone, self.backbone.encode(texts), self.precision)

    def names(self) -> None:
        """A dimension of an embedding has no meaning of its own."""

    def save(self, path: Path) -> None:
        write_json(path / "backbone.json", {"name": self.backbone.name, "sha256": self.backbone.weights.sha256})

    def load(self, path: Path) -> None:
        saved = json.loads((path / "backbone.json").read_text(encoding="utf-8"))
        if saved["sha256"] != self.backbone.weights.sha256:
            raise RunDirectoryError(
                f"{path}: its embeddings come from {saved['name']} with sha256 {saved['sha256']}, not from the "
                f"given backbone with {self.backbone.weights.sha256}"
            )
