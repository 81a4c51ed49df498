"""One training of a sweep: what it costs of its own, and a fault where other processes take part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import parse_config
from pipelines.data import load_splits
from pipelines.device import start_accelerator
from pipelines.errors import TrainingError
from pipelines.loop import Progress
from pipelines.records import finished
from pipelines.sweep import trainings as module
from pipelines.sweep.runs import Run
from pipelines.sweep.settings import Settings
from pipelines.sweep.trainings import Trainings
from tests.toys import toy_config


class Processes:
    """Of an accelerator, how many there are."""

    def __init__(self, count: int) -> None:
        self.num_processes = count

    def free_memory(self) -> None:
        """There is none to be freed."""


def train(folder: Path, accelerator: Any) -> Run:
    config = parse_config(toy_config(folder))
    splits = load_splits(config.data, 0)
    setting = Settings(config, splits.labels, None).of({})
    shared = Trainings(splits, None, "fp32", accelerator, lambda: False, None)
    return finished(shared.run(setting, 0, folder / "checkpoints", lambda _: False))


def test_what_is_paid_once_for_many_is_not_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tuned(*_: object) -> Iterator[Any]:
        yield from ()
        return Progress(seconds=7.0, before=5.0, store="cold")  # type: ignore[return-value]

    monkeypatch.setattr(module, "tune", tuned)
    run = train(tmp_path, start_accelerator("fp32", (), tmp_path))
    assert (run.state, run.store, run.train_seconds) == ("complete", "cold", 2.0)


def test_a_failure_ends_all_where_other_processes_may_wait_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Iterator[Any]:
        yield from ()
        raise TrainingError("out of memory")

    monkeypatch.setattr(module, "tune", broken)
    assert train(tmp_path, start_accelerator("fp32", (), tmp_path)).reason == "out of memory"
    with pytest.raises(TrainingError, match="out of memory"):
        train(tmp_path, Processes(2))
