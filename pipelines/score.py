"""A trained system -> its SystemScore: probabilities on validation and test, and what it costs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from pipelines.activation_store import ActivationStore
from pipelines.artifacts import size_bytes
from pipelines.backbones import Backbone
from pipelines.baselines import Baseline, load_baseline, make_baseline
from pipelines.device import Precision
from pipelines.durable import discard
from pipelines.memory import PeakMemory
from pipelines.metrics import macro_f1
from pipelines.predict import predict_probabilities
from pipelines.records import COMMON, Costs, FloatArray, Scored, Splits, SystemScore, column
from pipelines.saved_run import SavedRun

Predict = Callable[[Sequence[str]], FloatArray]


def predictor(backbone: Backbone, precision: Precision) -> Predict:
    """Texts -> probabilities (N, C) of a fine-tuned model."""
    return lambda texts: predict_probabilities(backbone, backbone.encode(texts), precision)


def score(
    name: str,
    predict: Predict,
    labels: Sequence[str],
    splits: Splits,
    trained_on: int,
    details: dict[str, Any],
    training: dict[str, Any],
    size: int,
) -> SystemScore:
    """Predict validation and test once.

    Args:
        predict: texts -> probabilities of `labels`.
        labels: the system's classes, some or all of `splits.labels` in any order.
        trained_on, details: see SystemScore.
        training: train_seconds and peak_memory_bytes.
        size: bytes on disk.
    """
    validation = _in_order(predict(column(splits.validation, "text")), labels, splits.labels)
    texts = column(splits.test, "text")
    started = time.perf_counter()
    probabilities = _in_order(predict(texts), labels, splits.labels)
    rate = len(texts) / (time.perf_counter() - started)
    reached = macro_f1(splits.targets(splits.validation), validation.argmax(axis=1))
    costs = Costs(training["train_seconds"], rate, size, training["peak_memory_bytes"], training.get("store", "off"))
    return SystemScore(name, probabilities, reached, trained_on, costs, validation, details)


def score_saved(run: SavedRun, saved: str, name: str, predict: Predict, splits: Splits) -> SystemScore:
    """Score a system of an earlier run under a name of this one; what it cost to train is in that run's report."""
    system = run.system(saved)
    trained_on, details, size = system["trained_on"], system["details"], system["size_bytes"]
    return score(name, predict, run.labels, splits, trained_on, details, system, size)


def fit_baseline(
    name: str,
    kind: str,
    items: Dataset,
    splits: Splits,
    pretrained: Backbone,
    precision: Precision,
    seed: int,
    path: Path,
    store: ActivationStore | None,
) -> SystemScore:
    """Train a baseline, save it at `path`, score it; or load it where an interrupted run has left it.

    Args:
        name: of the system.
        kind: as in `RunConfig.baselines`.
        items: what it is trained on.
        store: of hidden states, for a baseline on embeddings.
    """
    if path.exists():
        baseline = load_baseline(path, pretrained, precision)
    else:
        baseline = trained_baseline(kind, items, splits, pretrained, precision, seed, store)
        staging = path.with_name("." + path.name)
        discard(staging)
        baseline.save(staging)
        staging.rename(path)
    details = dict(baseline.details)
    training = {key: details.pop(key) for key in ("train_seconds", "peak_memory_bytes")}
    training["store"] = details.pop("store", "off")
    size = size_bytes(path)
    return score(name, baseline.predict_probabilities, splits.labels, splits, len(items), details, training, size)


def keep_baseline(
    run: SavedRun, saved: str, name: str, splits: Splits, pretrained: Backbone, precision: Precision, path: Path
) -> SystemScore:
    """Score a baseline of an earlier run as it is, and copy it to `path`."""
    if not path.exists():
        staging = path.with_name("." + path.name)
        discard(staging)
        shutil.copytree(run.path / "baselines" / saved, staging)
        staging.rename(path)
    baseline = run.baseline(saved, pretrained, precision)
    return score_saved(run, saved, name, baseline.predict_probabilities, splits)


def trained_baseline(
    kind: str,
    items: Dataset,
    splits: Splits,
    pretrained: Backbone,
    precision: Precision,
    seed: int,
    store: ActivationStore | None,
) -> Baseline:
    """A baseline fitted to some items; its details say how long that took and how much memory."""
    baseline = make_baseline(kind, pretrained, precision, store)
    texts, targets, groups = column(items, "text"), splits.targets(items), np.array(column(items, "group"))
    started = time.perf_counter()
    with PeakMemory() as peak:
        baseline.fit(texts, targets, groups, len(splits.labels), seed)
    baseline.details |= {"train_seconds": time.perf_counter() - started, "peak_memory_bytes": peak.bytes}
    return baseline


def scored(system: SystemScore, splits: Splits) -> Scored:
    """The event that says how a system did on the test part."""
    targets = splits.targets(splits.test)
    predicted = system.probabilities.argmax(axis=1)
    return Scored(system.name, float(np.mean(predicted == targets)), macro_f1(targets, predicted))


def all_trained_on(splits: Splits) -> Dataset:
    """Everything that the model of this run has learned from: the items of `start_from`'s runs and the new ones."""
    if splits.earlier is None:
        return splits.train
    trained = np.flatnonzero(np.array(column(splits.earlier, "part")) == "train")
    parts = splits.earlier.select(trained), splits.train
    return concatenate_datasets([part.select_columns(list(COMMON)) for part in parts])


def _in_order(probabilities: FloatArray, known: Sequence[str], labels: Sequence[str]) -> FloatArray:
    """Columns (N, known) -> (N, C) in the order of `labels`; a class that the system does not know gets 0."""
    own = known[: probabilities.shape[1]]  # of a continued run's classes, an earlier system knows the first
    ordered = np.zeros((len(probabilities), len(labels)))
    ordered[:, [labels.index(label) for label in own]] = probabilities
    return ordered
