"""The table: what is best, with its spread and differences; what was dropped never is."""

from __future__ import annotations

import statistics

import pytest

from pipelines.errors import TrainingError
from pipelines.intervals import student_interval
from pipelines.sweep.selection import CAVEAT, TIE, sentence, table
from tests.pipelines.sweep.made import run, runs, setting

A, B, C = setting(0.001), setting(0.002), setting(0.003)


def test_the_highest_mean_is_best_and_has_its_spread() -> None:
    found = runs(run(A, 0, 0.9), run(B, 0, 0.5, 0.7), run(A, 1, 0.5), run(B, 1, 0.8, 0.1))
    best, other = table([A, B], found, 2, None)
    assert (best["setting"], best["rank"], other["rank"]) == (B.name, 1, 2)
    assert (best["mean"], best["low"], best["high"]) == (pytest.approx(0.75), 0.7, 0.8)
    assert best["deviation"] == pytest.approx(statistics.stdev([0.7, 0.8]))
    assert [each["seed"] for each in best["runs"]] == [0, 1]


def test_differences_are_paired_by_seed() -> None:
    """Against the config's own setting if it is there, else the first that is complete."""
    found = runs(run(A, 0, 0.5), run(A, 1, 0.7), run(B, 0, 0.6), run(B, 1, 0.9))
    rows = {row["setting"]: row for row in table([A, B], found, 2, A)}
    assert rows[A.name]["reference"]
    assert rows[A.name]["to_reference"] is None
    difference = rows[B.name]["to_reference"]
    assert difference["mean"] == pytest.approx(0.15)
    assert difference["ci"] == pytest.approx(student_interval([0.1, 0.2]))
    assert difference["seeds"] == 2
    assert table([A, B], found, 2, B)[0]["reference"]
    assert {row["setting"]: row["reference"] for row in table([A, B], found, 2, None)} == {A.name: True, B.name: False}


def test_one_seed_has_neither_deviation_nor_interval() -> None:
    best, other = table([A, B], runs(run(A, 0, 0.5), run(B, 0, 0.6)), 1, A)
    assert (best["deviation"], other["deviation"]) == (None, None)
    assert best["to_reference"]["ci"] is None


def test_of_equals_the_faster_is_best_and_the_rest_stays_in_order() -> None:
    slow, close, fast = (
        run(A, 0, 0.8, train_seconds=9.0),
        run(B, 0, 0.8 - TIE / 2, train_seconds=5.0),
        run(C, 0, 0.8 - 2 * TIE),
    )
    rows = table([A, B, C], runs(slow, close, fast), 1, None)
    assert [row["setting"] for row in rows] == [B.name, A.name, C.name]
    assert [row["rank"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("state", ["pruned", "failed"])
def test_a_setting_that_lacks_a_seed_is_last_and_never_best(state: str) -> None:
    best = run(A, 0, 0.99), run(A, 1, 0.99, state=state, epochs=3)  # type: ignore[arg-type]
    rows = table([A, B, C], runs(best, run(B, 0, 0.3), run(B, 1, 0.3), run(C, 0, 0.1, state="pruned")), 2, A)
    assert [row["setting"] for row in rows] == [B.name, A.name, C.name]
    assert [row["rank"] for row in rows] == [1, None, None]
    assert [row["state"] for row in rows] == ["complete", state, "pruned"]
    assert rows[0]["reference"]  # the config's own setting is not complete
    assert rows[1]["mean"] == 0.99
    assert rows[1]["to_reference"]["seeds"] == 1
    assert rows[2]["mean"] is None
    assert rows[2]["to_reference"] is None
    assert "Of 3 settings; 2 of them were not trained to their end, " + B.name in sentence(rows, 2)


def test_where_all_failed_the_reason_is_said() -> None:
    reason = "the loss is not a number at step 3"
    with pytest.raises(TrainingError, match=f"no setting was trained to its end; {reason}"):
        table([A], runs(run(A, 0, state="failed", epochs=2, reason=reason)), 1, None)


def test_the_sentence_names_the_part_that_chose() -> None:
    rows = table([A], runs(run(A, 0, 0.5), run(A, 1, 0.75)), 2, None)
    told = sentence(rows, 2)
    assert told == (
        "Of 1 setting, training.learning_rate=0.001 is best: macro-F1 0.625 on the validation part "
        "(over 2 seeds 0.500 to 0.750)."
    )
    assert "optimistic" in CAVEAT
    assert "The test part was not scored" in CAVEAT
