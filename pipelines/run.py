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
    IMBALANCE,
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
from pipelines.choices import chosen_once
from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.device import Precision, resolve_precision, start_accelerator
from pipelines.distillation import (
    ALONE,
    Teacher,
    distillation_section,
    lesson_of,
    rungs,
    seen_through,
    student_alone,
    teacher_of,
)
from pipelines.durable import write_json
from pipelines.errors import ConfigError, Interrupted
from pipelines.evaluate import FINE_TUNED, compare_systems
from pipelines.hidden_layers.depth import advise
from pipelines.hidden_layers.section import hidden_layers_section
from pipelines.imbalance import ANSWERS, try_answers, with_answer
from pipelines.keep_or_recompute import choose
from pipelines.ladder import lower_rungs
from pipelines.learning_curve import add_curve, tuned_points
from pipelines.loop import Progress
from pipelines.memory import PeakMemory
from pipelines.mistakes import add_nearest, highlight
from pipelines.predict import predict_logits
from pipelines.provenance import provenance_of
from pipelines.reading import training_reading
from pipelines.records import CLIENT, Event, Finished, Returning, Splits, Stage, Step, SystemScore, Validation, column
from pipelines.report import render_html
from pipelines.saved_run import SavedRun, starting_point
from pipelines.score import (
    all_trained_on,
    predictor,
    score,
    scored,
)
from pipelines.trunk import Trunk
from pipelines.tune import finished_model, freeze_depth, prepare, tune, with_rate


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
    teacher = teacher_of(config, splits)
    yield Stage("backbone", f"loading {config.start_from or config.backbone.name}")
    trunk = prepare(config, splits.labels, start)

    run = RunDirectory(out)
    accelerator = start_accelerator(precision, config.training.trackers, run.partial)
    config = resolved(config, trunk, precision, accelerator, out)
    taught_by = None if teacher is None else teacher.run
    provenance = provenance_of(config, splits, trunk.backbone, start, taught_by, precision)
    if accelerator.is_main_process:
        run.open(config, provenance, resume)
    accelerator.wait_for_everyone()
    try:
        chosen: dict[str, Any] = {}
        here = accelerator, run, stop, store
        if config.backbone.freeze == "auto":
            advice = partial(advise, config, splits, trunk.backbone, start, precision, accelerator)
            chosen[DEPTH] = found = yield from chosen_once(DEPTH, config, advice, *here)
            config = _with_depth(config, found["depth"])
        if config.training.imbalance == "auto":
            answers = partial(try_answers, config, splits, start, precision, accelerator)
            chosen[IMBALANCE] = found = yield from chosen_once(IMBALANCE, config, answers, *here)
            config = with_answer(config, ANSWERS[found["chosen"]])
        if chosen:
            trunk = prepare(config, splits.labels, start)
            config = resolved(config, trunk, precision, accelerator, out)
            if accelerator.is_main_process:
                run.settle(config)
        if store is not None:
            texts, passes = column(splits.train, "text"), config.training.epochs
            choice = choose(config.backbone.cache, trunk, texts, precision, store, passes, accelerator, run.remember)
            yield Stage("store", choice.sentence)
            store = store if choice.keep else None
        parts = splits, trunk, start, precision, provenance, accelerator, run, stop, store, chosen, teacher
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
    chosen: dict[str, Any],
    teacher: Teacher | None = None,
) -> Iterator[Event]:
    """The part of a run that owns its directory, from training to the report. `estimate` carries out a small one.

    Args:
        config: resolved.
        splits: items of the three parts.
        trunk: trained in place.
        start, provenance: where the run comes from.
        run: open.
        store: as in `finetune`, once it is chosen.
        chosen: how what was `auto` was chosen, by name.
        teacher: whose answers the model learns too.
    """
    checkpoints = run.partial / CHECKPOINTS
    lesson = None
    if teacher is not None:
        yield Stage("distill", f"asking {teacher.run.path.name} about the training items")
        lesson = lesson_of(config, teacher, splits, precision, accelerator)
        parts = splits, precision, accelerator, checkpoints / ALONE, stop, store
        alone = yield from student_alone(config, *parts)
    yield Stage("train", _what_is_trained(trunk))
    accelerator.init_trackers("tensorboard")
    with PeakMemory() as peak:
        saved = Checkpoints(checkpoints)
        events = tune(trunk, splits, splits.train, config, accelerator, precision, saved, stop, store, lesson)
        progress = yield from _recorded(events, run, accelerator)
    curve = checkpoints / "curve"
    smaller = yield from tuned_points(config, splits, start, precision, accelerator, curve, stop, store)
    accelerator.end_training()  # from here on the processes cannot talk to each other
    if not accelerator.is_main_process:
        return
    run.replace_metrics(progress.history)

    temperature = _save_model(config, splits, trunk, precision, run)
    seconds = progress.seconds + (0.0 if lesson is None else lesson.seconds)
    training = {"train_seconds": seconds, "peak_memory_bytes": peak.bytes, "store": progress.store}
    tuned = _score_fine_tuned(splits, trunk.backbone, precision, progress, training, run)
    yield scored(tuned, splits)
    pretrained = load_text_backbone(config.backbone, splits.labels, config.data.max_length, config.training.seed)
    systems: list[SystemScore] = []
    ladder = lower_rungs(config, splits, start, pretrained, precision, run.partial / "baselines", store)
    if teacher is not None:
        ladder |= rungs(teacher, alone, splits, precision, tuned.costs.size_bytes)
    for name, rung in ladder.items():
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
    report |= {name: chosen[name] for name in chosen if name == IMBALANCE}
    if teacher is not None and lesson is not None:
        report["distillation"] = distillation_section(lesson, teacher, report, alone.steps, progress.step)
    yield Stage("report", "looking into data, hidden layers and errors")
    _look_inside(report, config, splits, pretrained, start, trunk.backbone, precision, chosen.get(DEPTH), store)
    taught = None if teacher is None else seen_through(teacher)
    _write_report(config, report, splits, systems, run, taught)
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
    depth = freeze_depth(config)
    if depth != "auto":  # the rate follows the depth, which is chosen later
        config = with_rate(config, trunk.frozen_share)
    chosen = {"precision": precision, "processes": accelerator.num_processes}
    sections = {
        "training": config.training.model_copy(update=chosen),
        "backbone": config.backbone.model_copy(update={"freeze": depth}),
    }
    return config.model_copy(update=sections | {"output": out})


def _with_depth(config: RunConfig, depth: int) -> RunConfig:
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"freeze": depth})})


def _what_is_trained(trunk: Trunk) -> str:
    trained, total = trunk.parameters
    return f"training {trained:,} of {total:,} parameters; {_freeze_sentence(trunk)}"


def _freeze_sentence(trunk: Trunk) -> str:
    if trunk.depth is None:
        return "nothing frozen"
    return f"embeddings and {trunk.depth} of {trunk.backbone.depth} hidden layers frozen"


def _above_sentence(config: RunConfig) -> str:
    """What is special about the training above the cut, after a comma."""
    adapters = {"none": "", "lora": ", LoRA above", "rslora": ", rank-stabilised LoRA above", "dora": ", DoRA above"}
    opened = {"none": "", "epoch": "after every epoch", "stall": "whenever validation stalls"}[config.training.unfreeze]
    return adapters[config.adapter.type] + (f", those above opened from the top {opened}" if opened else "")


# ---- after training


def _recorded(
    events: Generator[Event, None, Progress], run: RunDirectory, accelerator: Accelerator
) -> Generator[Event, None, Progress]:
    """Pass events on; the main process also appends them to metrics.jsonl and to the trackers."""
    own = Returning(events)
    for event in own:
        if accelerator.is_main_process:
            run.record(event)
        if isinstance(event, Step | Validation):
            prefix = type(event).__name__.lower()
            values = {f"{prefix}/{k}": v for k, v in event.to_json().items() if isinstance(v, int | float)}
            accelerator.log(values, step=event.step)
        yield event
    return own.value


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
        "freeze_sentence": _freeze_sentence(trunk) + _above_sentence(config),
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
    config: RunConfig,
    report: dict[str, Any],
    splits: Splits,
    systems: list[SystemScore],
    run: RunDirectory,
    taught: Dataset | None,
) -> None:
    """predictions.parquet, training_items.parquet, report.json, report.html and the model card."""
    pq.write_table(predictions(splits, systems).with_format("arrow")[:], run.partial / "predictions.parquet")
    pq.write_table(seen_items(splits, taught).with_format("arrow")[:], run.partial / SEEN)
    title = run.target.name
    write_json(run.partial / "report.json", report)
    html = render_html(report, title, config.to_yaml())
    (run.partial / "report.html").write_text(html, encoding="utf-8")
    (run.partial / "README.md").write_text(model_card(report, config, title), encoding="utf-8")
