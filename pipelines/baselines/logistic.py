"""Logistic regression with regularisation and class weighting chosen by cross-validated macro-F1."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold

from pipelines.baselines.features import Features
from pipelines.durable import write_json
from pipelines.metrics import macro_f1
from pipelines.records import FloatArray, IntArray

CS = tuple(float(c) for c in np.logspace(-2, 3, 6))  # inverse regularisation strength
FOLDS = 5
MAX_ITERATIONS = 500
ONE_FOLD = 100_000  # items x classes above which one fifth held out is enough to choose by, and five would take hours


class LogisticRegressionBaseline:
    """Multinomial logistic regression on some features.

    Args:
        features: learned from the training texts, without their labels.
    """

    def __init__(self, features: Features) -> None:
        self.features = features
        self.model = LogisticRegression()
        self.classes = 0
        self.details: dict[str, Any] = {}

    def fit(self, texts: Sequence[str], targets: IntArray, groups: IntArray, classes: int, seed: int) -> None:
        X = self.features.fit_transform(texts)
        folds = folds_of(targets, groups, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            candidates = [_fit(X, targets, folds, weight) for weight in (None, "balanced")]
        score, weight, search = max(candidates, key=lambda candidate: candidate[0])
        self.classes = classes
        self.model = _restore(search.coef_, search.intercept_, search.classes_)
        self.details = {
            "C": float(search.C_),
            "class_weight": weight,
            "cross_validated_macro_f1": score,
            "folds": len(folds),
            "features": int(X.shape[1]),
            "store": self.features.store,
            "converged": bool(search.n_iter_.max() < MAX_ITERATIONS),  # in every fold, at every C
        }

    def predict_probabilities(self, texts: Sequence[str]) -> FloatArray:
        probabilities = np.zeros((len(texts), self.classes))
        probabilities[:, self.model.classes_] = self.model.predict_proba(self.features.transform(texts))
        return probabilities

    def save(self, path: Path) -> None:
        path.mkdir(parents=True)
        self.features.save(path)
        arrays = {"coef": self.model.coef_, "intercept": self.model.intercept_, "classes": self.model.classes_}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path / "model.safetensors")
        write_json(path / "model.json", {"classes": self.classes, "details": self.details})

    def load(self, path: Path) -> None:
        self.features.load(path)
        arrays = load_file(path / "model.safetensors")
        self.model = _restore(arrays["coef"], arrays["intercept"], arrays["classes"])
        values = json.loads((path / "model.json").read_text(encoding="utf-8"))
        self.classes, self.details = values["classes"], values["details"]


def folds_of(targets: IntArray, groups: IntArray, seed: int) -> list[tuple[IntArray, IntArray]]:
    """Stratified folds that keep groups together; as many as the rarest class has groups, at most FOLDS.

    A class with a single group is trained on in every fold, since no model can name a class it has not seen. Where
    nothing is left to hold out, the training items are the one fold.
    """
    everything = np.arange(len(targets))
    pool, rarest = everything, 1
    while len(pool) and rarest == 1:
        of_class = {c: np.unique(groups[pool][targets[pool] == c]) for c in np.unique(targets[pool])}
        rarest = min(len(own) for own in of_class.values())
        alone = [own[0] for own in of_class.values() if len(own) == 1]
        pool = pool[~np.isin(groups[pool], alone)]
    if not len(pool):
        return [(everything, everything)]
    splitter = StratifiedGroupKFold(min(FOLDS, rarest), shuffle=True, random_state=seed)
    held_out = [pool[test] for _, test in splitter.split(pool, targets[pool], groups[pool])]
    folds = [(np.setdiff1d(everything, test), test) for test in held_out if len(test)]
    classes = len(np.unique(targets))
    usable = [fold for fold in folds if len(np.unique(targets[fold[0]])) == classes]
    if len(targets) * classes > ONE_FOLD:
        usable = usable[:1]
    return usable or [(everything, everything)]


def _fit(
    X: Any, targets: IntArray, folds: list[tuple[IntArray, IntArray]], weight: str | None
) -> tuple[float, str | None, LogisticRegressionCV]:
    search = LogisticRegressionCV(
        Cs=CS,
        l1_ratios=(0.0,),
        cv=folds,
        scoring=_macro_f1_of,
        class_weight=weight,
        max_iter=MAX_ITERATIONS,
        use_legacy_attributes=False,
    ).fit(X, targets)
    return float(search.scores_.mean(axis=0).max()), weight, search


def _macro_f1_of(model: LogisticRegression, X: Any, targets: IntArray) -> float:
    return macro_f1(targets, model.predict(X))


def _restore(coef: FloatArray, intercept: FloatArray, classes: IntArray) -> LogisticRegression:
    model = LogisticRegression()
    model.coef_, model.intercept_, model.classes_ = coef, intercept, classes
    return model
