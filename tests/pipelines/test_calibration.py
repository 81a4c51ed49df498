"""Temperature against a direct minimum of the log loss; reliability by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binom
from sklearn.model_selection import KFold

from pipelines.calibration import FEWEST, calibration_section, choose_temperature, fit_temperature
from pipelines.metrics import calibration_error
from pipelines.records import FloatArray, IntArray
from tests.reports import one_hot


def answered(classes: int, items: int, sharpness: float, seed: int = 0, absent: int = 0) -> tuple[FloatArray, IntArray]:
    """Logits that are `sharpness` times too large for targets drawn from them; the last classes may be absent."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (items, classes))
    shares = softmax(logits[:, : classes - absent], axis=1)
    targets = (shares.cumsum(axis=1) < rng.random((items, 1))).sum(axis=1)
    return sharpness * logits, np.minimum(targets, classes - absent - 1)


def best_temperature(logits: FloatArray, targets: IntArray) -> float:
    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(targets)), targets].mean())

    return float(np.exp(minimize_scalar(loss, bracket=(-1.0, 1.0)).x))


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(("classes", "absent"), [(2, 0), (3, 0), (3, 1), (4, 2), (77, 0), (77, 40)])
def test_the_temperature_has_the_lowest_log_loss(classes: int, absent: int, sharpness: float) -> None:
    logits, targets = answered(classes, 400, sharpness, absent=absent)
    assert fit_temperature(logits, targets) == pytest.approx(best_temperature(logits, targets), rel=1e-4)


@pytest.mark.parametrize("only", [0, 1])
def test_one_of_two_classes_may_be_absent(only: int) -> None:
    logits = np.random.default_rng(0).normal(0, 1, (200, 2))
    logits[:, only] += 1
    targets = np.full(200, only)
    assert fit_temperature(logits, targets) == pytest.approx(best_temperature(logits, targets), rel=1e-4)


def test_almost_as_many_classes_as_items_give_no_warning() -> None:
    logits, targets = answered(77, 60, 3.0)
    assert len(np.unique(targets)) > 30
    assert fit_temperature(logits, targets) == pytest.approx(best_temperature(logits, targets), rel=1e-4)


def test_the_temperature_undoes_what_made_the_logits_too_large() -> None:
    logits, targets = answered(3, 20_000, 4.0)
    assert fit_temperature(logits, targets) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_scaling_is_on_where_it_helps_and_says_by_how_much_on_held_out_items(classes: int) -> None:
    logits, targets = answered(classes, 300, 5.0)
    held_out = np.empty_like(logits)
    for fitted, rest in KFold(5, shuffle=True, random_state=7).split(logits):
        held_out[rest] = softmax(logits[rest] / best_temperature(logits[fitted], targets[fitted]), axis=1)
    before, after = (calibration_error(p, targets) for p in (softmax(logits, axis=1), held_out))
    temperature, reason = choose_temperature(logits, targets, 7)
    assert temperature == pytest.approx(best_temperature(logits, targets), rel=1e-4)
    assert before > 2 * after
    assert reason == (
        f"Scaling is on: the calibration error on held-out validation items goes from {before:.3f} to {after:.3f}."
    )


def test_scaling_is_off_where_the_error_does_not_fall() -> None:
    """Every item is 75% sure and three of four are right: any other temperature is worse."""
    logits = np.tile([np.log(3), 0.0], (80, 1))
    temperature, reason = choose_temperature(logits, np.arange(80) % 4 // 3, 0)
    assert temperature == 1.0
    assert reason.startswith("Scaling is off: ")
    assert "goes from 0.000 to 0.0" in reason
    assert reason.endswith("so it does not help here.")


def test_too_few_validation_items_fit_no_temperature() -> None:
    logits, targets = answered(3, FEWEST, 5.0)
    assert choose_temperature(logits, targets, 0)[0] > 2
    temperature, reason = choose_temperature(logits[1:], targets[1:], 0)
    assert temperature == 1.0
    assert reason == "Scaling is off: 49 validation items are too few to fit a temperature (at least 50)."


def test_a_validation_part_without_errors_fits_no_temperature() -> None:
    """The lowest log loss would be at temperature 0, where every probability is 0 or 1."""
    targets = np.arange(60) % 3
    logits = 3 * np.eye(3)[targets] + np.random.default_rng(0).uniform(0, 1, (60, 3))
    temperature, reason = choose_temperature(logits, targets, 0)
    assert temperature == 1.0
    assert reason == "Scaling is off: all 60 validation items are right, so that no temperature is the best."


@pytest.mark.parametrize("temperature", [0.15, 0.8, 3.0])
def test_before_is_of_the_unscaled_probabilities(temperature: float) -> None:
    logits, targets = answered(4, 300, 2.0)
    unscaled = softmax(logits, axis=1)
    section = calibration_section(softmax(logits / temperature, axis=1), targets, temperature, "why", 50, 0)
    plain = calibration_section(unscaled, targets, 1.0, "why", 50, 0)
    assert section["before"]["ece"] == pytest.approx(calibration_error(unscaled, targets))
    assert section["before"]["ece_ci"] == pytest.approx(plain["after"]["ece_ci"])
    for found, expected in zip(section["before"]["bins"], plain["after"]["bins"], strict=True):
        assert found == pytest.approx(expected)
    assert section["after"]["ece"] != pytest.approx(section["before"]["ece"], abs=0.01)
    assert (section["temperature"], section["scaled"], section["reason"]) == (temperature, True, "why")


def test_reliability_by_hand() -> None:
    """Bin 9 of 15 (0.60 to 0.67) holds 0.62 and 0.66, one of them right; bin 13 holds 0.9, which is right."""
    sure = np.array([0.62, 0.9, 0.66])
    section = calibration_section(np.stack([sure, 1 - sure], axis=1), np.array([0, 0, 1]), 1.0, "", 20, 0)
    low, high = section["after"]["bins"]
    assert low == pytest.approx({"items": 2, "confidence": 0.64, "accuracy": 0.5})
    assert high == pytest.approx({"items": 1, "confidence": 0.9, "accuracy": 1.0})
    assert section["after"]["ece"] == pytest.approx((2 * 0.14 + 0.1) / 3)


def test_the_interval_of_one_bin_is_that_of_its_share() -> None:
    """With every item 90% sure the error is 0.9 less the share that is right, a binomial figure."""
    section = calibration_section(one_hot([0] * 100, 2), np.arange(100) % 2, 1.0, "", 4000, 0)
    expected = [0.9 - binom.ppf(q, 100, 0.5) / 100 for q in (0.975, 0.025)]
    assert section["after"]["ece_ci"] == pytest.approx(expected, abs=0.011)
    always = calibration_section(one_hot([0] * 100, 2), np.zeros(100, dtype=int), 1.0, "", 50, 0)
    assert always["after"]["ece_ci"] == pytest.approx([0.1, 0.1])


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    logits, targets = answered(3, 100, 1.0)
    same, again, other = (
        calibration_section(softmax(logits, axis=1), targets, 1.0, "", 50, seed)["after"]["ece_ci"]
        for seed in (1, 1, 2)
    )
    assert same == again != other


def test_without_scaling_the_sentence_has_one_figure() -> None:
    section = calibration_section(one_hot([0] * 10, 2), np.zeros(10, dtype=int), 1.0, "off", 20, 0)
    assert not section["scaled"]
    assert section["sentence"] == (
        "The model's probabilities are as trained; their calibration error on the test part is 0.100 (0.100 to 0.100)."
    )


def test_the_sentence_says_that_the_error_falls() -> None:
    """Sure by 81/82 before and by 0.9 after, where all are right half of the time."""
    targets = np.arange(100) % 2
    section = calibration_section(one_hot([0] * 100, 2), targets, 2.0, "on", 50, 0)
    assert section["before"]["ece"] == pytest.approx(81 / 82 - 0.5)
    assert section["sentence"].startswith(
        "With temperature 2.00 the calibration error on the test part falls: from 0.488 ("
    )
    assert ") to 0.400 (" in section["sentence"]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_sentence_says_that_the_error_does_not_fall(temperature: float) -> None:
    """What helped on validation does not help here: every item was 75% sure and three of four are right."""
    logits = np.tile([np.log(3), 0.0], (80, 1))
    section = calibration_section(
        softmax(logits / temperature, axis=1), np.arange(80) % 4 // 3, temperature, "on", 50, 0
    )
    assert section["before"]["ece"] == pytest.approx(0.0, abs=1e-9)
    assert (
        f"With temperature {temperature:.2f} the calibration error on the test part does not fall: from 0.000 ("
        in (section["sentence"])
    )
