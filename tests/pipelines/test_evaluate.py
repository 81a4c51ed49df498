"""Comparison of systems and the verdict, on systems whose scores are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipelines.config import EvaluationConfig
from pipelines.evaluate import FINE_TUNED, compare_systems, positive_class, verdict
from pipelines.intervals import mcnemar
from pipelines.records import IntArray, SystemScore
from tests.reports import one_hot, splits, system

TARGETS = np.arange(200) % 2
TUNED = system(FINE_TUNED, one_hot(TARGETS, 2), 0.9)
TFIDF, MANUAL = "logistic-regression-tfidf", "logistic-regression-manual"


def with_errors(count: int) -> IntArray:
    """The targets with errors on the first items."""
    predicted = TARGETS.copy()
    predicted[:count] ^= 1
    return predicted


def compared(*systems: SystemScore, **evaluation: Any) -> dict[str, Any]:
    config = EvaluationConfig(**{"bootstrap": 200} | evaluation)
    return compare_systems(splits(("calm", "harsh"), TARGETS.tolist(), [0, 0, 0, 1]), list(systems), config, seed=0)


@pytest.mark.parametrize(
    ("tuned_errors", "rival_errors", "min_gain", "answer", "start"),
    [
        (0, 60, 0.02, "yes", "Worth it."),
        (60, 0, 0.02, "no", "Not worth it."),
        (10, 10, 0.02, "no", "Not worth it."),  # equal predictions: an interval of exactly zero
        (20, 30, 0.05, "unclear", "Unclear."),
        (0, 60, 0.31, "unclear", "Unclear."),
        (0, 60, 0.5, "no", "Not worth it."),
        (10, 10, 0.0, "unclear", "Unclear."),  # not above and not below
    ],
)
def test_verdict_is_told_by_the_interval(
    tuned_errors: int, rival_errors: int, min_gain: float, answer: str, start: str
) -> None:
    tuned = system(FINE_TUNED, one_hot(with_errors(tuned_errors), 2))
    rival = system(TFIDF, one_hot(with_errors(rival_errors), 2))
    report = compared(rival, tuned, min_gain=min_gain)
    low, high = report["comparisons"][0]["difference_ci"]
    assert report["verdict"]["worth_it"] == answer, (low, high)
    assert answer == ("yes" if low > min_gain else "no" if high < min_gain else "unclear")
    assert report["verdict"]["sentence"].startswith(start)


def test_the_sentence_gives_the_difference_the_interval_and_the_threshold_in_points() -> None:
    comparison = {"baseline": TFIDF, "difference": 0.0512, "difference_ci": [0.0311, 0.07]}
    found = verdict([TUNED, system(TFIDF, TUNED.probabilities)], [comparison], 0.02, 1500)
    assert found["sentence"] == (
        "Worth it. On 1,500 test items fine-tuning changes macro-F1 by +5.1 points against logistic-regression-tfidf "
        "(95% interval +3.1 to +7.0): all of the interval is above the 2.0 points that would make it worth its cost."
    )


def test_the_rival_is_chosen_on_validation_and_not_on_test() -> None:
    good_on_test = system(MANUAL, one_hot(with_errors(0), 2), validation=0.4)
    good_on_validation = system(TFIDF, one_hot(with_errors(80), 2), validation=0.6)
    report = compared(good_on_test, good_on_validation, TUNED)
    assert report["verdict"]["rival"] == TFIDF
    assert report["verdict"]["worth_it"] == "yes"


def test_the_majority_is_never_the_rival() -> None:
    majority = system("majority", one_hot(np.zeros(200, dtype=int), 2), validation=0.99)
    report = compared(majority, system(TFIDF, TUNED.probabilities, 0.1), TUNED)
    assert report["verdict"]["rival"] == TFIDF


@pytest.mark.parametrize("others", [[], [system("majority", one_hot(np.zeros(200, dtype=int), 2))]])
def test_no_regression_no_verdict(others: list[SystemScore]) -> None:
    report = compared(*others, TUNED)
    assert report["verdict"]["worth_it"] == "unclear"
    assert report["verdict"]["rival"] is None
    assert "No logistic regression" in report["verdict"]["sentence"]
    assert len(report["comparisons"]) == len(others)


def test_every_baseline_is_compared_on_the_same_items() -> None:
    said = {"majority": np.zeros(200, dtype=int), TFIDF: with_errors(30)}
    report = compared(*(system(name, one_hot(predicted, 2)) for name, predicted in said.items()), TUNED)
    assert [c["baseline"] for c in report["comparisons"]] == list(said)
    for comparison in report["comparisons"]:
        predicted = said[comparison["baseline"]]
        difference = 1.0 - f1_score(TARGETS, predicted, average="macro", zero_division=0.0)
        assert comparison["difference"] == pytest.approx(difference)
        assert comparison["mcnemar_p"] == mcnemar(TARGETS, TARGETS, predicted)
        low, high = comparison["difference_ci"]
        assert low <= comparison["difference"] <= high


def test_report_holds_counts_and_systems_in_the_given_order() -> None:
    report = compared(system(TFIDF, one_hot(with_errors(30), 2), 0.7), TUNED)
    assert report["labels"] == ["calm", "harsh"]
    assert (report["n_train"], report["n_validation"], report["n_test"]) == (4, 200, 200)
    assert report["class_counts"]["train"] == {"calm": 3, "harsh": 1}
    assert report["class_counts"]["test"] == {"calm": 100, "harsh": 100}
    first, second = report["systems"]
    assert [first["name"], second["name"]] == [TFIDF, FINE_TUNED]
    assert first["metrics"]["accuracy"] == 0.85
    assert first["metrics"]["accuracy_ci"][0] < 0.85 < first["metrics"]["accuracy_ci"][1]
    assert (first["validation_macro_f1"], first["details"], first["size_bytes"]) == (0.7, {"C": 1.0}, 2048)


@pytest.mark.parametrize(("configured", "expected"), [(None, "harsh"), ("calm", "calm"), ("harsh", "harsh")])
def test_positive_class_is_the_configured_one_else_the_rarer(configured: str | None, expected: str) -> None:
    parts = splits(("calm", "harsh"), [0, 1], train=[0, 0, 0, 1])
    assert parts.labels[positive_class(parts, EvaluationConfig(positive=configured))] == expected
    assert compared(TUNED, positive=configured)["positive"] == expected


def test_more_than_two_classes_have_no_positive_one() -> None:
    parts = splits(("a", "b", "c"), [0, 1, 2])
    report = compare_systems(parts, [system(FINE_TUNED, np.eye(3))], EvaluationConfig(bootstrap=100), 0)
    assert report["positive"] is None
    assert report["systems"][0]["metrics"]["macro_f1_ci"] == [1.0, 1.0]
