"""`rootstock estimate` on one page: parameters, time, memory and disk of a run, from a few measured steps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import RunDirectory
from pipelines.config import RunConfig
from pipelines.device import Precision, resolve_precision, start_accelerator
from pipelines.errors import ConfigError, Interrupted
from pipelines.estimate.figures import Measured, figures_of
from pipelines.estimate.miniature import EPOCHS, Watch, miniature_config, miniature_splits, read_off
from pipelines.estimate.pace import pace_of
from pipelines.estimate.plan import Plan, plan_of
from pipelines.estimate.regressions import measure_fits
from pipelines.estimate.states import states_of
from pipelines.keep_or_recompute import Choice, choose
from pipelines.provenance import provenance_of
from pipelines.records import Estimated, Event, Splits, Stage, column
from pipelines.run import carry_out, read_splits, resolved
from pipelines.saved_run import SavedRun, starting_point
from pipelines.score import all_trained_on
from pipelines.trunk import Trunk
from pipelines.tune import prepare

STOPPED = "stopped; nothing was kept"


def estimate(
    config: RunConfig, stop: Callable[[], bool] = lambda: False, store: ActivationStore | None = None
) -> Iterator[Event]:
    """Run a miniature of a run on this machine and on this data, and say what the run itself would take.

    The miniature trains a throw-away copy of the model in a temporary directory. Memory is that of this process, so
    what it held before counts.

    Args:
        config: of the run.
        stop: asked after every optimizer step and between the parts.
        store: of the run; what it holds counts, nothing is added.

    Yields:
        Events, the last of which is Estimated.

    Raises:
        ConfigError, DataError, BackboneError, TrainingError: as `run.finetune` does.
        Interrupted: after `stop`.
    """
    began = time.perf_counter()
    precision = resolve_precision(config.training.precision)
    config, start = starting_point(config)
    if config.backbone.freeze == "auto":
        raise ConfigError(
            "backbone.freeze: expected a depth, found auto, which a run chooses itself; `rootstock probe` says which, "
            "then add --set backbone.freeze=N"
        )
    if config.distill is not None:
        raise ConfigError(
            "distill: a run with a teacher trains twice and asks the teacher, which is not estimated; estimate one "
            "training by leaving distill out"
        )
    if config.training.imbalance == "auto":
        raise ConfigError(
            "training.imbalance: expected none, found auto, with which a run trains once for every answer that it "
            "tries; estimate one training with --set training.imbalance=none"
        )
    yield Stage("data", f"reading {config.data.train.path}")
    splits = read_splits(config, start)
    yield Stage("backbone", f"loading {config.start_from or config.backbone.name}")
    loading = time.perf_counter()
    trunk = prepare(config, splits.labels, start)
    loaded = time.perf_counter()
    about = _about(trunk)
    with tempfile.TemporaryDirectory(prefix="rootstock-estimate-") as folder:
        try:
            found = yield from _measured(
                config, splits, start, trunk, precision, stop, store, Path(folder), began, loaded - loading
            )
        except Interrupted:
            raise Interrupted(STOPPED) from None
    yield Estimated((), about | figures_of(config, found))


def _measured(
    config: RunConfig,
    splits: Splits,
    start: SavedRun | None,
    trunk: Trunk,
    precision: Precision,
    stop: Callable[[], bool],
    store: ActivationStore | None,
    folder: Path,
    began: float,
    prepared: float,
) -> Generator[Event, None, Measured]:
    """What the parts of the run take, from one of its size in which everything happens that happens in the run."""
    run, scratch = RunDirectory(folder / "run"), ActivationStore(folder / "store", 1 << 62)
    accelerator = start_accelerator(precision, config.training.trackers, run.partial)
    config = resolved(config, trunk, precision, accelerator, run.target)
    provenance = provenance_of(config, splits, trunk.backbone, start, None, precision)
    texts = column(splits.train, "text")
    choice = _choice(config, trunk, texts, precision, store, accelerator)
    setup = time.perf_counter() - began

    encoding = time.perf_counter()
    trunk.backbone.encode(texts)
    encode = time.perf_counter() - encoding
    plan = plan_of(config, splits, trunk.backbone)
    small_config, small_splits = miniature_config(config), miniature_splits(splits, plan, config)
    small_plan = plan_of(small_config, small_splits, trunk.backbone)
    kept_in = store if choice.keep else None
    states = states_of(trunk, plan, small_plan, precision, kept_in, scratch)
    yield Stage("measure", _what_is_measured(plan, small_plan))
    watch = Watch(stop, run)
    before = psutil.Process().memory_info().rss
    run.open(small_config, provenance, resume=False)
    try:
        small_store = scratch if choice.keep else None
        nothing: dict[str, Any] = {}  # was chosen by short trainings
        parts = trunk, start, precision, provenance, accelerator, run, watch.stop, small_store, nothing
        watch.follow(carry_out(small_config, small_splits, *parts))
    finally:
        run.close()
    small = read_off(watch, small_splits, small_plan, small_config, run.target)

    yield Stage("measure", f"regressions on up to {len(splits.train):,} items")
    if stop():
        raise Interrupted(STOPPED)
    fits = measure_fits(
        config, all_trained_on(splits), splits, precision, kept_in, states.begun, ActivationStore(folder / "e", 1 << 62)
    )
    pace = pace_of(small.steps, small.epochs)
    return Measured(
        splits, plan, small, pace, fits, states, choice, setup, prepared, encode, before, trunk.backbone.depth
    )


def _about(trunk: Trunk) -> dict[str, Any]:
    """What is known without measuring."""
    trained, total = trunk.parameters
    return {
        "parameters": {"trained": trained, "total": total},
        "hidden_layers": trunk.backbone.depth,
        "frozen_layers": trunk.depth,
    }


def _what_is_measured(plan: Plan, small: Plan) -> str:
    return (
        f"{EPOCHS * len(small.epoch.batches)} optimizer steps, on {len(small.lengths['train']):,} of "
        f"{len(plan.lengths['train']):,} training items"
    )


def _choice(
    config: RunConfig,
    trunk: Trunk,
    texts: Sequence[str],
    precision: Precision,
    store: ActivationStore | None,
    accelerator: Accelerator,
) -> Choice:
    """What the run would choose; measuring the disk leaves nothing behind."""
    if store is None:
        return Choice(False, "there is no store")
    existed = store.root.exists()
    passes = config.training.epochs
    choice = choose(config.backbone.cache, trunk, texts, precision, store, passes, accelerator, lambda _, make: make())
    if not existed:
        with suppress(OSError):
            store.root.rmdir()
    return choice
