"""Measured parts -> the figures of an estimate, each with its error."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.baselines.base import EMBEDDINGS
from pipelines.check.section import MOST
from pipelines.config import RunConfig
from pipelines.device import device, process_count
from pipelines.estimate.miniature import Miniature
from pipelines.estimate.pace import Pace
from pipelines.estimate.plan import Plan
from pipelines.estimate.regressions import Fits
from pipelines.estimate.states import States
from pipelines.hidden_layers import section
from pipelines.intervals import Bootstrap
from pipelines.keep_or_recompute import Choice
from pipelines.mistakes import COMPARED
from pipelines.records import CLIENT, Splits, column

MIB = 2**20
DRIFT = 0.15  # by which the same run differs from one time to the next
FIT_ERROR = 0.3  # of what regressions take, where only some items were fitted
SIZE_ERROR = 0.1  # of memory and disk
VOCABULARY = 0.7  # a vocabulary grows with this power of the number of texts (Heaps' law)


@dataclass(frozen=True)
class Measured:
    """All that the figures are made of; times in seconds.

    Attributes:
        setup: reading data, loading, choosing, as the run itself does.
        prepare: of it, loading the model, as every point of a learning curve does.
        encode: tokenizing the training items.
        memory: bytes that were resident before the small run: libraries, data, model.
        layers: hidden layers, L.
    """

    splits: Splits
    plan: Plan
    small: Miniature
    pace: Pace
    fits: Fits
    states: States
    choice: Choice
    setup: float
    prepare: float
    encode: float
    memory: int
    layers: int

    def times_as_many(self, *parts: str) -> float:
        """Padded tokens of these parts over those of the miniature."""
        return sum(self.plan.padded[p] for p in parts) / sum(self.small.plan.padded[p] for p in parts)


def figure(value: float, error: float) -> dict[str, float]:
    """A value with its interval."""
    return {"value": value, "low": max(0.0, value - error), "high": value + error}


def figures_of(config: RunConfig, found: Measured) -> dict[str, Any]:
    """Items, tokens, times, memory and disk, as JSON."""
    lengths = found.plan.lengths["train"]
    seconds = seconds_of(config, found)
    error = found.pace.seconds(found.plan.epoch, config.training.epochs)[1]
    train, whole = _before(found) + seconds["steps"], sum(seconds.values())
    fit_error = FIT_ERROR * seconds["baselines"] * (found.fits.scale > 1)
    memory = (found.small.systems[found.small.main]["peak_memory_bytes"] + found.states.mapped_bytes) / MIB
    return {
        "items": {part: len(own) for part, own in found.plan.lengths.items()},
        "tokens": {f"p{q}": int(np.percentile(lengths, q)) for q in (50, 95, 100)},
        "steps": config.training.epochs * len(found.plan.epoch.batches),
        "store": found.small.store,
        "store_reason": found.choice.sentence,
        "train_seconds": figure(train, float(np.hypot(error, DRIFT * train))),
        "whole_seconds": figure(whole, float(np.linalg.norm([error, fit_error, DRIFT * whole]))),
        "seconds": seconds,
        "peak_memory_mib": figure(memory, SIZE_ERROR * memory),
        "memory_before_mib": found.memory / MIB,
        "disk_mib": {name: figure(size / MIB, SIZE_ERROR * size / MIB) for name, size in _disk(config, found).items()},
        "errors": _errors(config, found),
    }


def _errors(config: RunConfig, found: Measured) -> list[str]:
    """What the intervals cover, and what they do not."""
    said = [
        f"The interval of a time covers the spread of {found.pace.measured} measured optimizer steps and the "
        f"{DRIFT:.0%} by which the same run differs from one time to the next; other load on this machine is in "
        "neither, nor is the start of the program.",
        f"Memory is what the process holds at most while it trains, within {SIZE_ERROR:.0%}; disk is without what "
        "stands there already.",
    ]
    if found.fits.scale > 1:
        said.append(f"The regressions were fitted to some of the items and scaled: {FIT_ERROR:.0%} of their time.")
    if config.training.patience is not None:
        said.append("All epochs are counted; with training.patience there may be fewer.")
    if device().type != "cpu":
        said.append("The memory of the GPU is not in it.")
    wanted = config.training.processes
    count = process_count() if wanted == "auto" else wanted
    if count > 1:
        said.append(f"One process was measured; the run would have {count}, which share its steps.")
    return said


def seconds_of(config: RunConfig, found: Measured) -> dict[str, float]:
    """Seconds of every part of a run, from reading the data to the finished directory."""
    plan, small, epochs = found.plan, found.small, config.training.epochs
    own = small.before - found.encode * _share(found)
    return {
        "setup": found.setup,
        "hidden states": _before(found) + max(0.0, own) * found.states.fill_validation,
        "steps": found.pace.seconds(plan.epoch, epochs)[0],
        "validation": epochs * small.validation * found.times_as_many("validation"),
        "checkpoints": _saves(config, len(plan.epoch.batches)) * small.checkpoint,
        "learning curve": sum(_point(config, found, number) for number in range(len(plan.smaller))),
        "classification": _classification(found),
        "baselines": small.load + sum(_baseline(found, name) for name in small.baselines),
        "report": _report(config, found),
    }


def _share(found: Measured) -> float:
    """Training items of the miniature over all."""
    return len(found.small.splits.train) / len(found.splits.train)


def _before(found: Measured) -> float:
    """Before the first step: tokenization, and the hidden states that the store lacks."""
    states = max(0.0, found.small.before - found.encode * _share(found))
    return found.encode + states * found.states.fill


def _saves(config: RunConfig, steps: int) -> int:
    """Checkpoints of a training with so many steps an epoch."""
    training = config.training
    return training.epochs + (training.epochs * steps // training.checkpoint_steps if training.checkpoint_steps else 0)


def _answers(found: Measured) -> tuple[float, float]:
    """Seconds in which the new model answers the whole validation and the whole test part."""
    small = found.small
    test = len(small.splits.test) / small.systems[small.main]["items_per_second"]
    per_token = test / small.plan.padded["test"]
    return per_token * found.plan.padded["validation"], per_token * found.plan.padded["test"]


def _classification(found: Measured) -> float:
    """The validation part twice, the test part once, and what does not depend on items: saving, calibration."""
    validation, test = _answers(found)
    own = 2 * validation / found.times_as_many("validation") + test / found.times_as_many("test")
    return max(0.0, found.small.classify - own) + 2 * validation + test


def _baseline(found: Measured, name: str) -> float:
    """Fitting a baseline, where this run does, and its answers for the validation and the test part."""
    small, kind = found.small, name.removesuffix(CLIENT)
    fitted = kind in found.fits.seconds and (found.splits.earlier is None or name.endswith(CLIENT))
    answers = small.baselines[name] - (small.systems[name]["train_seconds"] if fitted else 0.0)
    fit = found.fits.seconds[kind] + (found.fits.embedding if kind == EMBEDDINGS else 0.0) if fitted else 0.0
    return fit + max(0.0, answers) * found.times_as_many("validation", "test")


def _point(config: RunConfig, found: Measured, number: int) -> float:
    """One point of the learning curve: the model, and the rival, which is the mean of the regressions here."""
    items, epoch = found.plan.smaller[number]
    epochs, share, small = config.training.epochs, items / len(found.splits.train), found.small
    steps = epochs * float(found.pace.line(epoch.tokens).sum())
    scored = small.validation * found.times_as_many("validation") + small.checkpoint
    rival = float(np.mean(list(found.fits.seconds.values()))) if found.fits.seconds else 0.0
    return found.prepare + share * (found.encode + rival) + steps + epochs * scored + _answers(found)[1]


def _report(config: RunConfig, found: Measured) -> float:
    """The miniature's report, and what larger parts add: the bootstrap of every system, calibration's, and passes over
    what the sections on hidden layers, data and nearest items look at.
    """
    systems = len(found.small.systems) + 1
    points = 2 * (len(found.plan.smaller) + 1) if found.plan.smaller else 0
    whole, own = (_bootstrap(config, splits) for splits in (found.splits, found.small.splits))
    per_token = _answers(found)[1] / found.plan.padded["test"]
    looked_at = per_token * (_looked_at(found.plan, found.layers) - _looked_at(found.small.plan, found.layers))
    return found.small.report + systems * max(0.0, whole - own) + points * whole + max(0.0, looked_at)


def _looked_at(plan: Plan, layers: int) -> float:
    """Padded tokens that those sections pass through the model."""

    def tokens(part: str, *most: int) -> float:
        n = len(plan.lengths[part])
        return plan.padded[part] / n * sum(min(n, each) for each in most)

    train = tokens("train", section.PROBED, COMPARED, MOST)
    left_out = (layers + 1) * tokens("validation", section.LEFT_OUT)
    return train + tokens("validation", section.PROBED) + left_out + 2 * tokens("test", section.MAPPED)


def _bootstrap(config: RunConfig, splits: Splits) -> float:
    """Seconds of one system's resamples."""
    targets, groups = splits.targets(splits.test), np.array(column(splits.test, "group"))
    started = time.perf_counter()
    Bootstrap(targets, groups, len(splits.labels), config.evaluation.bootstrap, config.training.seed).scores(targets)
    return time.perf_counter() - started


def _disk(config: RunConfig, found: Measured) -> dict[str, float]:
    """Bytes of the finished directory, of it and all checkpoints while it is made, and of what the store gains."""
    small, saved = found.small, found.small.checkpoint_bytes
    seen = sum(len(getattr(found.splits, part)) for part in ("train", "validation"))
    own = sum(len(getattr(small.splits, part)) for part in ("train", "validation"))
    growth = {
        "baselines": found.fits.scale**VOCABULARY if found.fits.scale > 1 else 1.0,
        "predictions.parquet": len(found.splits.test) / len(small.splits.test),
        "training_items.parquet": seen / own,
    }
    run = sum(size * growth.get(name, 1.0) for name, size in small.run_bytes.items())
    points = len(found.plan.smaller)
    saving = (2 if _saves(config, len(found.plan.epoch.batches)) > 1 else 1) * saved  # the old goes after the new
    curve = (points + 2) * saved if points else 0.0
    return {
        "run": run,
        "while_running": max(saving, curve, run + (1 + points) * saved),
        "store": found.states.new_bytes + found.fits.store_bytes,
    }
