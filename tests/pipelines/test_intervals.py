"""Bootstrap against scikit-learn on the same resamples; McNemar, Wilson, Student and the rule of three by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, ttest_1samp
from sklearn.metrics import accuracy_score, f1_score

from pipelines import intervals
from pipelines.intervals import Bootstrap, interval, mcnemar, proportion_interval, student_interval
from pipelines.records import FloatArray, IntArray


def of_single_items(targets: IntArray, classes: int, resamples: int, seed: int) -> Bootstrap:
    return Bootstrap(targets, np.arange(len(targets)), classes, resamples, seed)


def difference(resampled: FloatArray, observed: float, counts: tuple[int, ...]) -> list[float]:
    """Of a part with so many single items of every class, whose bootstrap differences are given."""
    bootstrap = of_single_items(np.repeat(np.arange(len(counts)), counts), len(counts), len(resampled), 0)
    return bootstrap.difference(resampled, np.zeros(len(resampled)), observed)


@pytest.mark.parametrize("chunk", [intervals._CHUNK, 150], ids=["at once", "in chunks"])
def test_every_resample_scores_as_scikit_learn_does(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(intervals, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    targets = rng.choice(4, 40, p=[0.6, 0.3, 0.05, 0.05])
    predicted = np.where(rng.random(40) < 0.6, targets, rng.integers(0, 5, 40))  # class 4 is only ever predicted
    bootstrap = of_single_items(targets, 5, 25, 3)
    scores = bootstrap.scores(predicted)
    drawn = [
        np.repeat(np.arange(40), times.astype(int)) for chunk in bootstrap._draws(np.arange(40)) for times in chunk
    ]
    assert len(drawn) == 25
    expected = [
        f1_score(targets[i], predicted[i], labels=np.unique(targets[i]), average="macro", zero_division=0.0)
        for i in drawn
    ]
    np.testing.assert_allclose(scores["macro_f1"], expected)
    np.testing.assert_allclose(scores["accuracy"], [accuracy_score(targets[i], predicted[i]) for i in drawn])


def test_resamples_keep_the_number_of_items_of_every_class() -> None:
    targets = np.array([0] * 7 + [2] * 3)
    drawn = np.concatenate(list(of_single_items(targets, 3, 50, 0)._draws(np.arange(10))))
    assert drawn.shape == (50, 10)
    assert all(row[:7].sum() == 7 and row[7:].sum() == 3 for row in drawn)
    assert len({tuple(row) for row in drawn.tolist()}) > 40  # and they do differ


def test_the_same_seed_draws_the_same_resamples_and_another_seed_others() -> None:
    targets = np.arange(60) % 2
    predicted = np.where(np.arange(60) % 5, targets, 1 - targets)
    same, again, other = (of_single_items(targets, 2, 30, seed).scores(predicted)["macro_f1"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert not np.array_equal(same, other)


def test_equal_predictions_have_paired_differences_of_zero() -> None:
    targets = np.random.default_rng(0).integers(0, 3, 80)
    predicted = np.roll(targets, 1)
    bootstrap = of_single_items(targets, 3, 100, 0)
    differences = bootstrap.scores(predicted)["macro_f1"] - bootstrap.scores(predicted.copy())["macro_f1"]
    assert interval(differences) == [0.0, 0.0]


def test_pairing_makes_the_interval_of_a_difference_narrower() -> None:
    """One system is the other with two more errors, so that most of the noise is shared."""
    rng = np.random.default_rng(0)
    targets = np.arange(200) % 2
    first = np.where(rng.random(200) < 0.7, targets, 1 - targets)
    second = first.copy()
    second[np.flatnonzero(first == targets)[:2]] ^= 1
    bootstrap = of_single_items(targets, 2, 500, 0)
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
        low, high = interval(of_single_items(targets, 2, 200, seed).scores(predicted)["accuracy"])
        covered.append(low <= 0.8 <= high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_copies_are_no_further_evidence() -> None:
    """Five copies of every item: the interval is that of the items once, not narrower by the root of five."""
    rng = np.random.default_rng(0)
    targets = np.arange(100) % 2
    predicted = np.where(rng.random(100) < 0.8, targets, 1 - targets)
    once = of_single_items(targets, 2, 2000, 0).scores(predicted)["macro_f1"]
    copied = Bootstrap(np.repeat(targets, 5), np.repeat(np.arange(100), 5), 2, 2000, 0).scores(np.repeat(predicted, 5))
    np.testing.assert_allclose(copied["macro_f1"], once)
    alone = of_single_items(np.repeat(targets, 5), 2, 2000, 0).scores(np.repeat(predicted, 5))
    assert np.diff(interval(alone["macro_f1"])) < 0.6 * np.diff(interval(once))


def test_groups_of_several_classes_make_intervals_wider_and_not_narrower() -> None:
    """60 authors of 12 items each, of ten classes: hardly two of them have the same classes."""
    rng = np.random.default_rng(0)
    authors = np.repeat(np.arange(60), 12)
    targets = rng.integers(0, 10, 720)
    skill = rng.uniform(0.4, 1.0, 60)[authors]
    predicted = np.where(rng.random(720) < skill, targets, (targets + 1) % 10)
    grouped = Bootstrap(targets, authors, 10, 500, 0).scores(predicted)["accuracy"]
    single = of_single_items(targets, 10, 500, 0).scores(predicted)["accuracy"]
    assert np.diff(interval(grouped)) > 1.2 * np.diff(interval(single))


def test_pairs_are_drawn_whole_and_single_items_for_single_items() -> None:
    targets = np.array([0, 1, 0, 1, 0, 0, 1])
    groups = np.array([8, 8, 9, 9, 3, 4, 5])  # two pairs, two single items of class 0, one of class 1
    for times in Bootstrap(targets, groups, 2, 40, 0)._draws(np.unique(groups, return_inverse=True)[1]):
        assert (times[:, 3:].sum(axis=1) == 2).all()
        assert (times[:, :2].sum(axis=1) == 2).all()
        assert (times[:, 2] == 1).all()


def test_a_difference_never_seen_may_still_be_three_items_in_all() -> None:
    """With a true share of 3 / N, N items show none of it in at most one of twenty cases."""
    assert difference(np.zeros(100), 0.0, (300,)) == [-0.01, 0.01]
    assert (1 - 3 / 300) ** 300 < 0.05 < (1 - 2.9 / 300) ** 300


@pytest.mark.parametrize(
    ("resampled", "expected"), [(0.05, (0.01, 0.07)), (0.09, (0.01, 0.09)), (-0.05, (-0.05, 0.07))]
)
def test_a_difference_reaches_three_items_to_both_sides_of_what_was_observed(
    resampled: float, expected: tuple[float, float]
) -> None:
    assert difference(np.full(100, resampled), 0.04, (100,)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "least"), [((150, 150), 0.01), ((270, 30), 0.05), ((298, 2), 0.5), ((100, 100, 10), 0.1)]
)
def test_three_items_of_the_rarest_class_are_its_share_of_macro_f1(counts: tuple[int, ...], least: float) -> None:
    assert difference(np.zeros(100), 0.0, counts) == pytest.approx([-least, least])


def test_a_wide_interval_of_a_difference_stays_as_it_is() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.05, 2000)
    assert difference(differences, 0.1, (1000,)) == interval(differences)
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


def test_the_interval_of_a_mean_is_that_of_the_t_test() -> None:
    values = [0.01, 0.03, -0.01, 0.02]
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert student_interval(values) == pytest.approx([expected.low, expected.high])
    assert student_interval([0.0, 0.1]) == pytest.approx([0.05 - 12.7062 * 0.05, 0.05 + 12.7062 * 0.05], rel=1e-4)
    assert student_interval([0.1]) is None


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
