"""One fine-tuning run on one page: config -> data -> backbone -> freeze, LoRA -> train -> baselines -> report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from accelerate import Accelerator
from datasets import Dataset

from pipelines import lora
from pipelines.activation_store import ActivationStore
from pipelines.artifacts import (
    CHECKPOINTS,
    DEPTH,
    SEEN,
    RunDirectory,
    environment,
    predictions,
    refuse_existing,
    seen_items,
    size_bytes,
)
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.calibration import choose_temperature
from pipelines.card import model_card
from pipelines.check.section import check_section
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, auto_learning_rate
from pipelines.data import load_splits
from pipelines.device import Precision, resolve_precision, start_accelerator
from pipelines.durable import write_json
from pipelines.errors import ConfigError, Interrupted
from pipelines.evaluate import FINE_TUNED, compare_systems
from pipelines.hidden_layers.depth import advise
from pipelines.hidden_layers.section import hidden_layers_section
from pipelines.keep_or_recompute import choose
from pipelines.learning_curve import add_curve, tuned_points
from pipelines.memory import PeakMemory
from pipelines.mistakes import add_nearest, highlight
from pipelines.predict import predict_logits
from pipelines.provenance import provenance_of
from pipelines.reading import training_reading
from pipelines.records import CLIENT, Event, Finished, Splits, Stage, Step, SystemScore, Validation, column
from pipelines.report import render_html
from pipelines.saved_run import SavedRun, starting_point
from pipelines.score import (
    all_trained_on,
    fit_baseline,
    keep_baseline,
    predictor,
    score,
    score_saved,
    scored,
)
from pipelines.train import Progress
from pipelines.trunk import Trunk
from pipelines.tune import finished_model, freeze_depth, prepare, tune


def finetune(
    config: RunConfig,
    out: Path,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Iterator[Event]:
    """Fine-tune, compare with the baselines, write a run directory.

    Under torchrun every process calls this alike; only the main one writes.

    Args:
        config: what to do.
        out: the run directory, which must not exist; work is done in `OUT.partial`.
        resume: go on from the newest checkpoint in `OUT.partial`, if there is one.
        stop: asked after every optimizer step and before every baseline; True ends the run, what is done is kept.
        store: where hidden states of frozen layers may be kept, if `backbone.cache` wants it.

    Yields:
        Events, the last of which is Finished.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError, TrainingError: see `errors`.
        Interrupted: after `stop`; the message says how to go on.
    """
    refuse_existing(out)
    precision = resolve_precision(config.training.precision)
    config, start = starting_point(config)
    yield Stage("data", f"reading {config.data.train.path}")
    splits = read_splits(config, start)
    yield Stage("backbone", f"loading {config.start_from or config.backbone.name}")
    trunk = prepare(config, splits.labels, start)

    run = RunDirectory(out)
    accelerator = start_accelerator(precision, config.training.trackers, run.partial)
    config = resolved(config, trunk, precision, accelerator, out)
    provenance = provenance_of(config, splits, trunk.backbone, start, precision)
    if accelerator.is_main_process:
        run.open(config, provenance, resume)
    accelerator.wait_for_everyone()
    try:
        advice = None
        if config.backbone.freeze == "auto":
            advice = yield from _advice(config, splits, trunk, start, precision, accelerator, run, stop, store)
            config = _with_depth(config, advice["depth"])
            trunk = prepare(config, splits.labels, start)
            config = resolved(config, trunk, precision, accelerator, out)
            if accelerator.is_main_process:
                run.settle(config)
        if store is not None:
            texts, passes = column(splits.train, "text"), config.training.epochs
            choice = choose(config.backbone.cache, trunk, texts, precision, store, passes, accelerator, run.remember)
            yield Stage("store", choice.sentence)
            store = store if choice.keep else None
        parts = splits, trunk, start, precision, provenance, accelerator, run, stop, store, advice
        yield from carry_out(config, *parts)
    except (Interrupted, GeneratorExit):
        run.close()
        raise
    except BaseException:
        if accelerator.is_main_process:
            run.abandon()
        raise


def carry_out(
    config: RunConfig,
    splits: Splits,
    trunk: Trunk,
    start: SavedRun | None,
    precision: Precision,
    provenance: dict[str, Any],
    accelerator: Accelerator,
    run: RunDirectory,
    stop: Callable[[], bool],
    store: ActivationStore | None,
    advice: dict[str, Any] | None,
) -> Iterator[Event]:
    """The part of a run that owns its directory, from training to the report. `estimate` carries out a small one.

    Args:
        config: resolved.
        splits: items of the three parts.
        trunk: trained in place.
        start, provenance: where the run comes from.
        run: open.
        store: as in `finetune`, once it is chosen.
    """
    yield Stage("train", _what_is_trained(trunk))
    accelerator.init_trackers("tensorboard")
    checkpoints = run.partial / CHECKPOINTS
    with PeakMemory() as peak:
        saved = Checkpoints(checkpoints)
        events = tune(trunk, splits, splits.train, config, accelerator, precision, saved, stop, store)
        progress = yield from _recorded(events, run, accelerator)
    curve = checkpoints / "curve"
    smaller = yield from tuned_points(config, splits, start, precision, accelerator, curve, stop, store)
    accelerator.end_training()  # from here on the processes cannot talk to each other
    if not accelerator.is_main_process:
        return
    run.replace_metrics(progress.history)

    temperature = _save_model(config, splits, trunk, precision, run)
    training = {"train_seconds": progress.seconds, "peak_memory_bytes": peak.bytes, "store": progress.store}
    tuned = _score_fine_tuned(splits, trunk.backbone, precision, progress, training, run)
    yield scored(tuned, splits)
    pretrained = load_text_backbone(config.backbone, splits.labels, config.data.max_length, config.training.seed)
    systems: list[SystemScore] = []
    for name, rung in _lower_rungs(config, splits, start, pretrained, precision, run, store).items():
        if stop():
            raise Interrupted("stopped after training; what is done was kept")
        yield Stage("baseline", name)
        systems.append(rung())
        yield scored(systems[-1], splits)
    systems.append(tuned)

    yield Stage("report", "scoring the test part")
    report = _describe(config, trunk, start, progress, precision, provenance | environment()) | compare_systems(
        splits, systems, tuned.name, config.evaluation, config.training.seed, temperature, config.data.slices
    )
    add_curve(report, smaller, systems, splits, config.evaluation, config.training.seed, pretrained, precision, store)
    yield Stage("report", "looking into data, hidden layers and errors")
    _look_inside(report, config, splits, pretrained, start, trunk.backbone, precision, advice, store)
    _write_report(config, report, splits, systems, run)
    run.finish()
    yield Finished(run.target, report["verdict"]["sentence"])


# ---- before training


def read_splits(config: RunConfig, start: SavedRun | None) -> Splits:
    """The splits of a run. Raises DataError, and ConfigError for a positive class that does not occur."""
    earlier, known = (None, ()) if start is None else (start.seen(), start.labels)
    splits = load_splits(config.data, config.training.seed, earlier, known)
    positive = config.evaluation.positive
    if positive is not None and positive not in splits.labels:
        raise ConfigError(f"evaluation.positive: no class {positive!r}; classes found: {', '.join(splits.labels)}")
    return splits


def resolved(config: RunConfig, trunk: Trunk, precision: Precision, accelerator: Accelerator, out: Path) -> RunConfig:
    """The config with every `auto` replaced by what was chosen, as it is written beside the result."""
    depth, rate = freeze_depth(config), config.training.learning_rate
    if rate == "auto" and depth != "auto":  # the rate follows the depth, which is chosen later
        rate = auto_learning_rate(trunk.frozen_share, config.adapter.type == "lora")
    chosen = {"learning_rate": rate, "precision": precision, "processes": accelerator.num_processes}
    sections = {
        "training": config.training.model_copy(update=chosen),
        "backbone": config.backbone.model_copy(update={"freeze": depth}),
    }
    return config.model_copy(update=sections | {"output": out})


def _advice(
    config: RunConfig,
    splits: Splits,
    trunk: Trunk,
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    run: RunDirectory,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, dict[str, Any]]:
    """How deep to freeze, for `freeze: auto`; a resumed run finds what it has chosen."""
    known = run.recall(DEPTH)
    accelerator.wait_for_everyone()  # nobody may find what another has only just chosen
    if known is not None:
        return known
    folder = run.partial / CHECKPOINTS / DEPTH
    kept_in = None if config.backbone.cache == "off" else store
    parts = splits, trunk.backbone, start, precision, accelerator, folder, True, stop, kept_in
    found = (yield from advise(config, *parts)).to_json()
    if accelerator.is_main_process:
        run.remember(DEPTH, lambda: found)
    accelerator.free_memory()  # of the short runs
    yield Stage("depth", found["sentence"])
    return found


def _with_depth(config: RunConfig, depth: int) -> RunConfig:
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"freeze": depth})})


def _what_is_trained(trunk: Trunk) -> str:
    trained, total = trunk.parameters
    return f"training {trained:,} of {total:,} parameters; {_freeze_sentence(trunk)}"


def _freeze_sentence(trunk: Trunk) -> str:
    if trunk.depth is None:
        return "nothing frozen"
    return f"embeddings and {trunk.depth} of {trunk.backbone.depth} hidden layers frozen"


# ---- after training


def _recorded(
    events: Generator[Event, None, Progress], run: RunDirectory, accelerator: Accelerator
) -> Generator[Event, None, Progress]:
    """Pass events on; the main process also appends them to metrics.jsonl and to the trackers."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            progress: Progress = end.value
            return progress
        if accelerator.is_main_process:
            run.record(event)
        if isinstance(event, Step | Validation):
            prefix = type(event).__name__.lower()
            values = {f"{prefix}/{k}": v for k, v in event.to_json().items() if isinstance(v, int | float)}
            accelerator.log(values, step=event.step)
        yield event


def _save_model(
    config: RunConfig, splits: Splits, trunk: Trunk, precision: Precision, run: RunDirectory
) -> tuple[float, str]:
    """Fold the temperature into the head and write model/ and adapter/. Returns the temperature and why."""
    backbone = trunk.backbone
    logits = predict_logits(backbone, backbone.encode(column(splits.validation, "text")), precision)
    temperature, reason = choose_temperature(logits, splits.targets(splits.validation), config.training.seed)
    backbone.scale_logits(1 / temperature)
    if backbone.adapter is not None:
        lora.save(backbone, run.partial / "adapter")
    finished_model(trunk).save(run.partial / "model")
    return temperature, reason


def _score_fine_tuned(
    splits: Splits,
    backbone: Backbone,
    precision: Precision,
    progress: Progress,
    training: dict[str, Any],
    run: RunDirectory,
) -> SystemScore:
    name = FINE_TUNED if splits.earlier is None else FINE_TUNED + CLIENT
    return score(
        name,
        predictor(backbone, precision),
        splits.labels,
        splits,
        trained_on=len(all_trained_on(splits)),
        details={"best_step": progress.best_step},
        training=training,
        size=size_bytes(run.partial / "model"),
    )


def _lower_rungs(
    config: RunConfig,
    splits: Splits,
    start: SavedRun | None,
    pretrained: Backbone,
    precision: Precision,
    run: RunDirectory,
    store: ActivationStore | None,
) -> dict[str, Callable[[], SystemScore]]:
    """What the ladder holds below the new model, lowest first: name -> how to score it.

    After `start_from`: the earlier run's regressions and its model as they are, then every regression again, trained
    on the items of both runs.
    """
    folder, seed, items = run.partial / "baselines", config.training.seed, all_trained_on(splits)

    def fitted(kind: str, suffix: str, items: Dataset) -> Callable[[], SystemScore]:
        name = kind + suffix
        return partial(fit_baseline, name, kind, items, splits, pretrained, precision, seed, folder / name, store)

    if start is None:
        return {kind: fitted(kind, "", splits.train) for kind in config.baselines}
    regressions = [kind for kind in config.baselines if kind != "majority"]
    suffix = CLIENT if start.main.endswith(CLIENT) else ""  # the newest of a run that was itself continued
    rungs: dict[str, Callable[[], SystemScore]] = {}
    if "majority" in config.baselines:
        rungs["majority"] = fitted("majority", "", splits.train)
    for kind in (kind for kind in regressions if kind + suffix in start.baselines):
        rungs[kind] = partial(keep_baseline, start, kind + suffix, kind, splits, pretrained, precision, folder / kind)
    rungs[FINE_TUNED] = lambda: score_saved(start, start.main, FINE_TUNED, predictor(start.model(), precision), splits)
    return rungs | {kind + CLIENT: fitted(kind, CLIENT, items) for kind in regressions}


def _describe(
    config: RunConfig,
    trunk: Trunk,
    start: SavedRun | None,
    progress: Progress,
    precision: Precision,
    provenance: dict[str, Any],
) -> dict[str, Any]:
    """What report.json says of the run itself."""
    return {
        "task": config.task,
        "backbone": {"name": config.backbone.name, "revision": None if start else trunk.backbone.weights.revision},
        "start_from": None if start is None else {"name": start.path.name, "system": start.main},
        "freeze_sentence": _freeze_sentence(trunk) + (", LoRA above" if config.adapter.type == "lora" else ""),
        "max_length": trunk.backbone.max_length,
        "precision": precision,
        "bootstrap": config.evaluation.bootstrap,
        "min_gain": config.evaluation.min_gain,
        "provenance": {key: value for key, value in provenance.items() if key not in ("kind", "labels", "precision")},
        "training": {"history": progress.history, "best_step": progress.best_step, "steps": progress.step}
        | training_reading(progress.history),
    }


def _look_inside(
    report: dict[str, Any],
    config: RunConfig,
    splits: Splits,
    pretrained: TextBackbone,
    start: SavedRun | None,
    tuned: Backbone,
    precision: Precision,
    advice: dict[str, Any] | None,
    store: ActivationStore | None,
) -> None:
    """Add what the data, the hidden layers and single errors say; none of it chooses anything."""
    grouped, mistakes = config.data.group is not None, report["mistakes"]
    report["data_check"] = check_section(splits, pretrained, precision, config.training.seed, grouped, store)
    before = pretrained if start is None else start.model()
    report["hidden_layers"] = hidden_layers_section(config, splits, before, tuned, precision, advice)
    highlight(mistakes, splits.test, tuned)
    add_nearest(mistakes, splits.test, splits.train, tuned, precision, config.training.seed, store)


def _write_report(
    config: RunConfig, report: dict[str, Any], splits: Splits, systems: list[SystemScore], run: RunDirectory
) -> None:
    """predictions.parquet, training_items.parquet, report.json, report.html and the model card."""
    pq.write_table(predictions(splits, systems).with_format("arrow")[:], run.partial / "predictions.parquet")
    pq.write_table(seen_items(splits).with_format("arrow")[:], run.partial / SEEN)
    title = run.target.name
    write_json(run.partial / "report.json", report)
    html = render_html(report, title, config.to_yaml())
    (run.partial / "report.html").write_text(html, encoding="utf-8")
    (run.partial / "README.md").write_text(model_card(report, config, title), encoding="utf-8")
