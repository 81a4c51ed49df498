"""Every metric against scikit-learn or by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference

from pipelines.metrics import CalibrationError, all_metrics, calibration_error, confidence_bins, macro_f1
from pipelines.records import FloatArray, IntArray
from tests.reports import one_hot


def random_case(classes: int, items: int = 60, seed: int = 0) -> tuple[FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), items), rng.integers(0, classes, items)


def figures(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith("_ci")}


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_single_figures_equal_scikit_learn(classes: int) -> None:
    probabilities, targets = random_case(classes, items=3 * classes + 40)
    predicted = probabilities.argmax(axis=1)
    values = all_metrics(probabilities, targets, positive=1)
    assert values["accuracy"] == pytest.approx(reference.accuracy_score(targets, predicted))
    assert values["macro_f1"] == pytest.approx(
        reference.f1_score(targets, predicted, labels=np.unique(targets), average="macro", zero_division=0.0)
    )
    matrix = reference.confusion_matrix(targets, predicted, labels=range(classes))
    assert values["confusion_matrix"] == matrix.tolist()


@pytest.mark.parametrize("positive", [0, 1])
def test_binary_areas_are_those_of_the_positive_class(positive: int) -> None:
    probabilities, targets = random_case(2)
    values = all_metrics(probabilities, targets, positive)
    truth, scores = targets == positive, probabilities[:, positive]
    assert values["roc_auc"] == pytest.approx(reference.roc_auc_score(truth, scores))
    assert values["pr_auc"] == pytest.approx(reference.average_precision_score(truth, scores))


def test_areas_of_several_classes_are_means_of_one_against_the_rest() -> None:
    probabilities, targets = random_case(4)
    values = all_metrics(probabilities, targets, positive=1)
    assert values["roc_auc"] == pytest.approx(
        reference.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
    )
    assert values["pr_auc"] == pytest.approx(
        reference.average_precision_score(np.eye(4)[targets], probabilities, average="macro")
    )


def test_per_class_by_hand() -> None:
    """Class 0: said twice, right once, is twice. Class 1: said twice, right twice, is three times."""
    values = all_metrics(one_hot([0, 1, 0, 1], 2), np.array([0, 0, 1, 1]), positive=1)
    half = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert [figures(row) for row in values["per_class"]] == [half] * 2
    values = all_metrics(one_hot([0, 0, 1, 1, 1], 2), np.array([0, 1, 1, 1, 1]), positive=1)
    first, second = map(figures, values["per_class"])
    assert first == pytest.approx({"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1})
    assert second == pytest.approx({"precision": 1.0, "recall": 0.75, "f1": 6 / 7, "support": 4})
    assert values["macro_f1"] == pytest.approx((2 / 3 + 6 / 7) / 2)


def test_intervals_per_class_are_of_what_was_said_and_of_what_is() -> None:
    """Class 1 is said four times, of which three are right, and is five times; class 2 is said once, wrongly."""
    said, is_ = [0, 1, 1, 1, 1, 0, 2], np.array([0, 1, 1, 1, 0, 1, 1])
    per_class = all_metrics(one_hot(said, 3), is_, positive=1)["per_class"]
    wilson = {(k, n): list(binomtest(k, n).proportion_ci(method="wilson")) for k, n in ((3, 4), (3, 5), (1, 2), (0, 1))}
    assert [row["precision_ci"] for row in per_class] == [wilson[1, 2], wilson[3, 4], wilson[0, 1]]
    assert [row["recall_ci"] for row in per_class] == [wilson[1, 2], wilson[3, 5], None]
    assert (per_class[1]["precision"], per_class[1]["recall"]) == (3 / 4, 3 / 5)


def test_a_class_without_test_items_does_not_count_but_naming_it_is_wrong() -> None:
    targets = np.array([0, 0, 1, 1])
    never_said = all_metrics(one_hot([0, 0, 1, 1], 3), targets, positive=1)
    assert never_said["macro_f1"] == 1.0
    assert never_said["roc_auc"] == 1.0  # the mean of the two classes that have a curve
    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "precision_ci": None, "recall_ci": None}
    assert never_said["per_class"][2] == nothing
    said = all_metrics(one_hot([0, 0, 1, 2], 3), targets, positive=1)
    assert said["macro_f1"] == pytest.approx((1.0 + 2 / 3) / 2)
    assert [len(row) for row in said["confusion_matrix"]] == [3, 3, 3]


def test_constant_predictions_give_a_coin_s_areas() -> None:
    targets = np.array([0, 0, 0, 1])
    values = all_metrics(np.tile([0.75, 0.25], (4, 1)), targets, positive=1)
    assert values["accuracy"] == 0.75
    assert values["macro_f1"] == pytest.approx((6 / 7 + 0.0) / 2)
    assert values["roc_auc"] == 0.5
    assert values["pr_auc"] == 0.25  # the share of the positive class
    assert values["ece"] == pytest.approx(0.0)  # as sure as it is right


@pytest.mark.parametrize("classes", [2, 3])
def test_areas_are_undefined_when_all_references_are_of_one_class(classes: int) -> None:
    values = all_metrics(one_hot([0, 1], classes), np.array([1, 1]), positive=1)
    assert values["roc_auc"] is None
    assert values["pr_auc"] is None
    assert values["accuracy"] == 0.5


def test_calibration_error_by_hand() -> None:
    """Bins of width 1/15: 0.9 (13 of 15), 0.91 too; 0.6 is the lower edge of bin 9; 1.0 belongs to the last bin."""
    confidence = np.array([0.9, 0.91, 0.62, 1.0])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    right = [1, 0, 1, 1]  # the second item is of the other class
    targets = 1 - np.array(right)
    by_bin = [abs((1 + 0) - (0.9 + 0.91)), abs(1 - 0.62), abs(1 - 1.0)]
    found = CalibrationError(keep_in_memory=True).compute(predictions=probabilities, references=targets)
    assert found["ece"] == pytest.approx(sum(by_bin) / 4)


@pytest.mark.parametrize(
    ("highest", "number"),
    [(0.5, 7), (0.599, 8), (0.6, 9), (0.74, 11), (0.8, 12), (0.9999, 14), (1.0, 14)],
)
def test_bins_of_confidence_hold_their_lower_edge(highest: float, number: int) -> None:
    assert confidence_bins(np.array([[highest, 1 - highest], [1 - highest, highest]])).tolist() == [number] * 2


def test_many_classes_fill_the_low_bins() -> None:
    probabilities = np.array([[0.05] * 20, [0.1] + [0.9 / 19] * 19])
    assert confidence_bins(probabilities).tolist() == [0, 1]
    assert calibration_error(probabilities, np.array([1, 0])) == pytest.approx((0.05 + 0.9) / 2)


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_calibration_error_equals_its_definition(classes: int) -> None:
    """Mean over bins, by their items, of the gap between mean confidence and share right."""
    probabilities, targets = random_case(classes, items=500)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    expected = 0.0
    for low in range(15):
        own = (confidence >= low / 15) & ((confidence < (low + 1) / 15) | (low == 14))
        if own.any():
            expected += own.mean() * abs(right[own].mean() - confidence[own].mean())
    assert calibration_error(probabilities, targets) == pytest.approx(expected)
    assert all_metrics(probabilities, targets, positive=1)["ece"] == pytest.approx(expected)


def test_calibration_error_of_a_calibrated_classifier_is_near_zero() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(4_000)
    probabilities, targets = np.stack([first, 1 - first], axis=1), (rng.random(4_000) > first).astype(int)
    assert all_metrics(probabilities, targets, positive=1)["ece"] < 0.04
    assert all_metrics(one_hot(probabilities.argmax(axis=1), 2, sure=1.0), targets, positive=1)["ece"] > 0.2


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_macro_f1_equals_its_definition(pairs: list[tuple[int, int]]) -> None:
    targets, predicted = np.array(pairs).T
    scores = []
    for c in set(targets.tolist()):
        both = np.sum((targets == c) & (predicted == c))
        scores.append(2 * both / (np.sum(targets == c) + np.sum(predicted == c)))
    assert macro_f1(targets, predicted) == pytest.approx(np.mean(scores))
