"""Thresholds against brute force, and whether what they promise holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from pipelines.operating_points import lower_bound, operating_points, precision_threshold, recall_threshold
from pipelines.records import FloatArray, IntArray

DRAWS = 400


def exact_bound(successes: int, trials: int) -> float:
    """The lower end of a two-sided 90% interval is a one-sided 95% bound."""
    return float(binomtest(successes, trials).proportion_ci(0.9, method="exact").low)


def proven(successes: int, trials: int, aim: float) -> bool:
    """So many successes or more would come with at most 5% if the share were `aim`."""
    return bool(binom.sf(successes - 1, trials, aim) <= 0.05)


def brute_precision(scores: FloatArray, truth: IntArray, aim: float) -> float | None:
    """Lower the threshold from score to score; stop at the first that fails among those that could hold."""
    best = None
    for threshold in sorted(set(scores.tolist()), reverse=True):
        flagged = scores >= threshold
        n = int(flagged.sum())
        if not proven(n, n, aim):
            continue
        if not proven(int(truth[flagged].sum()), n, aim):
            break
        best = threshold
    return best


def brute_recall(scores: FloatArray, truth: IntArray, aim: float) -> float | None:
    n = int(truth.sum())
    holding = [t for t in set(scores.tolist()) if n and proven(int(truth[scores >= t].sum()), n, aim)]
    return max(holding, default=None)


def draw(rng: np.random.Generator, items: int, share: float, apart: float) -> tuple[FloatArray, IntArray]:
    """Normal scores around +apart for the class, which has the given share, and around -apart for the rest."""
    truth = (rng.random(items) < share).astype(np.int64)
    return rng.normal(apart * (2 * truth - 1), 1.0), truth


def ranked(truth: list[int]) -> tuple[FloatArray, IntArray]:
    """Distinct falling scores: the first item is the surest."""
    return np.linspace(0.99, 0.01, len(truth)), np.array(truth)


def two_classes(second: FloatArray, targets: list[int]) -> tuple[FloatArray, IntArray]:
    return np.stack([1 - second, second], axis=1), np.array(targets)


@pytest.mark.parametrize(("successes", "trials"), [(1, 1), (20, 20), (3, 40), (59, 60), (500, 1000)])
def test_lower_bound_is_the_exact_one_sided_one(successes: int, trials: int) -> None:
    assert lower_bound(successes, trials) == pytest.approx(exact_bound(successes, trials))


def test_lower_bound_by_hand() -> None:
    """All of n succeed with probability p ** n, which is 5% at the bound; no success proves nothing."""
    assert lower_bound(np.array([20, 0, 0]), np.array([20, 5, 0])).tolist() == pytest.approx([0.05 ** (1 / 20), 0, 0])


@pytest.mark.parametrize("digits", [1, 2, 9], ids=["many ties", "some ties", "no ties"])
def test_thresholds_are_those_of_brute_force(digits: int) -> None:
    found: list[float | None] = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores, truth = draw(rng, int(rng.integers(1, 150)), float(rng.uniform(0.1, 0.9)), float(rng.uniform(0, 2)))
        scores = np.round(scores, digits)
        for aim in (0.3, 0.8, 0.95):
            expected = brute_precision(scores, truth, aim), brute_recall(scores, truth, aim)
            assert (precision_threshold(scores, truth, aim), recall_threshold(scores, truth, aim)) == expected
            found += expected
    assert found.count(None) > 10
    assert len(found) - found.count(None) > 100


def test_precision_is_promised_to_the_first_failure_and_not_beyond() -> None:
    """Of 13 items 10 right prove one half (378 / 8192 < 5%), of 14 they do not (1471 / 16384), whatever follows."""
    scores, truth = ranked([1] * 10 + [0] * 5 + [1] * 300)
    assert precision_threshold(scores, truth, 0.5) == scores[12]


def test_a_wrong_start_of_the_chain_promises_nothing() -> None:
    """Five items are the fewest that can prove one half (1 / 32 < 5%); these are wrong."""
    assert precision_threshold(*ranked([0] * 5 + [1] * 300), 0.5) is None
    scores, truth = ranked([1] * 5)
    assert precision_threshold(scores, truth, 0.5) == scores[4]
    assert precision_threshold(scores[:4], truth[:4], 0.5) is None


def test_recall_misses_as_many_as_the_bound_allows() -> None:
    """Of 60 items one missed proves 92% (lower bound 0.923), two missed do not (0.899); none missed proves 95%."""
    scores, truth = ranked([1] * 60 + [0] * 40)
    assert recall_threshold(scores, truth, 0.92) == scores[58]
    assert recall_threshold(scores, truth, 0.95) == scores[59]
    assert recall_threshold(scores, truth, 0.96) is None


def test_items_of_equal_score_are_flagged_together() -> None:
    """The surest ten alone would prove one half, but ten wrong ones share their score."""
    truth = np.array([1] * 10 + [0] * 10 + [1] * 5)
    assert precision_threshold(np.array([0.9] * 20 + [0.8] * 5), truth, 0.5) is None
    assert precision_threshold(np.array([0.9] * 10 + [0.8] * 15), truth, 0.5) == 0.9
    assert recall_threshold(np.full(25, 0.7), truth, 0.8) == 0.7


def test_thresholds_do_not_depend_on_the_order_of_items() -> None:
    rng = np.random.default_rng(0)
    scores, truth = draw(rng, 300, 0.4, 1.0)
    scores = np.round(scores, 1)
    mixed = rng.permutation(300)
    for choose in (precision_threshold, recall_threshold):
        assert choose(scores, truth, 0.8) == choose(scores[mixed], truth[mixed], 0.8) is not None


@pytest.mark.parametrize("digits", [1, 9], ids=["ties", "no ties"])
@pytest.mark.parametrize(
    ("items", "share", "apart", "aim"),
    [(300, 0.5, 1.0, 0.8), (200, 0.3, 1.2, 0.6), (1000, 0.1, 1.5, 0.9), (300, 0.5, 1.5, 0.95)],
)
def test_at_least_93_percent_of_promises_hold(items: int, share: float, apart: float, aim: float, digits: int) -> None:
    """Validation parts from a known population, whose own precision and recall stand for a huge test part."""
    held: dict[str, list[bool]] = {"precision": [], "recall": []}
    for seed in range(DRAWS):
        scores, truth = draw(np.random.default_rng(seed), items, share, apart)
        scores = np.round(scores, digits)
        edge = 0.5 * 10.0**-digits  # what is rounded up to the threshold is flagged too
        threshold = precision_threshold(scores, truth, aim)
        if threshold is not None:
            own, others = share * norm.sf(threshold - edge - apart), (1 - share) * norm.sf(threshold - edge + apart)
            held["precision"].append(own / (own + others) >= aim)
        threshold = recall_threshold(scores, truth, aim)
        if threshold is not None:
            held["recall"].append(norm.sf(threshold - edge - apart) >= aim)
    for values in held.values():
        assert len(values) > DRAWS / 2  # else this shows little
        assert np.mean(values) >= 0.93


def test_promises_are_not_idle() -> None:
    """With very many items the promised recall is little more than what was asked for, and so is the precision."""
    scores, truth = draw(np.random.default_rng(0), 50_000, 0.5, 1.0)
    low, high = precision_threshold(scores, truth, 0.9), recall_threshold(scores, truth, 0.9)
    assert low is not None
    assert high is not None
    assert norm.sf(low - 1) / (norm.sf(low - 1) + norm.sf(low + 1)) == pytest.approx(0.9, abs=0.015)
    assert norm.sf(high - 1) == pytest.approx(0.9, abs=0.015)


def test_a_wish_that_cannot_come_true_is_rarely_promised() -> None:
    """The scores know nothing and half of the items are of the class: a precision of 0.6 is promised by chance."""
    promised = 0
    for seed in range(DRAWS):
        rng = np.random.default_rng(seed)
        promised += precision_threshold(rng.random(500), rng.integers(0, 2, 500), 0.6) is not None
    assert 0 < promised <= 0.07 * DRAWS


def test_points_by_hand() -> None:
    """40 validation items, each class as sure as can be; on test 6 of 8 are flagged as b, 5 rightly, and one missed."""
    validation = two_classes(np.array([0.9] * 20 + [0.1] * 20), [1] * 20 + [0] * 20)
    test = two_classes(np.array([0.95] * 6 + [0.05, 0.2]), [1] * 5 + [0, 1, 0])
    section = operating_points(("a", "b"), validation, test, (0.8,))
    assert [(p["class"], p["wanted"], p["aim"]) for p in section["points"]] == [
        ("a", "precision", 0.8),
        ("a", "recall", 0.8),
        ("b", "precision", 0.8),
        ("b", "recall", 0.8),
    ]
    of_a, _, precision, recall = section["points"]
    assert of_a["threshold"] == precision["threshold"] == recall["threshold"] == 0.9
    wilson = {(k, n): list(binomtest(k, n).proportion_ci(method="wilson")) for k, n in ((5, 6), (1, 2), (20, 20))}
    assert precision["test"] == {
        "items": 8,
        "flagged_per_10000": 7500,
        "precision": 5 / 6,
        "precision_ci": wilson[5, 6],
        "recall": 5 / 6,
        "recall_ci": wilson[5, 6],
        "holds": True,
        "base_rate": 0.75,
        "idle": True,  # the interval of 5 of 6 holds 0.75
    }
    assert precision["validation"]["flagged_per_10000"] == 5000
    assert precision["validation"]["recall_ci"] == wilson[20, 20]
    assert of_a["test"] | {"holds": None} == {
        "items": 8,
        "flagged_per_10000": 1250,  # 0.95 of a for the one that is b; 0.8 is too little
        "precision": 0.0,
        "precision_ci": list(binomtest(0, 1).proportion_ci(method="wilson")),
        "recall": 0.0,
        "recall_ci": list(binomtest(0, 2).proportion_ci(method="wilson")),
        "holds": None,
        "base_rate": 0.25,
        "idle": True,
    }
    assert [point["test"]["holds"] for point in section["points"]] == [False, False, True, True]
    assert section["sentence"] == (
        "4 of 4 wanted figures can be promised with 40 validation items; 2 of them hold on the test part. "
        "4 of them flag hardly better than chance: see the notes."
    )


def test_a_wish_beyond_the_items_says_why_it_is_not_granted() -> None:
    """Ten of ten right prove no more than 0.741."""
    part = two_classes(np.array([0.9] * 10 + [0.1] * 90), [1] * 10 + [0] * 90)
    points = operating_points(("a", "b"), part, part, (0.74, 0.95))["points"]
    granted = [point["aim"] for point in points if point["class"] == "b" and point["threshold"] is not None]
    assert granted == [0.74, 0.74]
    refused = next(point for point in points if point["class"] == "b" and point["aim"] == 0.95)
    assert refused == {
        "class": "b",
        "wanted": "precision",
        "aim": 0.95,
        "threshold": None,
        "reason": "no threshold reaches it on the validation part with 95% confidence",
    }


def test_a_class_without_validation_items_is_promised_nothing() -> None:
    rng = np.random.default_rng(0)
    part = rng.dirichlet(np.ones(3), 200), rng.integers(0, 2, 200)
    points = operating_points(("a", "b", "c"), part, part, (0.05,))["points"]
    assert {point["class"] for point in points if point["threshold"] is not None} == {"a", "b"}
    assert {point["reason"] for point in points if point["class"] == "c"} == {
        "no threshold reaches it on the validation part with 95% confidence",
        "0 validation items of this class; 1 are needed, were all of them found",
    }


def test_what_cannot_be_measured_on_test_neither_holds_nor_fails() -> None:
    """Nothing in the test part is flagged as b, and nothing is b."""
    validation = two_classes(np.array([0.9] * 20 + [0.1] * 20), [1] * 20 + [0] * 20)
    section = operating_points(("a", "b"), validation, two_classes(np.full(4, 0.3), [0] * 4), (0.8,))
    of_b = [point["test"] for point in section["points"] if point["class"] == "b"]
    nothing: dict[str, Any] = dict.fromkeys(("precision", "precision_ci", "recall", "recall_ci", "holds"))
    assert of_b == [{"items": 4, "flagged_per_10000": 0, "base_rate": 0.0, "idle": False} | nothing] * 2
    assert section["sentence"].endswith("; 0 of them hold on the test part.")
