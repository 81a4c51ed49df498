"""A report as a run makes it, without a run: random systems, scored and compared by the real code."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.special import softmax

from pipelines.config import EvaluationConfig
from pipelines.evaluate import FINE_TUNED, compare_systems
from pipelines.learning_curve import CurvePoint, learning_curve_section
from pipelines.reading import training_reading
from pipelines.records import Costs, FloatArray, IntArray, Splits, SystemScore

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202eright-to-left\u200f",
    "😀 `code` | cell",
    "null\x00byte",
    "w" * 5000,
    "{{ 7 * 7 }} {% raw %}",
    "---\nyaml: [",
)
WORDS = ("the owl sleeps", "a fox hides near the barn", "elk")
BASELINES = ("majority", "logistic-regression-tfidf")
SCALED = 1.5, "Scaling is on: it helps."
AS_TRAINED = 1.0, "Scaling is off: it does not help."


def one_hot(predicted: Sequence[int] | IntArray, classes: int, sure: float = 0.9) -> FloatArray:
    """Probabilities (N, C) whose largest is `sure`, at the predicted class."""
    probabilities = np.full((len(predicted), classes), (1 - sure) / (classes - 1))
    probabilities[np.arange(len(predicted)), predicted] = sure
    return probabilities


def system(
    name: str, probabilities: FloatArray, validation: float = 0.5, checked: FloatArray | None = None
) -> SystemScore:
    """A scored system with fixed costs, trained on 4 items; `checked` are its probabilities on validation."""
    costs = Costs(1.5, 200.0, 2048, 3 * 1024**2)
    return SystemScore(name, probabilities, validation, 4, costs, checked, {"C": 1.0})


def splits(
    labels: Sequence[str],
    test: Sequence[int],
    train: Sequence[int] | None = None,
    validation: Sequence[int] | None = None,
    words: Sequence[str] = WORDS,
) -> Splits:
    """Splits whose parts hold the given class numbers, and words in turn as text, id and slice.

    Where not given, every class is twice in training, and validation is as the test part.
    """
    given = (train or [*range(len(labels))] * 2, validation or test, test)
    train_part, checked, tested = (_part([labels[c] for c in numbers], words) for numbers in given)
    return Splits(train_part, checked, tested, tuple(labels), {"items": len(test), "exact_duplicates": 1234})


def report(
    labels: Sequence[str],
    baselines: Sequence[str] = BASELINES,
    words: Sequence[str] = WORDS,
    folder: str = "",
    temperature: tuple[float, str] = SCALED,
) -> dict[str, Any]:
    """A whole report of report.json with every section, on at least 4 test items of every class.

    Args:
        words: texts, ids, slice values and one slice column are made of them.
        folder: what the systems' names begin with.
    """
    return copy.deepcopy(_report(tuple(labels), tuple(baselines), tuple(words), folder, temperature))


@functools.cache
def _report(
    labels: tuple[str, ...],
    baselines: tuple[str, ...],
    words: tuple[str, ...],
    folder: str,
    temperature: tuple[float, str],
) -> dict[str, Any]:
    C = len(labels)
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(C), max(4, 160 // C))
    parts = splits(labels, targets.tolist(), words=words)

    def guesses(strength: float) -> FloatArray:
        found: FloatArray = softmax(strength * np.eye(C)[targets] + rng.normal(size=(len(targets), C)), axis=1)
        return found

    systems = [system(folder + name, guesses(1.0), checked=guesses(1.0)) for name in baselines]
    systems.append(system(folder + FINE_TUNED, guesses(3.0), 0.8, guesses(3.0)))
    drawn = [s for s in systems if s.name != folder + "majority"][::-1][:2]
    points = [
        CurvePoint(s.name, items, (s.probabilities if items == 4 else guesses(0.5)).argmax(axis=1))
        for s in drawn
        for items in (1, 2, 4)
    ]
    checks = [
        ("step", 0.9, 0.0, 0.0, 0.5, False),
        ("validation", 0.7, 0.45, 0.41, 1.0, True),
        ("validation", 0.6, 0.44, 0.4, 2.0, False),
    ]
    names = ("event", "loss", "accuracy", "macro_f1", "epoch", "best")
    history = [dict(zip(names, values, strict=True)) for values in checks]
    config = EvaluationConfig(bootstrap=100, operating_points=(0.8, 0.95))
    return {
        "task": "text-classification",
        "backbone": {"name": "tiny", "revision": None},
        "start_from": None,
        "freeze_sentence": "embeddings and 1 of 3 hidden layers frozen",
        "max_length": 256,
        "precision": "fp32",
        "bootstrap": 100,
        "provenance": {"seed": 0, "data_sha256": {"train": "ab" * 32}},
        "min_gain": config.min_gain,
        "training": {"history": history, "best_step": 1, "steps": 2} | training_reading(history),
        "learning_curve": learning_curve_section(points, [s.name for s in drawn], parts, config.min_gain, 100, 0),
    } | compare_systems(parts, systems, systems[-1].name, config, 0, temperature, ("kind", words[0]))


def _part(labels: Sequence[str], words: Sequence[str]) -> Dataset:
    said = [words[i % len(words)] for i in range(len(labels))]
    numbers = list(range(len(labels)))
    own = {"text": said, "label": labels, "id": said, "group": numbers, "line": numbers}
    return Dataset.from_dict(own | {"kind": said, words[0]: said})
