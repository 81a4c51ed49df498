"""`rootstock sweep` on one page: settings -> trainings that share one trunk pass -> table, plot, the best config."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import CHECKPOINTS, refuse_existing
from pipelines.config import RunConfig
from pipelines.device import Precision, agreed, resolve_precision, start_accelerator
from pipelines.durable import discard, write_json
from pipelines.errors import Interrupted
from pipelines.keep_or_recompute import choose
from pipelines.provenance import provenance_of
from pipelines.records import Event, Splits, Stage, Swept, Trained, column
from pipelines.run import read_splits
from pipelines.saved_run import starting_point
from pipelines.sweep.page import render_page
from pipelines.sweep.plan import Factor, Plan, combinations, factors_of, values_in
from pipelines.sweep.runs import Runs, SweepDirectory
from pipelines.sweep.selection import CAVEAT, sentence, table
from pipelines.sweep.settings import Setting, Settings
from pipelines.sweep.study import Trial, decided_by, hopeless, suggested
from pipelines.sweep.trainings import Trainings
from pipelines.trunk import Trunk
from pipelines.tune import prepare

BEST = "best.yaml"


def sweep(
    config: RunConfig,
    plan: Plan,
    out: Path,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Generator[Event, None, None]:
    """Train every setting with every seed on the same splits, and say which is best on the validation part.

    The test part is dropped before the first training. Under torchrun every process calls this alike; only the main
    one writes, and what it decides holds for all.

    Args:
        config: what is not varied; its `training.seed` makes the splits and is the first seed.
        plan: what is varied, and how.
        out: the directory of the result, which must not exist; work is done in `OUT.partial`.
        resume: go on after the trainings that have ended in `OUT.partial`, if there are some.
        stop: asked after every optimizer step; True ends the sweep, what is done is kept.
        store: where hidden states of frozen layers may be kept, if `backbone.cache` wants it.

    Yields:
        Events, the last of which is Swept; of several processes the main one's.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError, TrainingError: see `errors`.
        Interrupted: after `stop`; the message says how to go on.
    """
    refuse_existing(out)
    factors = factors_of(plan, config)
    precision = resolve_precision(config.training.precision)
    config, start = starting_point(config)
    yield Stage("data", f"reading {config.data.train.path}")
    splits = _without_test(read_splits(config, start))
    yield Stage("settings", "checking that each can be trained")
    settings = Settings(config, splits.labels, start)
    check = settings.checked if plan.method == "optuna" else settings.of
    asked = combinations(factors, plan.method, config)
    for changes in asked:
        check(changes)
    total = (plan.trials_wanted if plan.method == "optuna" else len(settings.all)) * plan.seeds

    if plan.method == "grid" and len(settings.all) < len(asked):
        yield Stage("settings", f"{len(asked)} combinations come to {len(settings.all)} that differ")

    directory = SweepDirectory(out)
    accelerator = start_accelerator(precision, (), directory.partial)
    trunk = prepare(settings.deepest, splits.labels, start)
    if accelerator.is_main_process:
        provenance = provenance_of(settings.deepest, splits, trunk.backbone, start, None, precision)
        own = {"kind": "sweep", "processes": accelerator.num_processes, "weights": settings.weights}
        directory.open(config, provenance | own | plan.to_json() | decided_by(plan), resume)
    accelerator.wait_for_everyone()
    try:
        runs = Runs(agreed(directory.runs() if accelerator.is_main_process else []))
        store = yield from _worthwhile(settings, trunk, splits, precision, accelerator, directory, total, store)
        del trunk
        trainings = Trainings(splits, start, precision, accelerator, stop, store)
        for setting, seed in _order(config, plan, factors, settings, runs):
            if not runs.has(setting.name, seed):
                yield from _train(trainings, setting, seed, plan, runs, total, directory)
        if accelerator.is_main_process:
            found = _found(config, plan, factors, settings, runs)
            _write(found, settings, config, directory)
            directory.finish()
            yield Swept(out, found)
    except (Interrupted, GeneratorExit):
        directory.close()
        raise
    except BaseException:
        if accelerator.is_main_process:
            directory.abandon()
        raise


# ---- before training


def _without_test(splits: Splits) -> Splits:
    """Nothing of a sweep can look at the test part, since it is not there."""
    return replace(splits, test=splits.test.select([]))


def _worthwhile(
    settings: Settings,
    trunk: Trunk,
    splits: Splits,
    precision: Precision,
    accelerator: Accelerator,
    directory: SweepDirectory,
    trainings: int,
    store: ActivationStore | None,
) -> Generator[Event, None, ActivationStore | None]:
    """The store, if it is worth its time: measured once, at the deepest cut, for all trainings together."""
    if store is None:
        return None
    texts, passes = column(splits.train, "text"), settings.deepest.training.epochs * trainings
    cache = settings.config.backbone.cache
    choice = choose(cache, trunk, texts, precision, store, passes, accelerator, directory.remember)
    yield Stage("store", choice.sentence)
    return store if choice.keep else None


# ---- trainings


def _order(
    config: RunConfig, plan: Plan, factors: list[Factor], settings: Settings, runs: Runs
) -> Iterator[tuple[Setting, int]]:
    """Setting and seed of every training, one at a time, since what comes next depends on what has ended.

    All settings have the first seed before any has the second, so that hopeless ones are dropped early. Shallow cuts
    come first: the hidden states of deeper ones are computed from theirs.
    """
    seeds = [config.training.seed + number for number in range(plan.seeds)]
    if plan.method == "optuna":
        yield from _proposed(config, plan, factors, settings, runs, seeds)
        return
    by_depth = sorted(settings.all, key=lambda setting: setting.depth)
    for seed in seeds:
        yield from ((setting, seed) for setting in by_depth if not runs.dropped(setting.name))


def _proposed(
    config: RunConfig, plan: Plan, factors: list[Factor], settings: Settings, runs: Runs, seeds: list[int]
) -> Iterator[tuple[Setting, int]]:
    """The same with Optuna, which proposes a setting when the one before has all its seeds, or is dropped."""
    tried: list[Trial] = []
    for _ in range(plan.trials_wanted):
        changes = suggested(factors, tried, plan.seeds, config.training.seed)
        setting = settings.of(changes)
        yield from ((setting, seed) for seed in seeds if not runs.dropped(setting.name))
        tried.append(Trial(changes, runs.of(setting.name)))


def _train(
    trainings: Trainings, setting: Setting, seed: int, plan: Plan, runs: Runs, total: int, directory: SweepDirectory
) -> Iterator[Event]:
    """One training, kept before its checkpoint is dropped: killed between the two, it is not trained again."""
    yield Stage("training", f"{len(runs) + 1} of at most {total}: {setting.name}, seed {seed}")
    checkpoint = blake2b(f"{setting.name}, seed {seed}".encode(), digest_size=8).hexdigest()
    folder = directory.partial / CHECKPOINTS / checkpoint

    def give_up(scores: list[float]) -> bool:
        return plan.prune and hopeless(runs, setting.name, scores, setting.config.training.epochs)

    run = yield from trainings.run(setting, seed, folder, give_up)
    if trainings.accelerator.is_main_process:
        directory.keep(run)
        discard(folder)
    runs.add(run)
    yield Trained(len(runs), total, run.to_json())


# ---- after training


def _found(config: RunConfig, plan: Plan, factors: list[Factor], settings: Settings, runs: Runs) -> dict[str, Any]:
    """sweep.json. Raises TrainingError if no setting has all its seeds."""
    rows = table(settings.all, runs, plan.seeds, settings.known(values_in(config, factors)))
    states = Counter(run.state for run in runs)
    stores = Counter(run.store for run in runs.complete)
    return plan.to_json() | {
        "vary": {factor.key: factor.to_json() for factor in factors},
        "sentence": sentence(rows, plan.seeds),
        "caveat": CAVEAT,
        "trainings": {state: states[state] for state in ("complete", "pruned", "failed")},
        "store": {how: stores[how] for how in ("cold", "warm", "off")},
        "seconds": sum(run.seconds for run in runs),
        "settings": rows,
    }


def _write(found: dict[str, Any], settings: Settings, config: RunConfig, directory: SweepDirectory) -> None:
    """Table and page, and the best config, which `rootstock finetune` takes as it is."""
    best = next(setting for setting in settings.all if setting.name == found["settings"][0]["setting"])
    write_json(directory.partial / "sweep.json", found)
    title, again = config.data.train.path.name, f"rootstock finetune {directory.target / BEST}"
    (directory.partial / "sweep.html").write_text(render_page(found, title, again), encoding="utf-8")
    (directory.partial / BEST).write_text(best.config.to_yaml(), encoding="utf-8")
