"""A miniature of the run is really run, on some of its items; what each part takes is read off its events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.artifacts import CHECKPOINTS, RunDirectory, size_bytes
from pipelines.config import RunConfig
from pipelines.durable import MANIFEST
from pipelines.estimate.plan import Epoch, Plan, epoch_of
from pipelines.records import Checkpoint, Event, FloatArray, Scored, Splits, Stage, Step, Validation
from pipelines.sampling import some_of

BATCHES = 8  # of training items, each trained on twice
PART = 64  # validation items, and test items
EPOCHS = 2  # the first meets every shape for the first time


def miniature_config(config: RunConfig) -> RunConfig:
    """The same recipe for two epochs, without a learning curve, with all hidden layers above the cut open at once."""
    training = {"epochs": EPOCHS, "patience": None, "checkpoint_steps": None, "unfreeze": "none"}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "evaluation": config.evaluation.model_copy(update={"learning_curve": ()}),
        }
    )


def miniature_splits(splits: Splits, plan: Plan, config: RunConfig) -> Splits:
    """Some items of every part, stratified; of the training part, all items of the step with most tokens."""
    seed = config.training.seed
    largest = plan.epoch.batches[int(plan.epoch.tokens.argmax())]
    train = some_of(splits.train, BATCHES * config.training.batch_size, seed, largest)
    validation, test = (some_of(part, PART, seed) for part in (splits.validation, splits.test))
    earlier = None if splits.earlier is None else some_of(splits.earlier, len(train), seed)
    return replace(splits, train=train, validation=validation, test=test, earlier=earlier)


class Watch:
    """When the events of a run came, and when it asked whether to stop, which it does after every optimizer step.

    Args:
        stop: what the user wants.
        run: its directory; checkpoints are looked at as they come.
    """

    def __init__(self, stop: Callable[[], bool], run: RunDirectory) -> None:
        self._stop = stop
        self._checkpoints = run.partial / CHECKPOINTS
        self.asked: list[float] = []
        self.came: list[tuple[float, Event]] = []
        self.checkpoint_bytes = 0
        self.progress: dict[str, Any] = {}

    def stop(self) -> bool:
        self.asked.append(time.perf_counter())
        return self._stop()

    def follow(self, events: Iterable[Event]) -> None:
        """Run to the end."""
        for event in events:
            self.came.append((time.perf_counter(), event))
            if isinstance(event, Checkpoint):
                (newest,) = self._checkpoints.glob(f"step-*/{MANIFEST}")
                self.checkpoint_bytes = size_bytes(newest.parent)
                self.progress = json.loads((newest.parent / "progress.json").read_text(encoding="utf-8"))

    def times(self, kind: type[Event], name: str | None = None) -> list[float]:
        """When events of a kind came; of stages and scores, those of a name."""
        return [at for at, event in self.came if isinstance(event, kind) and name in (None, getattr(event, "name", ""))]

    def steps(self, count: int) -> tuple[FloatArray, FloatArray]:
        """Seconds of the steps of the first epoch but its first, (S - 1,), and of those of the second, (S,)."""
        first, last = self.times(Checkpoint)
        asked = [at for at in self.asked if at < last][-EPOCHS * count :]
        return np.diff(asked[:count]), np.diff([first, *asked[count:]])


@dataclass(frozen=True)
class Miniature:
    """What the parts of the small run took, in seconds where nothing else is said.

    Attributes:
        splits, plan: its items.
        before: tokenization and hidden states, before the first step.
        steps: of the first epoch but its first, and of the second.
        epochs: these two; what they hold.
        validation: one pass.
        checkpoint, checkpoint_bytes: saving one.
        store: cold, warm or off.
        classify: answers of the new model for the validation part twice and the test part, saving it, calibration.
        load: the pretrained backbone.
        baselines: name -> all that it takes.
        report: scoring in pairs, writing, syncing.
        systems: as in report.json.
        main: name of the new model among them.
        run_bytes: of the finished directory, by first name.
    """

    splits: Splits
    plan: Plan
    before: float
    steps: tuple[FloatArray, FloatArray]
    epochs: tuple[Epoch, Epoch]
    validation: float
    checkpoint: float
    checkpoint_bytes: int
    store: str
    classify: float
    load: float
    baselines: dict[str, float]
    report: float
    systems: dict[str, dict[str, Any]]
    main: str
    run_bytes: dict[str, int]


def read_off(watch: Watch, splits: Splits, plan: Plan, config: RunConfig, path: Path) -> Miniature:
    """The times of a small run that has ended, and what its directory says."""
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    lengths, most = plan.lengths["train"], report["max_length"]
    epochs = plan.epoch, epoch_of(lengths, config.training, most, 1)
    ended = [at for at, event in watch.came if isinstance(event, Step)][-1]
    validated, saved = watch.times(Validation)[-1], watch.times(Checkpoint)[-1]
    report_began = watch.times(Stage, "report")[0]
    tuned = watch.times(Scored, report["main"])[0]
    began = {e.message: at for at, e in watch.came if isinstance(e, Stage) and e.name == "baseline"}
    done = {e.name: at for at, e in watch.came if isinstance(e, Scored)}
    return Miniature(
        splits=splits,
        plan=plan,
        before=watch.progress["before"],
        steps=watch.steps(len(epochs[0].batches)),
        epochs=epochs,
        validation=validated - ended,
        checkpoint=saved - validated,
        checkpoint_bytes=watch.checkpoint_bytes,
        store=watch.progress["store"],
        classify=tuned - saved,
        load=min([report_began, *began.values()]) - tuned,
        baselines={name: done[name] - at for name, at in began.items()},
        report=watch.came[-1][0] - report_began,
        systems={system["name"]: system for system in report["systems"]},
        main=report["main"],
        run_bytes={own.name: size_bytes(own) if own.is_dir() else own.stat().st_size for own in path.iterdir()},
    )
