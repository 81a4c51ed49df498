"""The verdict where the truth is planted: systems of known accuracy, and data whose test items leak into training."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.baselines.logistic import LogisticRegressionBaseline
from pipelines.baselines.tfidf import TfidfFeatures
from pipelines.config import DataConfig, EvaluationConfig, SplitFile
from pipelines.data import load_splits
from pipelines.evaluate import FINE_TUNED, compare_systems
from pipelines.metrics import macro_f1
from pipelines.records import IntArray, Splits, SystemScore, column
from pipelines.verdict import FEW, FEW_VALIDATION, answer, find_rival
from tests.reports import AS_TRAINED, one_hot, splits, system
from tests.toys import ANIMALS, PLACES, write_csv

TFIDF, MANUAL, EMBEDDINGS = (f"logistic-regression-{kind}" for kind in ("tfidf", "manual", "embeddings"))
EVEN = (0.5, 0.5)
WORDS = (*ANIMALS, *PLACES[:4])
STARTS = {"yes": "Worth it.", "no": "Not worth it.", "unclear": "Unclear."}


def items(n: int, shares: tuple[float, ...]) -> IntArray:
    """Targets of about n items."""
    return np.repeat(np.arange(len(shares)), [round(n * share) for share in shares])


def guesses(targets: IntArray, accuracy: float, seed: int) -> IntArray:
    """Right with the given probability, else any other class."""
    rng = np.random.default_rng(seed)
    classes = int(targets.max()) + 1
    other = (targets + rng.integers(1, classes, len(targets))) % classes
    return np.where(rng.random(len(targets)) < accuracy, targets, other)


def scored(name: str, predicted: IntArray, validation: float = 0.5, classes: int = 2) -> SystemScore:
    return system(name, one_hot(predicted, classes), validation)


def compared(
    targets: IntArray, *systems: SystemScore, main: str = FINE_TUNED, validation: int = 200, **evaluation: Any
) -> dict[str, Any]:
    classes = int(targets.max()) + 1
    labels = [f"class {c}" for c in range(classes)]
    parts = splits(labels, targets.tolist(), validation=(np.arange(validation) % classes).tolist())
    return decided(parts, systems, main, **evaluation)


def decided(
    parts: Splits, systems: tuple[SystemScore, ...], main: str = FINE_TUNED, **evaluation: Any
) -> dict[str, Any]:
    config = EvaluationConfig(**{"bootstrap": 200} | evaluation)
    verdict: dict[str, Any] = compare_systems(parts, list(systems), main, config, 0, AS_TRAINED)["verdict"]
    return verdict


# ---- the truth is known


@pytest.mark.parametrize(
    ("n", "shares", "tuned", "rival", "min_gain", "expected"),
    [
        (60, EVEN, 1.0, 0.5, 0.02, "yes"),
        (200, EVEN, 0.97, 0.7, 0.02, "yes"),
        (500, EVEN, 0.95, 0.8, 0.02, "yes"),
        (2000, EVEN, 0.9, 0.8, 0.02, "yes"),
        (4000, EVEN, 0.9, 0.8, 0.05, "yes"),
        (2000, (0.95, 0.05), 0.98, 0.9, 0.02, "yes"),
        (1500, (0.7, 0.2, 0.1), 0.88, 0.75, 0.02, "yes"),
        (1000, (0.1,) * 10, 0.85, 0.65, 0.02, "yes"),
        (1540, (1 / 77,) * 77, 0.9, 0.7, 0.02, "yes"),
        (60, EVEN, 0.5, 1.0, 0.02, "no"),  # the baseline wins
        (500, EVEN, 0.8, 0.92, 0.02, "no"),
        (2000, (0.9, 0.1), 0.85, 0.95, 0.02, "no"),
        (1000, (0.2,) * 5, 0.6, 0.8, 0.02, "no"),
        (8000, EVEN, 0.97, 0.97, 0.02, "no"),  # equally good, with errors of their own
        (8000, (0.25,) * 4, 0.97, 0.97, 0.02, "no"),
        (8000, (0.9, 0.1), 0.99, 0.99, 0.02, "no"),
        (8000, EVEN, 0.97, 0.965, 0.02, "no"),  # a gain, but not one worth having
        (2000, EVEN, 0.9, 0.8, 0.2, "no"),
    ],
)
def test_with_enough_items_the_verdict_is_the_truth(
    n: int, shares: tuple[float, ...], tuned: float, rival: float, min_gain: float, expected: str
) -> None:
    """The gain is four standard errors or more away from the wanted one: other seeds give the same answers."""
    targets = items(n, shares)
    systems = [
        scored(name, guesses(targets, accuracy, seed), classes=len(shares))
        for name, accuracy, seed in ((TFIDF, rival, 1), (FINE_TUNED, tuned, 2))
    ]
    verdict = compared(targets, *systems, min_gain=min_gain)
    assert verdict["worth_it"] == expected, verdict["sentence"]
    assert verdict["sentence"].startswith(STARTS[expected])


@pytest.mark.parametrize(
    ("n", "tuned_errors", "rival_errors"),
    [(12, 0, 0), (30, 0, 0), (60, 0, 0), (100, 0, 0), (100, 10, 10), (150, 10, 10), (12, 0, 3)],
)
def test_a_small_test_part_settles_nothing(n: int, tuned_errors: int, rival_errors: int) -> None:
    """Even where both always agree, or one is right throughout: three items more could tell otherwise."""
    targets = items(n, EVEN)
    systems = [
        scored(TFIDF, with_errors(targets, rival_errors)),
        scored(FINE_TUNED, with_errors(targets, tuned_errors)),
    ]
    assert compared(targets, *systems)["worth_it"] == "unclear"


@pytest.mark.parametrize(("rare", "expected"), [(20, "unclear"), (74, "unclear"), (76, "no")])
def test_systems_that_never_disagree_are_equal_only_if_the_rarest_class_is_large_enough(
    rare: int, expected: str
) -> None:
    """Three of n rare items are 3 / n of one class, 3 / 2n of macro-F1: below a gain of 0.02 from 76 items on."""
    targets = np.repeat([0, 1], [1000, rare])
    assert compared(targets, scored(TFIDF, targets), scored(FINE_TUNED, targets))["worth_it"] == expected


def test_systems_that_never_disagree_are_equal_from_the_size_on_that_the_rule_of_three_asks_for() -> None:
    """3 / 152 is below a gain of 0.02, 3 / 150 is not."""
    verdicts = {}
    for n in (148, 150, 152):
        targets = items(n, EVEN)
        same = with_errors(targets, 20)
        verdicts[n] = compared(targets, scored(TFIDF, same), scored(FINE_TUNED, same))["worth_it"]
    assert verdicts == {148: "unclear", 150: "unclear", 152: "no"}


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 30, 100])
def test_of_two_equal_systems_on_few_items_one_is_rarely_called_better(n: int) -> None:
    targets = items(n, EVEN)
    said = Counter(
        compared(
            targets,
            scored(TFIDF, guesses(targets, 0.8, seed)),
            scored(FINE_TUNED, guesses(targets, 0.8, seed + 100)),
            bootstrap=100,
        )["worth_it"]
        for seed in range(40)
    )
    assert said["yes"] <= 4
    assert said["unclear"] >= 30


@pytest.mark.slow
def test_a_gain_of_exactly_what_is_wanted_is_unclear_about_19_times_of_20() -> None:
    """On 120 test parts; with a true chance of 5% more than 14 wrong answers happen once in 1,000."""
    targets = items(400, EVEN)
    said = Counter(
        compared(
            targets,
            scored(TFIDF, guesses(targets, 0.75, seed)),
            scored(FINE_TUNED, guesses(targets, 0.85, seed + 1000)),
            min_gain=0.1,
            bootstrap=300,
        )["worth_it"]
        for seed in range(120)
    )
    assert 1 <= said["yes"] + said["no"] <= 14
    assert max(said["yes"], said["no"]) <= 10


# ---- leaks


def test_learning_by_heart_is_worth_nothing_with_our_splits_and_would_be_with_random_ones(tmp_path: Path) -> None:
    """Three copies of each of 400 orders of the same words, under random labels: there is nothing to learn."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.permutation(WORDS)) for _ in range(400)]
    rows = [
        {"text": text, "label": label}
        for text, label in zip(texts, rng.choice(["calm", "harsh"], 400), strict=True)
        for _ in range(3)
    ]
    file = SplitFile(path=write_csv(tmp_path / "leaks.csv", rows))
    ours = load_splits(DataConfig(train=file, text="text", label="label", test=0.3), 0)
    assert ours.counts["exact_duplicates"] == 800
    assert verdict_on_learning_by_heart(ours)["worth_it"] != "yes"

    everything = Dataset.from_list([row | {"id": str(n), "group": n, "line": n} for n, row in enumerate(rows)])
    order = rng.permutation(1200)
    naive = replace(
        ours,
        train=everything.select(order[:756]),
        validation=everything.select(order[756:840]),
        test=everything.select(order[840:]),
    )
    assert len(naive.test) == len(ours.test)
    assert verdict_on_learning_by_heart(naive)["worth_it"] == "yes"


def verdict_on_learning_by_heart(parts: Splits) -> dict[str, Any]:
    """A table of the training texts as fine-tuned system, against a real regression."""
    texts, targets = column(parts.train, "text"), parts.targets(parts.train)
    known = dict(zip(texts, targets.tolist(), strict=True))
    usual = int(np.bincount(targets).argmax())
    regression = LogisticRegressionBaseline(TfidfFeatures())
    regression.fit(texts, targets, np.array(column(parts.train, "group")), 2, 0)
    asked = column(parts.test, "text")
    by_heart = scored(FINE_TUNED, np.array([known.get(text, usual) for text in asked]))
    return decided(parts, (system(TFIDF, regression.predict_probabilities(asked)), by_heart))


# ---- the rival

TARGETS = items(200, EVEN)


def with_errors(targets: IntArray, count: int) -> IntArray:
    """The targets of two classes with errors spread evenly over both."""
    predicted = targets.copy()
    predicted[np.linspace(0, len(targets) - 1, count, dtype=int)] ^= 1
    return predicted


def with_error_count(name: str, count: int, validation: float = 0.5) -> SystemScore:
    return scored(name, with_errors(TARGETS, count), validation)


TUNED = with_error_count(FINE_TUNED, 0, 0.9)


def test_the_rival_is_chosen_on_validation_and_not_on_test() -> None:
    good_on_test, good_on_validation = with_error_count(MANUAL, 0, 0.4), with_error_count(TFIDF, 80, 0.6)
    verdict = compared(TARGETS, good_on_test, good_on_validation, TUNED)
    assert (verdict["rival"], verdict["worth_it"]) == (TFIDF, "yes")


@pytest.mark.parametrize("rival", [TFIDF, MANUAL, EMBEDDINGS])
def test_every_kind_of_regression_can_be_the_rival(rival: str) -> None:
    ladder = [with_error_count(name, 50, 0.6 if name == rival else 0.5) for name in (MANUAL, TFIDF, EMBEDDINGS)]
    assert compared(TARGETS, *ladder, TUNED)["rival"] == rival


@pytest.mark.parametrize("name", ["majority", "fine-tuned-client", "logistic-regression-runs/fine-tuned"])
def test_what_is_no_regression_is_never_the_rival(name: str) -> None:
    strong, weak = with_error_count(name, 0, 0.99), with_error_count(TFIDF, 50, 0.1)
    verdict = compared(TARGETS, strong, weak, TUNED)
    assert (verdict["rival"], verdict["worth_it"]) == (TFIDF, "yes")
    assert not any(name in warning for warning in verdict["warnings"])


@pytest.mark.parametrize(("main", "rival"), [("a", f"a/{TFIDF}"), ("c", f"b/{TFIDF}-client")])
def test_the_regression_of_another_run_is_the_rival_only_where_the_own_run_has_none(main: str, rival: str) -> None:
    """Validation parts of two runs are not the same, nor are scores on them."""
    systems = [with_error_count(f"a/{TFIDF}", 0, 0.5), with_error_count(f"b/{TFIDF}-client", 0, 0.6)]
    found = find_rival(systems, with_error_count(f"{main}/{FINE_TUNED}", 0))
    assert found is not None
    assert found.name == rival


@pytest.mark.parametrize("others", [[], [with_error_count("majority", 100)]])
def test_no_regression_no_verdict(others: list[SystemScore]) -> None:
    verdict = compared(TARGETS, *others, TUNED)
    assert (verdict["worth_it"], verdict["rival"], verdict["warnings"]) == ("unclear", None, [])
    assert "No logistic regression" in verdict["sentence"]


def test_the_verdict_is_about_the_main_system() -> None:
    systems = [with_error_count(FINE_TUNED, 100), with_error_count(TFIDF, 50), with_error_count("fine-tuned-client", 0)]
    assert compared(TARGETS, *systems)["worth_it"] == "no"
    assert compared(TARGETS, *systems, main="fine-tuned-client")["worth_it"] == "yes"


# ---- what it says


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.021, 0.1, "yes"),
        (0.02, 0.1, "unclear"),
        (-0.1, 0.02, "unclear"),
        (-0.1, 0.019, "no"),
    ],
)
def test_an_interval_that_touches_the_wanted_gain_is_unclear(low: float, high: float, expected: str) -> None:
    assert answer([low, high], 0.02) == expected


def test_the_sentence_gives_items_difference_interval_and_wanted_gain_in_points() -> None:
    """All 100 of one class right, 30 of the other wrong: F1 of 200 / 230 and of 140 / 170."""
    predicted = TARGETS.copy()
    predicted[100:130] = 0
    gain = 1 - (200 / 230 + 140 / 170) / 2
    assert macro_f1(TARGETS, predicted) == pytest.approx(1 - gain)
    sentence = compared(TARGETS, scored(TFIDF, predicted), TUNED, min_gain=0.05)["sentence"]
    start, _, rest = sentence.partition(" (95% interval ")
    assert start == (
        f"Worth it. On 200 test items fine-tuning changes macro-F1 by +{100 * gain:.1f} points against {TFIDF}"
    )
    interval, _, end = rest.partition(")")
    low, high = (float(bound) for bound in interval.split(" to "))
    assert 5 < low < 100 * gain < high
    assert end == ": all of the interval is above the 5.0 points that would make it worth its cost."


def test_another_answer_against_another_regression_is_warned_of() -> None:
    rival, stronger = with_error_count(TFIDF, 60, 0.6), with_error_count(MANUAL, 0, 0.5)
    verdict = compared(TARGETS, stronger, rival, TUNED)
    assert (verdict["rival"], verdict["worth_it"]) == (TFIDF, "yes")
    assert verdict["warnings"] == [
        f"Against {MANUAL}, which validation did not choose as the rival, the change is +0.0 points (95% interval -1.5 "
        "to +1.5): the answer would be “no”."
    ]


def test_the_same_answer_against_another_regression_is_not_worth_a_word() -> None:
    verdict = compared(TARGETS, with_error_count(MANUAL, 50, 0.5), with_error_count(TFIDF, 60, 0.6), TUNED)
    assert verdict["warnings"] == []


def test_a_majority_that_would_change_the_answer_is_not_worth_a_word() -> None:
    """Fine-tuned system and rival alike; against the majority it would be worth it."""
    verdict = compared(TARGETS, scored("majority", np.zeros(200, dtype=int)), with_error_count(TFIDF, 0), TUNED)
    assert (verdict["worth_it"], verdict["warnings"]) == ("no", [])


@pytest.mark.parametrize("n", [FEW - 1, FEW])
def test_classes_with_few_test_items_are_warned_of(n: int) -> None:
    targets = np.repeat([0, 1], [100, n])
    warnings = compared(targets, scored(TFIDF, targets), scored(FINE_TUNED, targets))["warnings"]
    assert (warnings == []) == (n == FEW)
    assert all(warning.startswith("Fewer than 30 test items of: class 1.") for warning in warnings)


def test_a_class_without_test_items_is_not_among_those_with_few() -> None:
    """It does not enter macro-F1."""
    parts = splits(("a", "b", "unseen"), [0] * FEW + [1] * FEW, validation=[0] * FEW_VALIDATION)
    predicted = parts.targets(parts.test)
    verdict = decided(parts, (scored(TFIDF, predicted, classes=3), scored(FINE_TUNED, predicted, classes=3)))
    assert verdict["warnings"] == []


def test_of_many_classes_with_few_test_items_five_are_named() -> None:
    targets = items(70, (1 / 7,) * 7)
    same = [scored(name, targets, classes=7) for name in (TFIDF, FINE_TUNED)]
    warning = compared(targets, *same)["warnings"][0]
    assert "class 0, class 1, class 2, class 3, class 4 and 2 more. " in warning


@pytest.mark.parametrize("n", [FEW_VALIDATION - 1, FEW_VALIDATION])
def test_few_validation_items_are_warned_of(n: int) -> None:
    warnings = compared(TARGETS, with_error_count(TFIDF, 50), TUNED, validation=n)["warnings"]
    few = ["The rival and the epoch were chosen on only 99 validation items."]
    assert warnings == (few if n == FEW_VALIDATION - 1 else [])
