"""What decided a logistic regression: coefficient x value of every feature that has a name.

The score of a class is linear, so these are exact: they and the intercept add up to it. Of two classes there is one
score; its sign is that of the class that was predicted. Of more, the score is that of the predicted class, whose
coefficients are already relative to all classes: with the quadratic penalty they add up to 0 over the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression

from pipelines.baselines.logistic import LogisticRegressionBaseline
from pipelines.records import FloatArray

NO_NAMES = "a dimension of an embedding has no meaning of its own, so none is named"
CAVEAT = (
    "Coefficient x value is exact for a regression, but features that go together share the weight as regularisation "
    "has it: not what the class is made of."
)


@dataclass(frozen=True)
class Feature:
    """A feature of one text: its value (TF-IDF, or standardised by the training texts), and what it adds to the score
    of the predicted class, in logits.
    """

    name: str
    value: float
    contribution: float


@dataclass(frozen=True)
class Decision:
    """What a regression says of one text, and which features made it, the strongest first.

    Attributes:
        target: class number.
        intercept: what the score of that class is without features, in logits.
    """

    target: int
    probability: float
    intercept: float
    features: tuple[Feature, ...]


def deciding_features(baseline: LogisticRegressionBaseline, texts: Sequence[str], most: int) -> list[Decision]:
    """The decision on each of N texts, with at most so many features, those of value 0 left out.

    Args:
        baseline: trained.
        texts: N.
        most: features of a text. None of a baseline whose features have no names.
    """
    probabilities = baseline.predict_probabilities(texts)
    X = csr_array(baseline.features.transform(texts))
    names = baseline.features.names() or []
    decisions = []
    for number, target in enumerate(probabilities.argmax(axis=1).tolist()):
        coefficients, intercept = _score_of(baseline.model, target)
        start, end = X.indptr[number : number + 2].tolist()
        columns, values = X.indices[start:end], X.data[start:end]
        added = coefficients[columns] * values
        strongest = [i for i in np.argsort(-np.abs(added), kind="stable").tolist() if names and added[i]][:most]
        features = tuple(Feature(names[columns[i]], float(values[i]), float(added[i])) for i in strongest)
        decisions.append(Decision(target, float(probabilities[number, target]), intercept, features))
    return decisions


def _score_of(model: LogisticRegression, target: int) -> tuple[FloatArray, float]:
    """Coefficients (F,) and intercept of the score of one class; that of two is one score with two signs."""
    place = model.classes_.tolist().index(target)
    if len(model.coef_) > 1:
        return model.coef_[place], float(model.intercept_[place])
    sign = 1 if place else -1
    return sign * model.coef_[0], float(sign * model.intercept_[0])
