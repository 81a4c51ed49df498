"""Would more labels help? Fine-tuned system and rival at growing shares of the training part, on the same test items.

Shares are nested, stratified and cut between groups. Every point is trained by the recipe of the run, on the same
validation part; the last point is the run itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from datasets import Dataset
from sklearn.utils import resample

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import EvaluationConfig, RunConfig
from pipelines.data import labels_of_groups
from pipelines.device import Precision
from pipelines.duplicates import number_by
from pipelines.intervals import Bootstrap, interval
from pipelines.metrics import macro_f1
from pipelines.predict import predict_probabilities
from pipelines.records import CLIENT, Event, IntArray, Splits, Stage, Step, SystemScore, column
from pipelines.saved_run import SavedRun
from pipelines.score import all_trained_on, trained_baseline
from pipelines.tune import finished_model, prepare, tune
from pipelines.verdict import find_rival

HELPS = 0.005  # macro-F1 gained by the last step from which more labels are said to help


@dataclass(frozen=True)
class SmallerRun:
    """A model trained on some of the training items, and its predictions (N,) on the test part."""

    items: Dataset
    predicted: IntArray


@dataclass(frozen=True)
class CurvePoint:
    """Predictions (N,) on the test part of a system trained on `items` new items."""

    system: str
    items: int
    predicted: IntArray


def nested_shares(items: Dataset, shares: tuple[float, ...], seed: int) -> list[Dataset]:
    """A part of the training items for every share; each holds the one before it. Groups stay whole.

    A share is left out if a class would be missing in it, or if it is no smaller than the next.
    """
    groups = np.array(column(items, "group"))
    labels = np.array(column(items, "label"))
    members = labels_of_groups(groups, labels)
    names = np.array(sorted(members))
    strata = number_by([tuple(sorted(members[group])) for group in names.tolist()])
    parts: list[Dataset] = []
    pool = names
    for share in sorted(shares, reverse=True):
        size = max(1, round(share * len(names)))
        own = strata[np.searchsorted(names, pool)]
        pool = np.sort(resample(pool, replace=False, n_samples=min(size, len(pool)), stratify=own, random_state=seed))
        chosen = np.flatnonzero(np.isin(groups, pool))
        smaller = len(chosen) < len(parts[-1] if parts else items)
        if smaller and set(labels[chosen]) == set(labels):
            parts.append(items.select(chosen))
    return parts[::-1]


def learning_curve_section(
    points: list[CurvePoint], systems: Sequence[str], splits: Splits, min_gain: float, resamples: int, seed: int
) -> dict[str, Any]:
    """The curve of the fine-tuned system and of its rival, and what it says about more labels.

    Args:
        points: of both systems, the whole training part included.
        systems: name of the fine-tuned system, and of its rival if there is one.
        splits: for the test targets.
        min_gain: macro-F1 worth having: below it more labels are said not to help.
        resamples, seed: of the bootstrap.
    """
    targets = splits.targets(splits.test)
    groups = np.array(column(splits.test, "group"))
    bootstrap = Bootstrap(targets, groups, len(splits.labels), resamples, seed)
    curves = []
    for name in systems:
        own = sorted((point for point in points if point.system == name), key=lambda point: point.items)
        resampled = [bootstrap.scores(point.predicted)["macro_f1"] for point in own]
        rows = [
            {"items": p.items, "macro_f1": macro_f1(targets, p.predicted), "macro_f1_ci": interval(values)}
            for p, values in zip(own, resampled, strict=True)
        ]
        curves.append({"system": name, "points": rows, "last_step": _last_step(rows, resampled, bootstrap)})
    more_labels, sentence = _reading(curves[0], min_gain)
    return {
        "curves": curves,
        "more_labels": more_labels,
        "sentence": sentence,
        "caveat": "One training per point: the intervals cover the choice of test items, not of training items or "
        "seed. What comes after the last point is an extrapolation.",
    }


def tuned_points(
    config: RunConfig,
    splits: Splits,
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    checkpoints: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, list[SmallerRun]]:
    """Fine-tune on every share of the training part by the recipe of the run. All processes must call this alike.

    Args:
        config: resolved; `evaluation.learning_curve` says the shares.
        checkpoints: root of one directory per point; a point that is done there is not trained again.
        store: of hidden states, see `tune`.
    """
    smaller = []
    for items in nested_shares(splits.train, config.evaluation.learning_curve, config.training.seed):
        yield Stage("learning curve", f"training on {len(items):,} items")
        accelerator.free_memory()  # of the model before, whose optimizer it would also ask about skipped steps
        trunk = prepare(config, splits.labels, start)
        saved = Checkpoints(checkpoints / str(len(items)))
        events = tune(trunk, splits, items, config, accelerator, precision, saved, stop, store)
        yield from (event for event in events if isinstance(event, Step | Stage))
        backbone = finished_model(trunk)
        if accelerator.is_main_process:
            probabilities = predict_probabilities(backbone, backbone.encode(column(splits.test, "text")), precision)
            smaller.append(SmallerRun(items, probabilities.argmax(axis=1)))
    return smaller


def add_curve(
    report: dict[str, Any],
    smaller: list[SmallerRun],
    systems: list[SystemScore],
    splits: Splits,
    config: EvaluationConfig,
    seed: int,
    pretrained: Backbone,
    precision: Precision,
    store: ActivationStore | None,
) -> None:
    """Put the section `learning_curve` into a report, if there are smaller runs. The rival is trained on each share."""
    if not smaller:
        return
    by_name = {system.name: system for system in systems}
    main = by_name[report["main"]]
    rival = find_rival([system for system in systems if system.trained_on == main.trained_on], main)
    texts = column(splits.test, "text")
    points = []
    for run in smaller:
        points.append(CurvePoint(main.name, len(run.items), run.predicted))
        if rival is not None:
            kind = rival.name.rpartition("/")[2].removesuffix(CLIENT)
            items = all_trained_on(replace(splits, train=run.items))
            baseline = trained_baseline(kind, items, splits, pretrained, precision, seed, store)
            points.append(CurvePoint(rival.name, len(run.items), baseline.predict_probabilities(texts).argmax(axis=1)))
    whole = [main] if rival is None else [main, rival]
    points += [CurvePoint(s.name, len(splits.train), s.probabilities.argmax(axis=1)) for s in whole]
    names = tuple(system.name for system in whole)
    report["learning_curve"] = learning_curve_section(points, names, splits, config.min_gain, config.bootstrap, seed)


def _last_step(rows: list[dict[str, Any]], resampled: list[Any], bootstrap: Bootstrap) -> dict[str, Any] | None:
    """What the last growth of the training part gained, as a paired difference."""
    if len(rows) < 2:
        return None
    gain = rows[-1]["macro_f1"] - rows[-2]["macro_f1"]
    ci = bootstrap.difference(resampled[-1], resampled[-2], gain)
    return {"from": rows[-2]["items"], "to": rows[-1]["items"], "gain": gain, "gain_ci": ci}


def _reading(curve: dict[str, Any], min_gain: float) -> tuple[str, str]:
    step = curve["last_step"]
    if step is None:
        return "unclear", "Unclear whether more labels would help: there are too few to train on less."
    low, high = step["gain_ci"]
    found = (
        f"the step from {step['from']:,} to {step['to']:,} training items changed macro-F1 by "
        f"{100 * step['gain']:+.1f} points (95% interval {100 * low:+.1f} to {100 * high:+.1f})"
    )
    if low > HELPS:
        return "would help", f"More labels would help: {found}."
    if high < min_gain:
        return "would not help", f"More labels would not help much: {found}."
    return "unclear", f"Unclear whether more labels would help: {found}."
