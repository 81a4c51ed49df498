"""What is proposed, in which order, and that it is predicted to take less."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import RunConfig, parse_config
from pipelines.estimate.candidates import Candidate, asked_for, candidates, predicted


def config_of(**sections: Any) -> RunConfig:
    raw: dict[str, Any] = {"task": "text-classification", "data": {"train": "a.csv", "text": "text", "label": "label"}}
    return parse_config({**raw, **sections})


def figures(frozen: int | None = 2, **changes: Any) -> dict[str, Any]:
    seconds = dict.fromkeys(("setup", "validation", "checkpoints", "learning curve", "classification", "report"), 1.0)
    return {
        "hidden_layers": 6,
        "frozen_layers": frozen,
        "tokens": {"p50": 40, "p95": 120, "p100": 256},
        "peak_memory_mib": {"value": 2000.0, "high": 2200.0},
        "memory_before_mib": 700.0,
        "seconds": seconds | {"hidden states": 30.0, "steps": 100.0, "baselines": 20.0},
    } | changes


def test_the_order_is_accumulation_then_freezing_then_length_and_fewer_epochs_last() -> None:
    config = config_of()
    found = candidates(config, figures(), memory=True, time=True)
    changes = [candidate.changes(config) for candidate in found]
    assert changes[:5] == [
        ("training.accumulation=2",), ("training.accumulation=4",), ("training.accumulation=8",),
        ("training.accumulation=16",), ("backbone.freeze=3",),
    ]  # fmt: skip
    alone = [change[0] for change in changes if len(change) == 1]
    assert alone.index("backbone.freeze=3") < alone.index("data.max_length=120") < alone.index("backbone.freeze=all")
    assert alone.index("backbone.freeze=all") < alone.index("training.epochs=2") < alone.index("training.epochs=1")
    epochs = [candidate.epochs for candidate in found]
    assert epochs == sorted(epochs, reverse=True)
    assert len(set(found)) == len(found)
    assert asked_for(config) not in found


def test_what_cannot_help_is_left_alone() -> None:
    config = config_of()
    slower = candidates(config, figures(), memory=False, time=True)
    assert {candidate.accumulation for candidate in slower} == {1}
    smaller = candidates(config, figures(), memory=True, time=False)
    assert {candidate.epochs for candidate in smaller} == {3}


@pytest.mark.parametrize(
    ("sections", "frozen", "freezes"),
    [
        ({"backbone": {"freeze": "none"}}, None, {"none", 0, 1, 2, 3, 4, 5, "all"}),
        ({"backbone": {"freeze": 5}}, 5, {5, "all"}),
        ({"backbone": {"freeze": "all"}}, 6, {"all"}),
        ({"backbone": {"freeze": 4}, "adapter": {"type": "lora"}}, 4, {4, 5}),
        ({"backbone": {"freeze": "none"}, "adapter": {"type": "lora"}}, 0, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_freezing_goes_as_deep_as_it_can(sections: dict[str, Any], frozen: int | None, freezes: set[Any]) -> None:
    found = candidates(config_of(**sections), figures(frozen), memory=True, time=False)
    assert {candidate.freeze for candidate in found} == freezes


def test_gradual_unfreezing_keeps_layers_to_open_and_epochs_for_them() -> None:
    """With 6 hidden layers, one opened after each epoch: N epochs open N - 1 of them."""
    config = config_of(backbone={"freeze": 2}, training={"unfreeze": "epoch", "epochs": 5})
    found = candidates(config, figures(), memory=False, time=True)
    assert {(candidate.freeze, candidate.epochs) for candidate in found} == {
        (2, 5), (3, 5), (3, 4), (4, 5), (4, 4), (4, 3), (5, 5), (5, 4), (5, 3), (5, 2),
    }  # fmt: skip


def test_a_batch_is_divided_down_to_single_items() -> None:
    config = config_of(training={"batch_size": 12, "accumulation": 2})
    found = candidates(config, figures(), memory=True, time=False)
    assert {candidate.accumulation for candidate in found} == {2, 4, 8}


def test_texts_of_one_length_are_not_cut() -> None:
    config = config_of()
    found = candidates(config, figures(tokens={"p50": 64, "p95": 64, "p100": 64}), memory=True, time=True)
    assert {candidate.max_length for candidate in found} == {256}


def test_changes_are_what_the_config_then_holds() -> None:
    config = config_of(training={"batch_size": 16, "learning_rate": 0.01})
    changed = Candidate("all", 4, 99, 1).applied(config)
    assert (changed.backbone.freeze, changed.training.accumulation) == ("all", 4)
    assert (changed.data.max_length, changed.training.epochs) == (99, 1)
    assert (changed.training.batch_size, changed.training.learning_rate) == (16, 0.01)
    assert changed.data.train == config.data.train
    assert asked_for(changed) == Candidate("all", 4, 99, 1)
    assert Candidate("all", 4, 99, 1).changes(changed) == ()


def test_the_config_itself_is_predicted_to_take_what_it_was_estimated_to() -> None:
    config = config_of()
    memory, seconds = predicted(config, asked_for(config), figures())
    assert (memory, seconds) == pytest.approx((2000.0, sum(figures()["seconds"].values())))


@pytest.mark.parametrize(
    ("candidate", "less_memory", "less_time"),
    [
        (Candidate(2, 4, 256, 3), True, False),
        (Candidate(3, 1, 256, 3), True, True),
        (Candidate("all", 1, 256, 3), True, True),
        (Candidate(2, 1, 120, 3), True, True),
        (Candidate(2, 1, 256, 2), False, True),
    ],
)
def test_what_takes_less_is_predicted_to(candidate: Candidate, less_memory: bool, less_time: bool) -> None:
    config = config_of()
    (memory, seconds), (before, asked) = (predicted(config, c, figures()) for c in (candidate, asked_for(config)))
    assert (memory < before, seconds < asked) == (less_memory, less_time)
    assert memory >= 700


def test_freezing_where_nothing_was_frozen_adds_the_states_that_are_computed_once() -> None:
    config = config_of(backbone={"freeze": "none"})
    without = figures(None)
    without["seconds"] |= {"hidden states": 0.0}
    shallow, deep = (predicted(config, Candidate(depth, 1, 256, 3), without)[1] for depth in (0, 4))
    assert deep < shallow < sum(without["seconds"].values())
    assert deep > sum(without["seconds"].values()) - 102  # not all of the steps is saved
