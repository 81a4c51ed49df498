"""The most frequent class, with the class shares as probabilities (scikit-learn's DummyClassifier)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier

from pipelines.durable import write_json
from pipelines.records import FloatArray, IntArray


class MajorityBaseline:
    """Ignores the text."""

    def __init__(self) -> None:
        self.priors: FloatArray = np.empty(0)
        self.details: dict[str, Any] = {}

    def fit(self, texts: Sequence[str], targets: IntArray, groups: IntArray, classes: int, seed: int) -> None:
        dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(targets), 1)), targets)
        self.priors = np.zeros(classes)
        self.priors[dummy.classes_] = dummy.class_prior_

    def predict_probabilities(self, texts: Sequence[str]) -> FloatArray:
        return np.tile(self.priors, (len(texts), 1))

    def save(self, path: Path) -> None:
        path.mkdir(parents=True)
        write_json(path / "model.json", {"priors": self.priors.tolist(), "details": self.details})

    def load(self, path: Path) -> None:
        values = json.loads((path / "model.json").read_text(encoding="utf-8"))
        self.priors, self.details = np.array(values["priors"]), values["details"]
