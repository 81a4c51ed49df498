"""The core of report.json on systems whose scores are known; the verdict has tests of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipelines.config import EvaluationConfig
from pipelines.evaluate import FINE_TUNED, compare_systems, positive_class
from pipelines.intervals import mcnemar
from pipelines.records import IntArray, SystemScore
from tests.reports import AS_TRAINED, one_hot, splits, system

TARGETS = np.arange(200) % 2
TFIDF, MANUAL = "logistic-regression-tfidf", "logistic-regression-manual"


def with_errors(count: int) -> IntArray:
    """The targets with errors on the first items."""
    predicted = TARGETS.copy()
    predicted[:count] ^= 1
    return predicted


def scored(name: str, errors: int = 0, trained_on: int = 4, validation: float = 0.5) -> SystemScore:
    probabilities = one_hot(with_errors(errors), 2)
    return replace(system(name, probabilities, validation, probabilities), trained_on=trained_on)


TUNED = scored(FINE_TUNED)


def compared(
    *systems: SystemScore,
    main: str = FINE_TUNED,
    temperature: tuple[float, str] = AS_TRAINED,
    slices: tuple[str, ...] = (),
    **evaluation: Any,
) -> dict[str, Any]:
    config = EvaluationConfig(**{"bootstrap": 100} | evaluation)
    parts = splits(("calm", "harsh"), TARGETS.tolist(), [0, 0, 0, 1])
    return compare_systems(parts, list(systems), main, config, 0, temperature, slices)


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
    report = compared(scored(TFIDF, 30, validation=0.7), TUNED)
    assert (report["main"], report["labels"]) == (FINE_TUNED, ["calm", "harsh"])
    assert (report["n_train"], report["n_validation"], report["n_test"]) == (4, 200, 200)
    assert report["class_counts"]["train"] == {"calm": 3, "harsh": 1}
    assert report["class_counts"]["test"] == {"calm": 100, "harsh": 100}
    assert report["data"]["exact_duplicates"] == 1234
    first, second = report["systems"]
    assert [first["name"], second["name"]] == [TFIDF, FINE_TUNED]
    assert first["metrics"]["accuracy"] == 0.85
    assert first["metrics"]["accuracy_ci"][0] < 0.85 < first["metrics"]["accuracy_ci"][1]
    assert (first["validation_macro_f1"], first["trained_on"], first["details"]) == (0.7, 4, {"C": 1.0})


def test_costs_of_a_system_stand_beside_its_metrics() -> None:
    found = compared(TUNED)["systems"][0]
    costs = ("train_seconds", "items_per_second", "size_bytes", "peak_memory_bytes", "store")
    assert tuple(found[name] for name in costs) == (1.5, 200.0, 2048, 3 * 1024**2, "off")


def test_sections_are_about_the_main_system() -> None:
    """Another fine-tuned system with 70 errors is in the ladder; the main one has 10, its rival 30."""
    report = compared(
        scored(FINE_TUNED, 70),
        scored(TFIDF, 30),
        scored("fine-tuned-client", 10),
        main="fine-tuned-client",
        slices=("kind",),
    )
    counts = report["mistakes"]["counts"]
    assert counts == {"worst_errors": 10, "only_fine_tuned_right": 20, "only_rival_right": 0, "disagreements": 20}
    assert sum(row["errors"] for row in report["slices"]["rows"] if row["column"] == "kind") == 10
    assert report["calibration"]["after"]["ece"] == pytest.approx(0.05)  # 95% right, 90% sure
    assert {curve["system"] for curve in report["curves"]["curves"]} == {"fine-tuned-client", TFIDF}
    assert report["verdict"]["rival"] == TFIDF


def test_the_temperature_and_its_reason_are_passed_on() -> None:
    calibration = compared(TUNED, temperature=(2.0, "because"))["calibration"]
    assert (calibration["temperature"], calibration["scaled"], calibration["reason"]) == (2.0, True, "because")
    sure = 0.9**2 / (0.9**2 + 0.1**2)  # before scaling
    assert calibration["before"]["ece"] == pytest.approx(1 - sure)


def test_thresholds_need_validation_probabilities_of_the_main_system() -> None:
    assert len(compared(TUNED, operating_points=(0.9,))["operating_points"]["points"]) == 4
    assert "operating_points" not in compared(replace(TUNED, validation_probabilities=None))


def test_the_main_system_is_compared_with_all_and_others_with_what_learned_from_as_much() -> None:
    systems = [
        scored("majority"),
        scored(TFIDF, trained_on=100),
        scored(FINE_TUNED, trained_on=100),
        scored(TFIDF + "-client", trained_on=150),
        scored("fine-tuned-client", trained_on=150),
    ]
    report = compared(*systems, main="fine-tuned-client")
    pairs = [(c["system"], c["baseline"]) for c in report["comparisons"]]
    assert pairs == [("fine-tuned-client", s.name) for s in systems[:-1]] + [(FINE_TUNED, TFIDF)]


def test_models_of_other_runs_are_compared_with_the_baselines_of_their_own_run() -> None:
    names = (f"a/{TFIDF}", "a/fine-tuned", f"b/{TFIDF}", f"b/{MANUAL}", "b/fine-tuned")
    report = compared(*(scored(name) for name in names), main="a/fine-tuned")
    pairs = [(c["system"], c["baseline"]) for c in report["comparisons"]]
    assert pairs[:4] == [("a/fine-tuned", name) for name in names if name != "a/fine-tuned"]
    assert pairs[4:] == [("b/fine-tuned", f"b/{TFIDF}"), ("b/fine-tuned", f"b/{MANUAL}")]


@pytest.mark.parametrize(("configured", "expected"), [(None, "harsh"), ("calm", "calm"), ("harsh", "harsh")])
def test_positive_class_is_the_configured_one_else_the_rarer(configured: str | None, expected: str) -> None:
    parts = splits(("calm", "harsh"), [0, 1], train=[0, 0, 0, 1])
    assert parts.labels[positive_class(parts, EvaluationConfig(positive=configured))] == expected
    assert compared(TUNED, positive=configured)["positive"] == expected


def test_more_than_two_classes_have_no_positive_one() -> None:
    parts = splits(("a", "b", "c"), [0, 1, 2])
    tuned = system(FINE_TUNED, np.eye(3))
    report = compare_systems(parts, [tuned], FINE_TUNED, EvaluationConfig(bootstrap=100), 0, AS_TRAINED)
    assert report["positive"] is None
    assert report["systems"][0]["metrics"]["macro_f1_ci"] == [1.0, 1.0]
