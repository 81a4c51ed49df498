"""Bootstrap against scikit-learn on the same resamples; McNemar, Wilson and the rule of three by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import accuracy_score, f1_score

from pipelines import intervals
from pipelines.intervals import Bootstrap, difference_interval, interval, mcnemar, proportion_interval


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


def test_a_difference_never_seen_may_still_be_three_items_in_all() -> None:
    """With a true share of 3 / N, N items show none of it in at most one of twenty cases."""
    assert difference_interval(np.zeros(100), 0.0, np.zeros(300, dtype=np.int64)) == [-0.01, 0.01]
    assert (1 - 3 / 300) ** 300 < 0.05 < (1 - 2.9 / 300) ** 300


def test_a_difference_reaches_three_items_to_both_sides_of_what_was_observed() -> None:
    assert difference_interval(np.full(100, 0.05), 0.04, np.zeros(100, dtype=np.int64)) == pytest.approx([0.01, 0.07])
    assert difference_interval(np.full(100, 0.09), 0.04, np.zeros(100, dtype=np.int64)) == pytest.approx([0.01, 0.09])
    assert difference_interval(np.full(100, -0.05), 0.04, np.zeros(100, dtype=np.int64)) == pytest.approx([-0.05, 0.07])


@pytest.mark.parametrize(
    ("counts", "least"), [((150, 150), 0.01), ((270, 30), 0.05), ((298, 2), 0.5), ((100, 100, 10), 0.1)]
)
def test_three_items_of_the_rarest_class_are_its_share_of_macro_f1(counts: tuple[int, ...], least: float) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    assert difference_interval(np.zeros(100), 0.0, targets) == pytest.approx([-least, least])


def test_a_wide_interval_of_a_difference_stays_as_it_is() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.05, 2000)
    assert difference_interval(differences, 0.1, np.zeros(1000, dtype=np.int64)) == interval(differences)
    assert interval(differences) == pytest.approx([0.1 - 1.96 * 0.05, 0.1 + 1.96 * 0.05], abs=0.01)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (1, 1), (0, 1), (3, 7), (940, 1000)])
def test_proportion_interval_is_wilson_s(successes: int, trials: int) -> None:
    """The shares p at which what was seen lies 1.96 standard deviations away: (seen - p)^2 = z^2 p (1 - p) / n."""
    low, high = proportion_interval(successes, trials)
    roots = np.roots(
        [1 + 1.959964**2 / trials, -2 * successes / trials - 1.959964**2 / trials, (successes / trials) ** 2]
    )
    assert [low, high] == pytest.approx(sorted(np.clip(roots.real, 0, 1)), abs=1e-6)
    assert 0 <= low <= successes / trials <= high <= 1
    assert high - low > 0.01


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_proportion_intervals_cover_as_often_as_they_say(share: float) -> None:
    """Over every possible outcome of 60 trials, each with its probability."""
    intervals_of = [proportion_interval(k, 60) for k in range(61)]
    covered = sum(binom.pmf(k, 60, share) for k, (low, high) in enumerate(intervals_of) if low <= share <= high)
    assert 0.92 <= covered <= 0.98


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
