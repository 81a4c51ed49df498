"""Trainings and settings of a sweep without any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.config import parse_config
from pipelines.sweep.plan import changed
from pipelines.sweep.runs import Run, Runs, State
from pipelines.sweep.settings import Setting

DATA = {"train": "a.csv", "text": "text", "label": "label"}
CONFIG = parse_config({"task": "text-classification", "data": DATA})


def setting(rate: float = 0.001, **changes: Any) -> Setting:
    """A setting of a learning rate and further keys, `__` for the dot."""
    named = {"training.learning_rate": rate} | {key.replace("__", "."): value for key, value in changes.items()}
    return Setting(named, changed(CONFIG, named), 2, rate)


def run(own: Setting, seed: int, *scores: float, state: State = "complete", **changes: Any) -> Run:
    """A training with these scores, one an epoch."""
    values: dict[str, Any] = {
        "epochs": len(scores),
        "depth": 2,
        "learning_rate": own.learning_rate,
        "seconds": 1.0,
        "train_seconds": 1.0,
    }
    return Run(own.name, own.changes, seed, state, list(scores), **values | {"store": "warm"} | changes)


def runs(*given: Run | Sequence[Run]) -> Runs:
    return Runs([each for one in given for each in ([one] if isinstance(one, Run) else one)])
