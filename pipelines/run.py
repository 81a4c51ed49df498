"""One fine-tuning run on one page: config -> data -> backbone -> freeze, LoRA -> train -> baselines -> report."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import Accelerator
from datasets import Dataset

from pipelines import lora
from pipelines.artifacts import CHECKPOINTS, RunDirectory, refuse_existing, size_bytes
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.baselines import load_baseline, make_baseline
from pipelines.card import model_card
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, SplitFile, auto_learning_rate
from pipelines.data import load_splits
from pipelines.device import Precision, device, resolve_precision, start_accelerator
from pipelines.durable import discard, write_json
from pipelines.errors import ConfigError, Interrupted
from pipelines.evaluate import FINE_TUNED, compare_systems
from pipelines.metrics import macro_f1
from pipelines.predict import predict_probabilities
from pipelines.records import (
    Event,
    Finished,
    Scored,
    Splits,
    Stage,
    Step,
    SystemScore,
    Validation,
    column,
)
from pipelines.report import render_html
from pipelines.train import Progress, TrainingData, train
from pipelines.trunk import Trunk
from pipelines.weights import sha256_file


def finetune(
    config: RunConfig, out: Path, resume: bool = False, stop: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Fine-tune, compare with the baselines, write a run directory.

    Under torchrun every process calls this alike; only the main one writes.

    Args:
        config: what to do.
        out: the run directory, which must not exist; work is done in `OUT.partial`.
        resume: go on from the newest checkpoint in `OUT.partial`, if there is one.
        stop: asked after every optimizer step and before every baseline; True ends the run, what is done is kept.

    Yields:
        Events, the last of which is Finished.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError, TrainingError: see `errors`.
        Interrupted: after `stop`; the message says how to go on.
    """
    refuse_existing(out)
    precision = resolve_precision(config.training.precision)
    yield Stage("data", f"reading {config.data.train.path}")
    splits = load_splits(config.data, config.training.seed)
    _check_labels(config, splits)
    yield Stage("backbone", f"loading {config.backbone.name}")
    backbone = _backbone(config, splits)
    trunk = Trunk(backbone, _depth(config))
    if config.adapter.type == "lora":
        lora.attach(trunk, config.adapter)

    run = RunDirectory(out)
    accelerator = start_accelerator(precision, config.training.trackers, run.partial)
    config = _resolved(config, trunk, precision, accelerator, out)
    if accelerator.is_main_process:
        run.open(config, _provenance(config, splits, backbone, precision), resume)
    accelerator.wait_for_everyone()
    try:
        yield from _finetune(config, splits, trunk, precision, accelerator, run, stop)
    except (Interrupted, GeneratorExit):
        run.close()
        raise
    except BaseException:
        if accelerator.is_main_process:
            run.abandon()
        raise


def _finetune(
    config: RunConfig,
    splits: Splits,
    trunk: Trunk,
    precision: Precision,
    accelerator: Accelerator,
    run: RunDirectory,
    stop: Callable[[], bool],
) -> Iterator[Event]:
    """The part of a run that owns its directory."""
    backbone = trunk.backbone
    yield Stage("train", _what_is_trained(trunk))
    started = time.perf_counter()
    training = _encoded(splits, splits.train, backbone)
    tokenization = time.perf_counter() - started
    validation = _encoded(splits, splits.validation, backbone)
    accelerator.init_trackers("tensorboard")
    checkpoints = Checkpoints(run.partial / CHECKPOINTS)
    events = train(trunk, training, validation, config.training, accelerator, precision, checkpoints, stop)
    progress = yield from _recorded(events, run, accelerator)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return
    run.replace_metrics(progress.history)

    model = run.partial / "model"
    if backbone.adapter is not None:
        lora.save(backbone, run.partial / "adapter")
        lora.merge(backbone)
    backbone.save(model)
    seconds = tokenization + progress.seconds
    tuned = _score_fine_tuned(splits, backbone, precision, progress, seconds, size_bytes(model))
    yield _scored(tuned, splits)
    pretrained = _backbone(config, splits)
    baselines: list[SystemScore] = []
    for name in config.baselines:
        if stop():
            raise Interrupted("stopped after training; what is done was kept")
        yield Stage("baseline", name)
        path = run.partial / "baselines" / name
        baselines.append(_score_baseline(name, config.training.seed, splits, pretrained, precision, path))
        yield _scored(baselines[-1], splits)

    yield Stage("report", "scoring the test part")
    report = _write_report(config, splits, [*baselines, tuned], trunk, progress, precision, run)
    run.finish()
    yield Finished(run.target, report["verdict"]["sentence"])


# ---- before training


def _check_labels(config: RunConfig, splits: Splits) -> None:
    positive = config.evaluation.positive
    if positive is not None and positive not in splits.labels:
        raise ConfigError(f"evaluation.positive: no class {positive!r}; classes found: {', '.join(splits.labels)}")


def _backbone(config: RunConfig, splits: Splits) -> Backbone:
    return load_text_backbone(config.backbone, splits.labels, config.data.max_length, config.training.seed)


def _encoded(splits: Splits, part: Dataset, backbone: Backbone) -> TrainingData:
    return TrainingData(backbone.encode(column(part, "text")), splits.targets(part))


def _depth(config: RunConfig) -> Any:
    """LoRA leaves the base weights alone, so `freeze: none` with LoRA freezes the embeddings at least."""
    lora_on_all = config.adapter.type == "lora" and config.backbone.freeze == "none"
    return 0 if lora_on_all else config.backbone.freeze


def _resolved(config: RunConfig, trunk: Trunk, precision: Precision, accelerator: Accelerator, out: Path) -> RunConfig:
    """The config with every `auto` replaced by what was chosen, as it is written beside the result."""
    rate = config.training.learning_rate
    if rate == "auto":
        rate = auto_learning_rate(trunk.frozen_share, config.adapter.type == "lora")
    chosen = {"learning_rate": rate, "precision": precision, "processes": accelerator.num_processes}
    sections = {
        "training": config.training.model_copy(update=chosen),
        "backbone": config.backbone.model_copy(update={"freeze": _depth(config)}),
    }
    return config.model_copy(update=sections | {"output": out})


def _what_is_trained(trunk: Trunk) -> str:
    parameters = list(trunk.backbone.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return f"training {trained:,} of {sum(p.numel() for p in parameters):,} parameters; {_freeze_sentence(trunk)}"


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


def _score_fine_tuned(
    splits: Splits, backbone: Backbone, precision: Precision, progress: Progress, seconds: float, size: int
) -> SystemScore:
    texts = column(splits.test, "text")
    started = time.perf_counter()
    probabilities = predict_probabilities(backbone, backbone.encode(texts), precision)
    rate = len(texts) / (time.perf_counter() - started)
    details = {"best_step": progress.best_step}
    return SystemScore(FINE_TUNED, probabilities, progress.best_macro_f1, seconds, rate, size, details)


def _score_baseline(
    name: str, seed: int, splits: Splits, pretrained: Backbone, precision: Precision, path: Path
) -> SystemScore:
    """Train a baseline on the training part, or load it where an interrupted run has left it."""
    if path.exists():
        baseline = load_baseline(path, pretrained, precision)
    else:
        baseline = make_baseline(name, pretrained, precision)
        texts, targets = column(splits.train, "text"), splits.targets(splits.train)
        started = time.perf_counter()
        baseline.fit(texts, targets, np.array(column(splits.train, "group")), len(splits.labels), seed)
        baseline.details["train_seconds"] = time.perf_counter() - started
        staging = path.with_name("." + name)
        discard(staging)
        baseline.save(staging)
        staging.rename(path)
    checked = baseline.predict_probabilities(column(splits.validation, "text")).argmax(axis=1)
    validation = macro_f1(splits.targets(splits.validation), checked)
    texts = column(splits.test, "text")
    started = time.perf_counter()
    probabilities = baseline.predict_probabilities(texts)
    rate = len(texts) / (time.perf_counter() - started)
    details = dict(baseline.details)
    seconds = details.pop("train_seconds")
    return SystemScore(name, probabilities, validation, seconds, rate, size_bytes(path), details)


def _scored(system: SystemScore, splits: Splits) -> Scored:
    targets = splits.targets(splits.test)
    predicted = system.probabilities.argmax(axis=1)
    return Scored(system.name, float(np.mean(predicted == targets)), macro_f1(targets, predicted))


def _write_report(
    config: RunConfig,
    splits: Splits,
    systems: list[SystemScore],
    trunk: Trunk,
    progress: Progress,
    precision: Precision,
    run: RunDirectory,
) -> dict[str, Any]:
    """predictions.parquet, report.json, report.html and the model card. Returns the report."""
    pq.write_table(predictions(splits, systems).with_format("arrow")[:], run.partial / "predictions.parquet")
    title = run.target.name
    report = {
        "task": config.task,
        "backbone": {"name": trunk.backbone.name, "revision": trunk.backbone.weights.revision},
        "freeze_sentence": _freeze_sentence(trunk) + (", LoRA above" if config.adapter.type == "lora" else ""),
        "max_length": trunk.backbone.max_length,
        "precision": precision,
        "bootstrap": config.evaluation.bootstrap,
        "training": {"history": progress.history, "best_step": progress.best_step, "steps": progress.step},
    } | compare_systems(splits, systems, config.evaluation, config.training.seed)
    write_json(run.partial / "report.json", report)
    html = render_html(report, config.to_yaml(), title)
    (run.partial / "report.html").write_text(html, encoding="utf-8")
    (run.partial / "README.md").write_text(model_card(report, config, title), encoding="utf-8")
    return report


def predictions(splits: Splits, systems: list[SystemScore]) -> Dataset:
    """Test items with every system's label and probabilities (C values in the order of the labels)."""
    values = splits.test.remove_columns("group")[:]
    for system in systems:
        values[system.name] = [splits.labels[number] for number in system.probabilities.argmax(axis=1)]
        values[f"{system.name}/probabilities"] = system.probabilities.tolist()
    return Dataset.from_dict(values)


def _provenance(config: RunConfig, splits: Splits, backbone: Backbone, precision: Precision) -> dict[str, Any]:
    """What manifest.json says about where the run comes from."""
    parts = {n: p.path for n in ("train", "validation", "test") if isinstance(p := getattr(config.data, n), SplitFile)}
    weights = backbone.weights
    return {
        "kind": "run",
        "labels": list(splits.labels),
        "seed": config.training.seed,
        "precision": precision,
        "device": str(device()),
        "processes": config.training.processes,
        "data_sha256": {name: _data_sha256(path) for name, path in parts.items()},
        "backbone": {"name": backbone.name, "revision": weights.revision, "sha256": weights.sha256},
    }


def _data_sha256(path: Path) -> str | dict[str, str]:
    if path.is_file():
        return sha256_file(path)
    return {p.relative_to(path).as_posix(): sha256_file(p) for p in sorted(path.rglob("*")) if p.is_file()}
