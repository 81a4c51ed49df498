"""The certificate of a cascade: bounds against exact ones, certificates against known populations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from pipelines.bulk import certificate
from pipelines.bulk.certificate import COVERAGES, Certificate, certify, require_enough
from pipelines.errors import ConfigError
from pipelines.metrics import macro_f1
from pipelines.records import FloatArray, IntArray
from tests.runs import TFIDF

NAME = TFIDF
EPS = 0.002

Items = tuple[FloatArray, IntArray, IntArray, IntArray]  # confidence, class by regression, class by model, class; (N,)
Draw = Callable[[np.random.Generator, int], Items]


def probabilities(confidence: FloatArray, predicted: IntArray, classes: int) -> FloatArray:
    """(N, C) with the given maximum at the given place."""
    rest = (1 - confidence) / (classes - 1)
    found = np.tile(rest[:, None], (1, classes))
    found[np.arange(len(predicted)), predicted] = confidence
    return found


def certified(items: Items, classes: int = 2, max_loss: float = EPS, groups: IntArray | None = None) -> Certificate:
    confidence, quick, slow, targets = items
    model = probabilities(np.full(len(slow), 0.9), slow, classes)
    groups = np.arange(len(targets)) if groups is None else groups
    return certify(probabilities(confidence, quick, classes), model, targets, groups, max_loss, NAME)


def bounds(items: Items, classes: int = 2, groups: IntArray | None = None) -> FloatArray:
    """Upper bound of every threshold's loss."""
    confidence, quick, slow, targets = items
    step = (confidence[:, None] < certificate._thresholds(confidence)).sum(axis=1)
    groups = np.arange(len(targets)) if groups is None else groups
    paired = certificate._Paired(targets, slow, quick, step, groups, classes)
    return paired.upper_bounds(len(COVERAGES), 0.975, 0)


def macro(targets: IntArray, predicted: IntArray, classes: int) -> float:
    """Macro-F1 as in `metrics`, for large populations."""
    right, own, named = (
        np.bincount(values, minlength=classes) for values in (targets[targets == predicted], targets, predicted)
    )
    return float(np.mean(2 * right / (own + named)))


def differing(
    shares: Sequence[float],
    right: Sequence[float],
    differ: Callable[[FloatArray], Any] | float,
    harm: float,
    only: int | None = None,
) -> Draw:
    """Items on which regression and model differ at a rate that depends on the confidence.

    Args:
        shares, right: of every class, and how often the model is right about it.
        differ: the rate, or confidence (N,) -> rate.
        harm: how often it is the model that is right where they differ; else it is the regression.
        only: the one class in which they differ.
    """

    def draw(rng: np.random.Generator, count: int) -> Items:
        C = len(shares)
        targets = rng.choice(C, count, p=shares)
        confidence = 0.51 + 0.48 * rng.random(count)
        slow = np.where(rng.random(count) < np.array(right)[targets], targets, (targets + 1) % C)
        wrong = (targets + rng.integers(1, C, count)) % C
        rate = differ(confidence) if callable(differ) else differ
        apart, harmed = rng.random(count) < rate, rng.random(count) < harm
        if only is not None:
            apart &= targets == only
        slow = np.where(apart, np.where(harmed, targets, wrong), slow)
        quick = np.where(apart, np.where(harmed, wrong, targets), slow)
        return confidence, quick, slow, targets

    return draw


def among_the_surest(share: float, rate: float) -> Callable[[FloatArray], Any]:
    return lambda confidence: np.where(confidence >= 0.51 + 0.48 * (1 - share), rate, 0.0)


RARE = differing((0.5, 0.5), (0.95, 0.95), among_the_surest(0.01, 0.24), harm=1.0)
RARE_CLASS = differing((0.78, 0.17, 0.05), (0.95, 0.85, 0.6), among_the_surest(0.02, 0.65), harm=1.0, only=2)
EVEN = differing((0.76, 0.24), (0.9, 0.7), 0.1, harm=0.515)
GROWING = differing((0.5, 0.5), (0.9, 0.9), lambda confidence: 0.06 * (0.99 - confidence), harm=0.8)
BETTER = differing((0.5, 0.5), (0.9, 0.9), 0.1, harm=0.3)


def loss(items: Items, threshold: float) -> float:
    """True loss in a large population."""
    confidence, quick, slow, targets = items
    return _f1(targets, slow) - _f1(targets, np.where(confidence >= threshold, quick, slow))


def _f1(targets: IntArray, predicted: IntArray) -> float:
    """As `macro_f1`, in a tenth of the time."""
    C = int(targets.max()) + 1
    right, own, named = (np.bincount(v, minlength=C) for v in (targets[targets == predicted], targets, predicted))
    return float(np.mean(2 * right / (own + named)))


def error_rate(draw: Draw, repeats: int, classes: int = 2, items: int = 2000) -> tuple[float, float]:
    """Shares of calibrations that certify a certificate, and that certify one whose true loss is above the bound."""
    rng = np.random.default_rng(0)
    population = draw(rng, 300_000)
    given = wrong = 0
    for _ in range(repeats):
        try:
            found = certified(draw(rng, items), classes)
        except ConfigError:
            continue
        given += 1
        wrong += loss(population, found.threshold) > EPS
    return given / repeats, wrong / repeats


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "RESAMPLES", 400)
    monkeypatch.setattr(certificate, "choose_temperature", lambda *_: (1.0, ""))  # calibration's tests have it


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize(
    ("draw", "classes"),
    [(RARE, 2), (RARE_CLASS, 3), (EVEN, 2), (GROWING, 2)],
    ids=["rare", "rare class", "even", "growing"],
)
def test_few_certificates_are_wrong(draw: Draw, classes: int) -> None:
    """5% are allowed; 7 of 60 and more would come by chance once in 30."""
    assert error_rate(draw, 60, classes)[1] <= 6 / 60


@pytest.mark.usefixtures("quickly")
def test_without_the_worst_case_many_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """One item in 1,500 is harmed, just above the bound, and is often not among 2,000: zeros certify nothing."""
    monkeypatch.setattr(certificate, "_worst_case", lambda *_: (0, 1, 1e-9))
    assert error_rate(RARE_CLASS, 40, 3)[1] > 0.2


@pytest.mark.usefixtures("quickly")
def test_a_good_regression_is_certified() -> None:
    given, wrong = error_rate(BETTER, 10)
    assert given == 1.0
    assert wrong == 0.0
    found = certified(BETTER(np.random.default_rng(1), 2000))
    assert found.coverage == 1.0


@pytest.mark.parametrize("harmed", [0, 1, 3, 12])
def test_of_counts_the_bound_is_the_exact_one(monkeypatch: pytest.MonkeyPatch, harmed: int) -> None:
    """Balanced classes, a model that is always right: an item lost costs 1 / N of macro-F1."""
    monkeypatch.setattr(certificate, "RESAMPLES", 20_000)
    N = 4000
    targets = np.arange(N) % 2
    confidence = np.linspace(0.99, 0.51, N)
    quick = targets.copy()
    quick[:harmed] = 1 - quick[:harmed]
    exact = chi2.ppf(0.975, 2 * harmed + 2) / 2 / N
    np.testing.assert_allclose(bounds((confidence, quick, targets, targets)), exact, rtol=0.04)


def test_agreement_costs_nothing_however_wrong_both_are() -> None:
    """The same bound, whether the items on which both agree are right or not: macro-F1 0.9 or so moves it little."""
    rng = np.random.default_rng(0)
    targets = np.arange(4000) % 2
    confidence = rng.random(4000) / 2 + 0.5
    wrong = np.where(rng.random(4000) < 0.1, 1 - targets, targets)
    both = bounds((confidence, wrong, wrong, targets)), bounds((confidence, targets, targets, targets))
    assert both[0].max() < 1.15 * both[1].min()


def test_copies_are_no_evidence() -> None:
    """Every item three times, in one group, gives the bound of the single items."""
    rng = np.random.default_rng(3)
    single = EVEN(rng, 2000)
    confidence, quick, slow, targets = (np.repeat(values, 3) for values in single)
    copied = bounds((confidence, quick, slow, targets), groups=np.repeat(np.arange(2000), 3))
    np.testing.assert_allclose(copied, bounds(single), rtol=0.04, atol=2e-4)
    assert bounds((confidence, quick, slow, targets))[-1] < copied[-1] - 0.001


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=20))
@settings(max_examples=30, deadline=None)
def test_no_other_single_item_costs_more_than_the_worst_case(pairs: list[tuple[int, int]]) -> None:
    targets, slow = (np.array(values) for values in zip(*pairs, strict=True))
    if len(np.unique(targets)) < 2:
        return

    def cost(lost: int, instead: int) -> float:
        truth = np.append(targets, lost)
        return macro_f1(truth, np.append(slow, lost)) - macro_f1(truth, np.append(slow, instead))

    lost, instead, size = certificate._worst_case(targets, slow, np.arange(len(targets)), 3)
    assert size == 1.0
    every = {(c, d): cost(c, d) for c in np.unique(targets) for d in range(3) if c != d}
    assert every[lost, instead] == pytest.approx(max(every.values()))


@pytest.mark.parametrize(
    ("passed", "last"),
    [([1, 1, 0, 1, 1, 1], 1), ([0, 1, 1, 0, 1, 1], None), ([0, 0, 0, 1, 1, 0], 4), ([1] * 6, 5), ([0] * 6, None)],
)
def test_a_chain_ends_at_its_first_failure(
    monkeypatch: pytest.MonkeyPatch, passed: list[int], last: int | None
) -> None:
    monkeypatch.setattr(certificate, "COVERAGES", (0.1, 0.2, 0.3, 0.5, 0.8, 1.0))
    monkeypatch.setattr(certificate, "STARTS", (0.1, 0.5) if last != 1 else (0.1,))
    assert certificate._last_passed(np.array(passed, dtype=bool)) == last


def test_thresholds_answer_the_wanted_shares_and_ties_together() -> None:
    confidence = np.linspace(0.5, 0.999, 2000)
    shares = [np.mean(confidence >= threshold) for threshold in certificate._thresholds(confidence)]
    np.testing.assert_allclose(shares, COVERAGES, atol=1e-9)
    tied = np.repeat([0.9, 0.6], 1000)
    assert set(certificate._thresholds(tied)) == {0.9, 0.6}


# ---- certificates


def test_a_certificate_says_what_it_was_measured_on() -> None:
    items = GROWING(np.random.default_rng(0), 4000)
    found = certified(items)
    assert found.coverage == (items[0] >= found.threshold).mean()
    assert round(found.coverage, 3) in COVERAGES
    assert found.estimated_loss == pytest.approx(loss(items, found.threshold))
    assert found.estimated_loss < found.loss_upper <= EPS
    assert (found.baseline, found.items, found.max_loss) == (NAME, 4000, EPS)
    assert "arXiv 2110.01052" in found.method
    assert "1% and 50%" in found.method
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert f"answers {found.coverage:.0%} of the items" in found.sentence
    assert certified(items) == found


def test_a_tighter_bound_answers_less() -> None:
    items = GROWING(np.random.default_rng(0), 4000)
    assert certified(items, max_loss=0.0015).coverage < certified(items, max_loss=0.01).coverage


def test_the_temperature_does_not_choose_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    items = GROWING(np.random.default_rng(0), 4000)
    found = certified(items)
    monkeypatch.setattr(certificate, "choose_temperature", lambda *_: (3.0, ""))
    changed = certified(items)
    assert (changed.threshold, changed.temperature) == (found.threshold, 3.0)
    assert found.temperature != 3.0


def test_too_few_items_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least 2,000 labelled items .* found 1,999"):
        certified(GROWING(np.random.default_rng(0), 1999))
    require_enough(2000)


def test_a_refusal_says_what_would_help() -> None:
    """Two that never differ: 2,000 items leave 3.69 / 2,000 = 0.18 points open."""
    targets = np.arange(2000) % 2
    items = np.linspace(0.99, 0.51, 2000), targets, targets, targets
    assert certified(items).coverage == 1.0
    with pytest.raises(ConfigError) as refused:
        certified(items, max_loss=0.001)
    assert "to keep the loss within 0.10 points of macro-F1" in str(refused.value)
    assert "is 0.18 where it answers 1% of them and 0.18 where it answers 50% of them" in str(refused.value)
    assert re.search(r"more labelled items, about 3,[678]00 of this kind, or", str(refused.value))
    poor = differing((0.5, 0.5), (0.95, 0.95), 0.4, harm=0.9)
    with pytest.raises(ConfigError, match=r"give more labelled items, or classify without"):
        certified(poor(np.random.default_rng(0), 2000))
