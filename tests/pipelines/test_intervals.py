"""Bootstrap against scikit-learn on the same resamples; McNemar by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipelines import intervals
from pipelines.intervals import Bootstrap, interval, mcnemar


@pytest.mark.parametrize("chunk", [intervals._CHUNK, 150], ids=["at once", "in chunks"])
def test_every_resample_scores_as_scikit_learn_does(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(intervals, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    targets = rng.choice(4, 40, p=[0.6, 0.3, 0.05, 0.05])
    predicted = np.where(rng.random(40) < 0.6, targets, rng.integers(0, 5, 40))  # class 4 is only ever predicted
    bootstrap = Bootstrap(targets, classes=5, resamples=25, seed=3)
    scores = bootstrap.scores(predicted)
    drawn = np.concatenate(list(bootstrap._indices()))
    assert len(drawn) == 25
    expected = [f1_score(targets[i], predicted[i], average="macro", zero_division=0.0) for i in drawn]
    np.testing.assert_allclose(scores["macro_f1"], expected)
    np.testing.assert_allclose(scores["accuracy"], [accuracy_score(targets[i], predicted[i]) for i in drawn])


def test_resamples_keep_the_number_of_items_of_every_class() -> None:
    targets = np.array([0] * 7 + [2] * 3)
    drawn = np.concatenate(list(Bootstrap(targets, 3, 50, 0)._indices()))
    assert all(np.bincount(targets[row], minlength=3).tolist() == [7, 0, 3] for row in drawn)
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) > 40  # and they do differ


def test_the_same_seed_draws_the_same_resamples_and_another_seed_others() -> None:
    targets = np.arange(60) % 2
    predicted = np.where(np.arange(60) % 5, targets, 1 - targets)
    same, again, other = (Bootstrap(targets, 2, 30, seed).scores(predicted)["macro_f1"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)


def test_equal_predictions_have_paired_differences_of_zero() -> None:
    targets = np.random.default_rng(0).integers(0, 3, 80)
    predicted = np.roll(targets, 1)
    bootstrap = Bootstrap(targets, 3, 100, 0)
    differences = bootstrap.scores(predicted)["macro_f1"] - bootstrap.scores(predicted.copy())["macro_f1"]
    assert interval(differences) == [0.0, 0.0]


def test_pairing_makes_the_interval_of_a_difference_narrower() -> None:
    """One system is the other with two more errors, so that most of the noise is shared."""
    rng = np.random.default_rng(0)
    targets = np.arange(200) % 2
    first = np.where(rng.random(200) < 0.7, targets, 1 - targets)
    second = first.copy()
    second[np.flatnonzero(first == targets)[:2]] ^= 1
    bootstrap = Bootstrap(targets, 2, 500, 0)
    a, b = bootstrap.scores(first)["macro_f1"], bootstrap.scores(second)["macro_f1"]
    (low, high), (alone_low, alone_high) = interval(a - b), interval(a)
    assert 0 <= low < 0.01 < high < 0.03
    assert alone_high - alone_low > 0.1


def test_interval_is_the_middle_95_percent() -> None:
    assert interval(np.arange(0, 1001, dtype=float)) == pytest.approx([25.0, 975.0])


def test_intervals_cover_the_true_accuracy_about_as_often_as_they_say() -> None:
    """120 test parts of 100 items from a system that is right with probability 0.8."""
    rng = np.random.default_rng(0)
    targets = np.arange(100) % 2
    covered = []
    for seed in range(120):
        predicted = np.where(rng.random(100) < 0.8, targets, 1 - targets)
        low, high = interval(Bootstrap(targets, 2, 200, seed).scores(predicted)["accuracy"])
        covered.append(low <= 0.8 <= high)
    assert 0.88 <= np.mean(covered) <= 0.99


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 1, 2 * (1 + 6) / 2**6),
        (1, 5, 2 * (1 + 6) / 2**6),
        (8, 0, 2 / 2**8),
        (3, 3, 1.0),
    ],
)
def test_mcnemar_by_hand(only_first: int, only_second: int, p: float) -> None:
    """Twice the tail of a fair coin over the items that only one of the two has right."""
    both_right, both_wrong = 4, 3
    targets = np.zeros(only_first + only_second + both_right + both_wrong, dtype=int)
    first, second = targets.copy(), targets.copy()
    second[:only_first] = 1
    first[only_first : only_first + only_second] = 1
    first[len(first) - both_wrong :] = second[len(second) - both_wrong :] = 1
    assert mcnemar(targets, first, second) == pytest.approx(p)


def test_mcnemar_ignores_differing_errors() -> None:
    """Both are wrong on every item, in different ways."""
    assert mcnemar(np.array([0, 0]), np.array([1, 1]), np.array([2, 2])) == 1.0
