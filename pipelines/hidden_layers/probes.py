"""How much of a task each hidden layer already knows: a logistic regression on the states after every layer.

Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes", arxiv.org/abs/1610.01644.
A good probe is neither necessary nor sufficient for a layer to transfer (Tamkin et al. 2020, arxiv.org/abs/2004.14975):
`short_runs` tries it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from pipelines.baselines.logistic import folds_of
from pipelines.intervals import Bootstrap, interval
from pipelines.metrics import macro_f1
from pipelines.records import FloatArray, IntArray, Splits, column
from pipelines.slices import SMALL

CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse regularisation strength, features standardised
MAX_ITERATIONS = 200
TOLERANCE = 1e-3  # of a gradient; probes are compared, not deployed
VALUES = 10  # of one slice column, the most frequent


@dataclass(frozen=True)
class Layer:
    """A probe on one layer.

    Attributes:
        number: hidden layers below; 0 are the embeddings.
        C: inverse regularisation strength, chosen on a part of the training items.
        predicted: class numbers on the validation part, (M,).
    """

    number: int
    C: float
    predicted: IntArray


def fit_probes(states: FloatArray, splits: Splits, seed: int) -> list[Layer]:
    """A probe on every layer, trained on the training part.

    Args:
        states: means of the training items, then of the validation items, (N + M, L + 1, D).
        splits: N training items, of two classes or more, and M validation items.
        seed: of the part that the regularisation is chosen on, the same for all layers.
    """
    targets, groups = splits.targets(splits.train), np.array(column(splits.train, "group"))
    fold = folds_of(targets, groups, seed)[0]
    train, validation = states[: len(targets)], states[len(targets) :]
    return [_probe(number, train[:, number], targets, fold, validation[:, number]) for number in range(states.shape[1])]


def _probe(
    number: int, X: FloatArray, targets: IntArray, fold: tuple[IntArray, IntArray], validation: FloatArray
) -> Layer:
    own, held_out = fold
    scaler = StandardScaler().fit(X[own])
    scaled = scaler.transform(X)
    model = LogisticRegression(class_weight="balanced", max_iter=MAX_ITERATIONS, tol=TOLERANCE, warm_start=True)
    scores = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for C in CS:
            model.set_params(C=C).fit(scaled[own], targets[own])
            scores.append(macro_f1(targets[held_out], model.predict(scaled[held_out])))
        chosen = CS[int(np.argmax(scores))]
        model = model.set_params(C=chosen, warm_start=False).fit(scaler.fit_transform(X), targets)
    return Layer(number, chosen, model.predict(scaler.transform(validation)))


def layers_section(
    layers: Sequence[Layer], splits: Splits, slices: Sequence[str], resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Macro-F1 of every layer on the validation part with its interval, for all, for classes and for slices.

    Returns:
        one entry for each layer; `to_best` is its difference to the best layer, with a paired interval.
    """
    validation, classes = splits.validation, len(splits.labels)
    targets, groups = splits.targets(validation), np.array(column(validation, "group"))
    bootstrap = Bootstrap(targets, groups, classes, resamples, seed)
    scores = [macro_f1(targets, layer.predicted) for layer in layers]
    resampled = [bootstrap.scores(layer.predicted)["macro_f1"] for layer in layers]
    best = int(np.argmax(scores))
    parts = _slices(validation, slices)
    found = []
    for layer, score, values in zip(layers, scores, resampled, strict=True):
        by_class = bootstrap.f1(layer.predicted)
        found.append(
            {
                "layer": layer.number,
                "C": layer.C,
                "macro_f1": score,
                "macro_f1_ci": interval(values),
                "to_best": score - scores[best],
                "to_best_ci": [0.0, 0.0]
                if layer is layers[best]
                else bootstrap.difference(values, resampled[best], score - scores[best]),
                "classes": [
                    {"label": label, "f1": f1, "f1_ci": ci}
                    for label, (f1, ci) in zip(splits.labels, _f1_of_classes(layer, targets, by_class), strict=True)
                ],
                "slices": [part | _slice(layer.predicted, own, bootstrap) for part, own in parts],
            }
        )
    return found


def enough(layers: Sequence[dict[str, Any]]) -> int:
    """The lowest layer that is not clearly worse than the best: the paired interval of the difference holds 0."""
    return next(int(layer["layer"]) for layer in layers if layer["to_best_ci"][1] >= 0)


def _f1_of_classes(layer: Layer, targets: IntArray, resampled: FloatArray) -> list[tuple[float | None, Any]]:
    """F1 and interval of every class; None for one that the validation part does not hold."""
    found: list[tuple[float | None, Any]] = []
    for number in range(resampled.shape[1]):
        own, said = targets == number, layer.predicted == number
        if not own.any():
            found.append((None, None))
            continue
        f1 = 2 * float((own & said).sum()) / float(own.sum() + said.sum())
        drawn = resampled[:, number]
        found.append((f1, interval(drawn[~np.isnan(drawn)])))
    return found


def _slices(validation: Dataset, columns: Sequence[str]) -> list[tuple[dict[str, Any], IntArray]]:
    """The most frequent values of every slice column, and the numbers of their items."""
    parts = []
    for name in columns:
        values = np.array(column(validation, name), dtype=object)
        for value, _ in Counter(values.tolist()).most_common(VALUES):
            own = np.flatnonzero(values == value)
            parts.append(({"column": name, "value": value, "items": len(own), "small": len(own) < SMALL}, own))
    return parts


def _slice(predicted: IntArray, own: IntArray, whole: Bootstrap) -> dict[str, Any]:
    targets = whole.targets[own]
    part = Bootstrap(targets, whole.groups[own], whole.classes, whole.resamples, whole.seed)
    return {
        "macro_f1": macro_f1(targets, predicted[own]),
        "macro_f1_ci": interval(part.scores(predicted[own])["macro_f1"]),
    }
