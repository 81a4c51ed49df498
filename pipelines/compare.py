"""The ladder of any models on any labelled file: the same report, nothing trained but the learning curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset

from pipelines import durable
from pipelines.activation_store import ActivationStore
from pipelines.artifacts import CHECKPOINTS, environment, predictions, refuse_existing
from pipelines.config import CURVE_SHARES, DataConfig, SplitFile
from pipelines.data import read_items
from pipelines.device import Precision, resolve_precision, start_accelerator
from pipelines.duplicates import group_items
from pipelines.durable import staged
from pipelines.errors import ConfigError, DataError, Interrupted, RunDirectoryError
from pipelines.evaluate import compare_systems
from pipelines.learning_curve import add_curve, tuned_points
from pipelines.mistakes import highlight
from pipelines.provenance import data_sha256
from pipelines.records import COMMON, Event, Finished, Splits, Stage, SystemScore, column
from pipelines.report import render_html
from pipelines.saved_run import SavedRun
from pipelines.score import predictor, score_saved, scored
from pipelines.tables import read_table, unit_of
from pipelines.weights import weights_sha256

STOPPED = "stopped; nothing was kept"


def compare(
    model_dirs: Sequence[Path],
    data: Path,
    out: Path,
    columns: dict[str, str] | None = None,
    curve: bool = True,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Iterator[Event]:
    """Score finished runs, saved baselines included, on a labelled file, and write a report.

    The verdict is about the model of the first directory; its validation part serves thresholds and calibration. Items
    that any of the runs has seen, or near duplicates of them, are left out and counted.

    Args:
        model_dirs: complete run directories. Of one, systems keep their names; of several, they become
            `<directory>/<system>`.
        data: a table with the columns that the first run was trained on.
        out: directory for the report, which must not exist.
        columns: `text` and `label` where they are called otherwise here.
        curve: train the first model again on growing shares of its items, for the learning curve.
        stop: asked between systems.
        store: of hidden states, for the learning curve.

    Raises:
        RunDirectoryError, DataError, BackboneError, ConfigError: see `errors`.
        Interrupted: after `stop`; nothing is kept.
    """
    refuse_existing(out)
    yield Stage("models", f"checking {len(model_dirs)} run{'s' * (len(model_dirs) > 1)}")
    runs = [SavedRun(path) for path in model_dirs]
    prefixes = _prefixes(runs)
    first = runs[0]
    yield Stage("data", f"reading {data}")
    splits = _splits(runs, data, columns or {})
    precision = resolve_precision("auto")

    with staged(out) as work:
        systems: list[SystemScore] = []
        for run, prefix in zip(runs, prefixes, strict=True):
            for name, rung in _rungs(run, prefix, splits, precision, run is first).items():
                if stop():
                    raise Interrupted(STOPPED)
                yield Stage("scoring", name)
                systems.append(rung())
                yield scored(systems[-1], splits)
        report = _report(runs, prefixes[0] + first.main, splits, systems, data, precision)
        highlight(report["mistakes"], splits.test, first.model())
        if curve:
            yield from _curve(report, first, splits, systems, precision, work, stop, store)
        pq.write_table(predictions(splits, systems).with_format("arrow")[:], work / "predictions.parquet")
        durable.write_json(work / "report.json", report)
        (work / "report.html").write_text(render_html(report, out.name), encoding="utf-8")
        durable.publish(work, out, _manifest(runs, data, precision))
    yield Finished(out, report["verdict"]["sentence"])


# ---- models and items


def _prefixes(runs: list[SavedRun]) -> list[str]:
    """What stands before the names of a run's systems: nothing, or as much of its path as tells the runs apart."""
    if len(runs) == 1:
        return [""]
    paths = [run.path.resolve() for run in runs]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) + "/" for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ConfigError("compare: a run directory is named twice; name each once")


def _splits(runs: list[SavedRun], data: Path, columns: dict[str, str]) -> Splits:
    """The file as test part, and the first run's own items; what any run has seen is left out of the test part."""
    first = runs[0]
    test = _read(first.config.data, data, columns)
    labels = tuple(dict.fromkeys(label for run in runs for label in run.labels))
    for label, line in zip(column(test, "label"), column(test, "line"), strict=True):
        if label not in labels:
            known = ", ".join(labels)
            raise DataError(
                data,
                f"no model knows the label {label!r}; they know: {known}; correct the row or remove it",
                line,
                unit=unit_of(data),
            )

    seen = [text for run in runs for text in column(run.seen(), "text")]
    groups = group_items([*seen, *column(test, "text")], [[*[""] * len(seen), *column(test, "group")]])
    test = Dataset.from_dict(test[:] | {"group": groups[len(seen) :].tolist()})
    fresh = np.flatnonzero(~np.isin(groups[len(seen) :], groups[: len(seen)]))
    if not len(fresh):
        raise DataError(data, "the models have seen every item in training; give a file with new ones")
    own = first.seen()
    parts = {name: _part(own, "own", name) for name in ("train", "validation")}
    counts = {"read": len(test), "left_out_because_seen_by_a_model": len(test) - len(fresh), "test": len(fresh)}
    earlier = own.select(np.flatnonzero(np.array(column(own, "origin")) == "earlier"))
    return Splits(
        **parts, test=test.select(fresh), labels=labels, counts=counts, earlier=earlier if len(earlier) else None
    )


def _read(config: DataConfig, data: Path, columns: dict[str, str]) -> Dataset:
    """The labelled file; id, group and slice columns are read where it has them."""
    found = read_table(data).columns
    slices = tuple(name for name in config.slices if name in found)
    optional = {name: None for name in ("id", "group") if getattr(config, name) not in found}
    return read_items(SplitFile(path=data), config.model_copy(update={"slices": slices} | optional | columns))


def _part(seen: Dataset, origin: str, part: str) -> Dataset:
    wanted = (np.array(column(seen, "origin")) == origin) & (np.array(column(seen, "part")) == part)
    return seen.select(np.flatnonzero(wanted)).select_columns(list(COMMON))


# ---- scores and report


def _rungs(
    run: SavedRun, prefix: str, splits: Splits, precision: Precision, own_validation: bool
) -> dict[str, Callable[[], SystemScore]]:
    """Saved baselines and the model of a run: name -> how to score it."""
    pretrained = run.pretrained()

    def rung(saved: str) -> SystemScore:
        if saved == run.main:
            predict = predictor(run.model(), precision)
        else:
            predict = run.baseline(saved, pretrained, precision).predict_probabilities
        found = score_saved(run, saved, prefix + saved, predict, splits)
        if own_validation:
            return found
        recorded = run.system(saved)["validation_macro_f1"]  # on its own validation part, which is not at hand here
        return replace(found, validation_macro_f1=recorded, validation_probabilities=None)

    return {prefix + saved: partial(rung, saved) for saved in [*run.baselines, run.main]}


def _report(
    runs: list[SavedRun], main: str, splits: Splits, systems: list[SystemScore], data: Path, precision: Precision
) -> dict[str, Any]:
    """report.json: what the first run says of itself, and the comparison."""
    first = runs[0]
    saved, config = first.report, first.config
    temperature = saved["calibration"]["temperature"], saved["calibration"]["reason"]
    slices = tuple(name for name in config.data.slices if name in splits.test.column_names)
    kept = ("task", "backbone", "start_from", "freeze_sentence", "max_length", "bootstrap", "min_gain")
    return (
        {key: saved[key] for key in kept}
        | {"precision": precision, "provenance": _manifest(runs, data, precision)}
        | compare_systems(splits, systems, main, config.evaluation, config.training.seed, temperature, slices)
    )


def _curve(
    report: dict[str, Any],
    first: SavedRun,
    splits: Splits,
    systems: list[SystemScore],
    precision: Precision,
    work: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Iterator[Event]:
    """Train the first model again on growing shares of its own items. Not possible once its `start_from` is gone."""
    config = first.config
    if config.distill is not None:
        report["no_learning_curve"] = "It was left out, since the first model had a teacher, which smaller ones lack."
        yield Stage("learning curve", "left out: the first model had a teacher")
        return
    evaluation = config.evaluation.model_copy(update={"learning_curve": CURVE_SHARES})
    try:
        start = None if config.start_from is None else _start_of(first, config.start_from)
    except (RunDirectoryError, ConfigError) as error:
        report["no_learning_curve"] = f"It was left out, since the run that the first one started from is gone: {error}"
        yield Stage("learning curve", f"left out: {error}")
        return
    accelerator = start_accelerator(precision, (), work)
    if config.backbone.cache == "off":
        store = None
    root = work / CHECKPOINTS
    again = config.model_copy(update={"evaluation": evaluation})
    try:
        smaller = yield from tuned_points(again, splits, start, precision, accelerator, root, stop, store)
    except Interrupted:  # it speaks of a checkpoint, which goes with the rest
        raise Interrupted(STOPPED) from None
    durable.discard(root)
    add_curve(report, smaller, systems, splits, evaluation, config.training.seed, first.pretrained(), precision, store)


def _start_of(run: SavedRun, path: Path) -> SavedRun:
    """The run that another one started from. Raises RunDirectoryError if it is not there, or not the same any more."""
    start = SavedRun(path)
    if weights_sha256(path / "model") != run.manifest["start_from"]["sha256"]:
        raise RunDirectoryError(f"{path}: another model stands there now than the one that {run.path} started from")
    return start


def _manifest(runs: list[SavedRun], data: Path, precision: Precision) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "models": [
            {"name": run.path.name, "sha256": run.manifest["sha256"]["model/model.safetensors"]} for run in runs
        ],
        "data_sha256": data_sha256(data),
        "precision": precision,
    } | environment()
