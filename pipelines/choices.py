"""What a config leaves to the run: chosen once, by trainings scored on the validation part; a resumed run finds it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import CHECKPOINTS, RunDirectory
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.hidden_layers.depth import advise
from pipelines.records import Event, Splits, Stage
from pipelines.saved_run import SavedRun
from pipelines.trunk import Trunk


def depth_advice(
    config: RunConfig,
    splits: Splits,
    trunk: Trunk,
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    folder: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, dict[str, Any]]:
    """How deep to freeze, for `freeze: auto`."""
    parts = splits, trunk.backbone, start, precision, accelerator, folder, True, stop, store
    return (yield from advise(config, *parts)).to_json()


def chosen_once(
    name: str,
    config: RunConfig,
    choose: Callable[..., Generator[Event, None, dict[str, Any]]],
    accelerator: Accelerator,
    run: RunDirectory,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, dict[str, Any]]:
    """What was `auto` and is chosen by short trainings; a resumed run finds what it has chosen."""
    known = run.recall(name)
    accelerator.wait_for_everyone()  # nobody may find what another has only just chosen
    if known is not None:
        return known
    kept_in = None if config.backbone.cache == "off" else store
    found = yield from choose(run.partial / CHECKPOINTS / name, stop, kept_in)
    agreed = [found]  # a rounding error apart, two processes might choose differently
    if accelerator.num_processes > 1:
        broadcast_object_list(agreed)
    found = agreed[0]
    if accelerator.is_main_process:
        run.remember(name, lambda: found)
    accelerator.free_memory()  # of the trainings
    yield Stage(name, found["sentence"])
    return found
