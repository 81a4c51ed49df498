"""What a config leaves to the run: chosen once, by trainings scored on the validation part; a resumed run finds it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import CHECKPOINTS, RunDirectory
from pipelines.config import RunConfig
from pipelines.device import agreed
from pipelines.records import Event, Stage


def chosen_once(
    name: str,
    config: RunConfig,
    choose: Callable[..., Generator[Event, None, dict[str, Any]]],
    accelerator: Accelerator,
    run: RunDirectory,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, dict[str, Any]]:
    """What was `auto` and is chosen by short trainings; a resumed run finds what it has chosen.

    Args:
        name: under which it is kept.
        choose: given a folder for checkpoints, `stop`, and the store or None, trains and returns what it has found,
            as JSON with a `sentence`. All processes call it alike.
    """
    known = run.recall(name)
    accelerator.wait_for_everyone()  # nobody may find what another has only just chosen
    if known is not None:
        return known
    kept_in = None if config.backbone.cache == "off" else store
    found = agreed((yield from choose(run.partial / CHECKPOINTS / name, stop, kept_in)))
    if accelerator.is_main_process:
        run.remember(name, lambda: found)
    accelerator.free_memory()  # of the trainings
    yield Stage(name, found["sentence"])
    return found
