"""Curves by hand, and their areas against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipelines.curves import CLASSES, POINTS, curves_section
from pipelines.records import Costs, FloatArray, IntArray, SystemScore


def scored(name: str, probabilities: FloatArray) -> SystemScore:
    return SystemScore(name, probabilities, 0.5, 10, Costs(0.0, 1.0, 1, 1))


def of_second(scores: list[float]) -> SystemScore:
    second = np.array(scores)
    return scored("main", np.stack([1 - second, second], axis=1))


def area(points: list[list[float]]) -> float:
    x, y = np.array(points).T
    return float(np.trapezoid(y, x))


def test_both_curves_by_hand() -> None:
    """Surest first: right, wrong, right, wrong."""
    [curve] = curves_section(("a", "b"), np.array([0, 1, 0, 1]), [of_second([0.1, 0.8, 0.7, 0.4])], 1)["curves"]
    assert (curve["system"], curve["class"]) == ("main", "b")
    assert curve["roc"] == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert curve["precision_recall"] == [[1, 0.5], [1, 0.6667], [0.5, 0.5], [0.5, 1]]


def test_two_classes_have_the_curve_of_the_positive_one() -> None:
    targets = np.array([0, 1, 0, 1])
    [curve] = curves_section(("a", "b"), targets, [of_second([0.1, 0.8, 0.7, 0.4])], 0)["curves"]
    assert curve["class"] == "a"
    assert curve["precision_recall"] == [[1, 0.5], [1, 0.6667], [0.5, 0.5], [0.5, 1]]  # 0.9, 0.6, 0.3, 0.2
    sure = curves_section(("a", "b"), targets, [of_second([0.1, 0.8, 0.2, 0.9])], 0)
    assert area(sure["curves"][0]["roc"]) == 1.0
    assert "of the positive class" in sure["caveat"]


@pytest.mark.parametrize("items", [30, 20_000])
def test_areas_survive_the_thinning(items: int) -> None:
    rng = np.random.default_rng(0)
    targets: IntArray = rng.integers(0, 2, items)
    scores = 1 / (1 + np.exp(-rng.normal(targets * 1.5, 1)))
    [curve] = curves_section(("a", "b"), targets, [of_second(scores.tolist())], 1)["curves"]
    assert max(len(curve["roc"]), len(curve["precision_recall"])) <= POINTS
    assert area(curve["roc"]) == pytest.approx(roc_auc_score(targets, scores), abs=0.005)
    if items > POINTS:
        assert len(curve["roc"]) == len(curve["precision_recall"]) == POINTS
        average = average_precision_score(targets, scores)
        assert -area(curve["precision_recall"]) == pytest.approx(average, abs=0.01)
    assert (curve["roc"][0], curve["roc"][-1]) == ([0, 0], [1, 1])
    assert curve["precision_recall"][0] == [1, round(float(targets.mean()), 4)]


def test_several_classes_have_curves_of_the_most_frequent_for_every_system() -> None:
    """Of nine classes one is absent, and two more are rare."""
    counts = [3, 9, 8, 0, 7, 6, 2, 5, 4]
    targets = np.repeat(np.arange(9), counts)
    labels = tuple("abcdefghi")
    rng = np.random.default_rng(0)
    systems = [scored(name, rng.dirichlet(np.ones(9), len(targets))) for name in ("main", "rival")]
    section = curves_section(labels, targets, systems, 0)
    assert [(c["system"], c["class"]) for c in section["curves"]] == [
        (name, label) for name in ("main", "rival") for label in "bcefhi"
    ]
    assert f"of one class against the rest, the {CLASSES} most frequent" in section["caveat"]
    own = next(c for c in section["curves"] if (c["system"], c["class"]) == ("rival", "e"))
    assert area(own["roc"]) == pytest.approx(roc_auc_score(targets == 4, systems[1].probabilities[:, 4]), abs=1e-3)


def test_the_caveat_counts_the_classes_that_are_drawn() -> None:
    targets = np.array([0, 2, 0, 2, 2])
    section: dict[str, Any] = curves_section(("a", "b", "c"), targets, [scored("main", np.full((5, 3), 1 / 3))], 0)
    assert [curve["class"] for curve in section["curves"]] == ["c", "a"]
    assert "the 2 most frequent" in section["caveat"]


@pytest.mark.parametrize("labels", [("a", "b"), ("a", "b", "c")])
def test_there_is_no_curve_where_all_items_are_of_one_class(labels: tuple[str, ...]) -> None:
    uniform = scored("main", np.full((4, len(labels)), 1 / len(labels)))
    assert curves_section(labels, np.ones(4, dtype=int), [uniform], 1)["curves"] == []


def test_equal_scores_are_a_diagonal() -> None:
    [curve] = curves_section(("a", "b"), np.array([0, 1, 0, 0]), [of_second([0.5] * 4)], 1)["curves"]
    assert curve["roc"] == [[0, 0], [1, 1]]
    assert curve["precision_recall"] == [[1, 0.25]]
