"""What the validation losses of invented runs say."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.reading import training_reading


def history(losses: list[float], best: tuple[int, ...] = (1,)) -> list[dict[str, Any]]:
    """Two steps and one validation per epoch; `best` are the epochs that were the best so far."""
    events: list[dict[str, Any]] = []
    for epoch, loss in enumerate(losses, start=1):
        events += [{"event": "step", "loss": 9.0, "epoch": epoch - 0.5}, {"event": "step", "loss": 0.0, "epoch": epoch}]
        events += [{"event": "validation", "loss": loss, "epoch": float(epoch), "best": epoch in best}]
    return events


@pytest.mark.parametrize(
    ("losses", "reading"),
    [
        ([0.5], "unknown"),
        ([0.5, 0.4, 0.3], "underfitting"),
        ([0.5, 0.48], "underfitting"),
        ([0.5, 0.495], "fitted"),
        ([0.5, 0.4, 0.4], "fitted"),
        ([0.5, 0.4, 0.41], "fitted"),
        ([0.5, 0.4, 0.42], "fitted"),  # 5% over the lowest is not yet more than that
        ([0.5, 0.4, 0.43], "overfitting"),
        ([0.4, 0.6, 0.5], "overfitting"),  # it falls again, but not to where it was
        ([0.4, 0.45, 0.41, 0.401], "fitted"),
        ([0.4, 0.8, 0.3], "underfitting"),
        ([0.0, 0.0], "fitted"),
        ([0.2, 0.0, 0.0], "fitted"),
    ],
)
def test_readings(losses: list[float], reading: str) -> None:
    assert training_reading(history(losses))["reading"] == reading


def test_overfitting_says_since_when_and_how_much() -> None:
    found = training_reading(history([0.5, 0.4, 0.45, 0.5], best=(1, 3)))
    assert found["sentence"] == (
        "Overfitting: validation loss was lowest after epoch 2 and rose by 25% since. More epochs will not help; "
        "more labels, more frozen layers or a lower learning rate may. "
        "Kept: epoch 3, the best macro-F1 on validation."
    )


def test_still_learning_says_how_fast() -> None:
    found = training_reading(history([0.5, 0.4, 0.3], best=(1, 2, 3)))
    assert found["sentence"] == (
        "Still learning: validation loss fell by 25% in the last epoch. Try more epochs. "
        "Kept: epoch 3, the best macro-F1 on validation."
    )


def test_one_epoch_tells_nothing_but_what_was_kept() -> None:
    found = training_reading(history([0.5]))
    assert found["sentence"] == "One epoch is too few to tell. Kept: epoch 1, the best macro-F1 on validation."


def test_a_fraction_of_an_epoch_is_named() -> None:
    events = [{"event": "validation", "loss": 0.5, "epoch": 0.25, "best": True}]
    assert "Kept: epoch 0.25," in training_reading(events)["sentence"]


def test_a_loss_that_rises_from_nothing_is_overfitting() -> None:
    assert training_reading(history([0.0, 0.1]))["reading"] == "overfitting"


def test_the_training_loss_is_not_read() -> None:
    events = history([0.5, 0.4, 0.4])
    assert training_reading(events) == training_reading([e for e in events if e["event"] == "validation"])
