"""Which trainings are hopeless, and what Optuna proposes: the same after a resume."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.sweep.plan import Factor, Plan
from pipelines.sweep.runs import Run
from pipelines.sweep.study import MARGIN, STARTUP, Trial, decided_by, hopeless, suggested
from tests.pipelines.sweep.made import run, runs, setting

OTHERS = [setting(0.001 * (number + 1)) for number in range(STARTUP)]
COMPLETE = [run(own, 0, 0.4, 0.6, 0.7, 0.7 + 0.01 * number) for number, own in enumerate(OTHERS)]
OWN = setting(0.5)
RANGES = [Factor("training.learning_rate", (1e-5, 1e-2), is_range=True), Factor("training.epochs", (1, 9), True)]
WORDS = [Factor("training.learning_rate", (1e-3, "auto")), Factor("backbone.freeze", ("none", 2))]


def test_far_below_the_median_after_half_of_the_epochs_is_hopeless() -> None:
    found = runs(COMPLETE)
    assert hopeless(found, OWN.name, [0.5, 0.6 - MARGIN - 0.01], 4)
    assert not hopeless(found, OWN.name, [0.5, 0.6 - MARGIN + 0.01], 4)
    assert not hopeless(found, OWN.name, [0.6, 0.1], 4)  # its best score counts


def test_trainings_of_other_lengths_compare_by_what_they_had_then() -> None:
    """After 2 of 3 epochs, 67%, those of 4 epochs had the scores of 50%."""
    assert hopeless(runs(COMPLETE), OWN.name, [0.1, 0.6 - MARGIN - 0.01], 3)
    assert not hopeless(runs(COMPLETE), OWN.name, [0.1, 0.6 - MARGIN + 0.01], 3)


@pytest.mark.parametrize(
    ("complete", "name", "scores"),
    [
        (COMPLETE[:-1], OWN.name, [0.1, 0.1]),  # too few to compare with
        (COMPLETE, OWN.name, [0.1]),  # too early
        (COMPLETE, OWN.name, [0.1, 0.1, 0.1, 0.1]),  # nothing is left to save
        (COMPLETE, OTHERS[-1].name, [0.1, 0.1]),  # the leader's next seed
        ([*COMPLETE[:-1], run(OWN, 1, 0.6, state="pruned", epochs=4)], OWN.name, [0.1, 0.1]),  # a pruned one is none
    ],
)
def test_no_training_is_stopped_before_its_time(complete: list[Run], name: str, scores: list[float]) -> None:
    assert not hopeless(runs(complete), name, scores, 4)


def test_of_trainings_too_short_to_have_a_score_then_none_is_compared_with() -> None:
    """Complete ones of one epoch had nothing at 50%."""
    short = [run(own, 0, 0.9) for own in OTHERS]
    assert not hopeless(runs(short), OWN.name, [0.1, 0.1], 4)


def test_proposals_are_within_the_range_and_follow_from_what_was_tried() -> None:
    tried: list[Trial] = []
    for number in range(14):  # from the eleventh on they are no longer drawn at random
        changes = suggested(RANGES, tried, 1, seed=3)
        assert changes == suggested(RANGES, tried, 1, seed=3)
        rate, epochs = changes.values()
        assert 1e-5 <= rate <= 1e-2
        assert float(f"{rate:.3g}") == rate
        assert isinstance(epochs, int)
        assert 1 <= epochs <= 9
        own = setting(rate)
        ended = [run(own, 0, 0.5, 0.3, state="pruned"), run(own, 0, state="failed", epochs=2), run(own, 0, 0.1, 0.7)]
        tried.append(Trial(changes, [ended[number % 3]]))
    assert len({tuple(trial.changes.values()) for trial in tried}) > 7
    assert suggested(RANGES, tried, 1, seed=4) != suggested(RANGES, tried, 1, seed=3)


def test_proposals_learn_from_the_means() -> None:
    """Of many trials only high rates were good: the next ones are higher than what chance would give."""
    factor = [Factor("training.learning_rate", (1e-5, 1e-1), is_range=True)]
    rates = [10 ** (-5 + number / 5) for number in range(20)]
    tried = []
    for rate in rates:
        own, score = setting(rate), 0.9 if rate > 1e-2 else 0.1
        tried.append(Trial(own.changes, [run(own, 0, score), run(own, 1, score)]))
    found = [suggested(factor, tried, 2, seed)["training.learning_rate"] for seed in range(5)]
    assert min(found) > 1e-3  # half of all at random would not be


def test_words_and_numbers_are_proposed_as_they_are_given() -> None:
    found: list[dict[str, Any]] = []
    for _ in range(12):
        found.append(suggested(WORDS, [Trial(changes, [run(setting(), 0, 0.5)]) for changes in found], 1, seed=0))
    assert {changes["training.learning_rate"] for changes in found} == {1e-3, "auto"}
    assert {changes["backbone.freeze"] for changes in found} == {"none", 2}


def test_the_version_counts_where_optuna_has_a_say() -> None:
    assert decided_by(Plan(prune=False)) == {}
    assert set(decided_by(Plan())) == set(decided_by(Plan(method="optuna", prune=False))) == {"optuna"}


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    suggested(WORDS, [], 1, seed=0)
    hopeless(runs(COMPLETE), OWN.name, [0.1, 0.1], 4)
    assert capfd.readouterr() == ("", "")
