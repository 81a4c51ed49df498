"""Splits and events."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from pipelines.records import (
    Checkpoint,
    Costs,
    Event,
    Finished,
    Scored,
    Splits,
    Stage,
    Step,
    SystemScore,
    Validation,
    column,
)


def part(*labels: str) -> Dataset:
    return Dataset.from_dict({"text": ["t"] * len(labels), "label": list(labels)})


def test_a_column_is_a_plain_list_in_order() -> None:
    values = column(part("b", "a", "b"), "label")
    assert type(values) is list
    assert values == ["b", "a", "b"]


def test_targets_are_positions_in_the_label_order() -> None:
    splits = Splits(part("no", "yes"), part("yes"), part("yes", "no", "no"), ("yes", "no"), {})
    assert splits.targets(splits.test).tolist() == [0, 1, 1]
    assert splits.targets(splits.train).tolist() == [1, 0]
    assert str(splits.targets(splits.train).dtype) == "int64"


def test_targets_refuse_a_label_that_training_lacks() -> None:
    splits = Splits(part("a"), part("a"), part("c"), ("a",), {})
    with pytest.raises(KeyError, match="c"):
        splits.targets(splits.test)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Stage("data", "reading ä.csv"), {"event": "stage", "name": "data", "message": "reading ä.csv"}),
        (
            Step(2, 9, 0.5, 0.25, 1e-4, 100.0, 3.0),
            {
                "event": "step",
                "step": 2,
                "total_steps": 9,
                "epoch": 0.5,
                "loss": 0.25,
                "learning_rate": 1e-4,
                "items_per_second": 100.0,
                "remaining_s": 3.0,
            },
        ),
        (
            Validation(4, 1.0, 0.5, 0.75, 0.7, True),
            {
                "event": "validation",
                "step": 4,
                "epoch": 1.0,
                "loss": 0.5,
                "accuracy": 0.75,
                "macro_f1": 0.7,
                "best": True,
            },
        ),
        (Checkpoint(4), {"event": "checkpoint", "step": 4}),
        (Scored("majority", 0.5, 0.33), {"event": "scored", "name": "majority", "accuracy": 0.5, "macro_f1": 0.33}),
        (Finished(Path("runs/a"), "Worth it."), {"event": "finished", "path": "runs/a", "sentence": "Worth it."}),
    ],
)
def test_events_survive_json(event: Event, expected: dict[str, object]) -> None:
    assert json.loads(json.dumps(event.to_json())) == expected


def test_scores_do_not_share_their_details() -> None:
    first, second = (SystemScore(name, np.eye(2), 0.0, 0, Costs(0.0, 1.0, 0, 0)) for name in "ab")
    first.details["C"] = 1.0
    assert second.details == {}


def test_costs_and_earlier_items_are_off_unless_given() -> None:
    assert Costs(0.0, 1.0, 0, 0).store == "off"
    assert SystemScore("a", np.eye(2), 0.0, 0, Costs(0.0, 1.0, 0, 0)).validation_probabilities is None
    assert Splits(part("a"), part("a"), part("a"), ("a",), {}).earlier is None
