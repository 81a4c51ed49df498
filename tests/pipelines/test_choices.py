"""What a run leaves open is chosen once, and found again by a resumed one."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import RunDirectory
from pipelines.choices import chosen_once
from pipelines.config import RunConfig
from pipelines.device import start_accelerator
from pipelines.records import Event, Stage, finished


class Choice:
    """Chooses 3, and notes what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[Path, ActivationStore | None]] = []

    def __call__(
        self, folder: Path, stop: Any, store: ActivationStore | None
    ) -> Generator[Event, None, dict[str, Any]]:
        self.given.append((folder, store))
        yield Stage("short run", "training")
        return {"depth": 3, "sentence": "three is best"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    found = RunDirectory(tmp_path / "out")
    found.partial.mkdir()
    return found


def choose(config: RunConfig, choice: Choice, run: RunDirectory, store: ActivationStore | None = None) -> Any:
    accelerator = start_accelerator("fp32", (), run.partial)
    return chosen_once("depth", config, choice, accelerator, run, lambda: False, store)


def test_a_resumed_run_finds_what_was_chosen(make_config: Any, run: RunDirectory) -> None:
    choice = Choice()
    events = list(choose(make_config(), choice, run))
    assert events[-1] == Stage("depth", "three is best")
    again = finished(choose(make_config(), choice, RunDirectory(run.target)))
    assert again == {"depth": 3, "sentence": "three is best"}
    assert len(choice.given) == 1


def test_its_checkpoints_are_of_the_run_and_its_states_kept_if_those_of_the_run_may_be(
    make_config: Any, run: RunDirectory, tmp_path: Path
) -> None:
    choice, store = Choice(), ActivationStore(tmp_path / "store", 1 << 20)
    finished(choose(make_config(), choice, run, store))
    assert choice.given == [(run.partial / "checkpoints" / "depth", store)]
    (run.partial / "depth.json").unlink()
    finished(choose(make_config(backbone={"cache": "off"}), choice, run, store))
    assert choice.given[1][1] is None
