"""One training of a sweep: model, the one training loop, scores; the model itself is dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.device import Precision, agreed
from pipelines.errors import TrainingError
from pipelines.loop import Progress
from pipelines.records import Event, Returning, Splits, Stage, Step, Validation
from pipelines.saved_run import SavedRun
from pipelines.sweep.runs import Run, State
from pipelines.sweep.settings import Setting
from pipelines.tune import prepare, tune

Hopeless = Callable[[list[float]], bool]


@dataclass(frozen=True)
class Trainings:
    """What all trainings of a sweep share: items, processes, and the store, so that the trunk is run once for all.

    Attributes:
        stop: see `train.train`.
        store: of hidden states, see `tune`.
    """

    splits: Splits
    start: SavedRun | None
    precision: Precision
    accelerator: Accelerator
    stop: Callable[[], bool]
    store: ActivationStore | None

    def run(self, setting: Setting, seed: int, folder: Path, hopeless: Hopeless) -> Generator[Event, None, Run]:
        """Train once. All processes must call this alike, and get the same answer.

        Args:
            seed: `training.seed` of this training; the splits are those of the sweep.
            folder: of its checkpoints; one that is there is resumed.
            hopeless: asked after every epoch but those of a checkpoint, with the scores so far; True ends the training.

        Raises:
            Interrupted: after `stop`; a checkpoint is kept.
            TrainingError: it failed with several processes: the others may wait for this one in the middle of a step.
        """
        self.accelerator.free_memory()  # of the model before
        started = time.perf_counter()
        config, checkpoints = setting.seeded(seed), Checkpoints(folder)
        scores, seconds = _before(checkpoints)
        state: State = "complete"
        store: str | None = None
        train_seconds: float | None = None
        reason: str | None = None
        try:
            trunk = prepare(config, self.splits.labels, self.start)
            parts = self.accelerator, self.precision, checkpoints, self.stop, self.store
            events = tune(trunk, self.splits, self.splits.train, config, *parts)
            progress = yield from _watched(events, scores, lambda: agreed(hopeless(scores)))
            if progress is None:
                state = "pruned"
            else:
                store, train_seconds = progress.store, progress.seconds - progress.before
        except TrainingError as error:
            if self.accelerator.num_processes > 1:
                raise
            state, reason = "failed", str(error)
        seconds += time.perf_counter() - started
        settled = config.training.epochs, setting.depth, setting.learning_rate
        run = Run(setting.name, setting.changes, seed, state, scores, *settled, seconds, train_seconds, store, reason)
        return agreed(run)


def _before(checkpoints: Checkpoints) -> tuple[list[float], float]:
    """Scores and seconds of a training that was interrupted, as its newest checkpoint has them."""
    saved = checkpoints.newest()
    if saved is None:
        return [], 0.0
    checks = [event for event in saved.progress["history"] if event["event"] == "validation"]
    return [event["macro_f1"] for event in checks], float(saved.progress["seconds"])


def _watched(
    events: Generator[Event, None, Progress], scores: list[float], hopeless: Callable[[], bool]
) -> Generator[Event, None, Progress | None]:
    """Pass on what shows progress and note every score; None where the training was ended as hopeless."""
    own = Returning(events)
    for event in own:
        if isinstance(event, Validation):
            scores.append(event.macro_f1)
            if hopeless():
                events.close()
                return None
        if isinstance(event, Step | Stage):
            yield event
    return own.value
