"""Settings that take less than those of a config, those that change least first, and what each is likely to take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from pipelines.batches import padded_length
from pipelines.config import RunConfig
from pipelines.tune import freeze_depth
from pipelines.unfreezing import why_never_opened

CUT_AT_MOST = 95  # percent of the texts that a shorter `max_length` leaves whole


@dataclass(frozen=True)
class Candidate:
    """The settings that may be changed; `accumulation` keeps the effective batch."""

    freeze: int | Literal["auto", "none", "all"]
    accumulation: int
    max_length: int
    epochs: int

    def changes(self, config: RunConfig) -> tuple[str, ...]:
        """`KEY=VALUE` of what differs from a config."""
        asked = asked_for(config)
        keys = ("backbone.freeze", "training.accumulation", "data.max_length", "training.epochs")
        own, theirs = ((c.freeze, c.accumulation, c.max_length, c.epochs) for c in (self, asked))
        return tuple(f"{key}={new}" for key, new, old in zip(keys, own, theirs, strict=True) if new != old)

    def applied(self, config: RunConfig) -> RunConfig:
        """The config with these settings."""
        training = {"accumulation": self.accumulation, "epochs": self.epochs}
        return config.model_copy(
            update={
                "backbone": config.backbone.model_copy(update={"freeze": self.freeze}),
                "training": config.training.model_copy(update=training),
                "data": config.data.model_copy(update={"max_length": self.max_length}),
            }
        )


def asked_for(config: RunConfig) -> Candidate:
    """The settings of a config."""
    training = config.training
    return Candidate(freeze_depth(config), training.accumulation, config.data.max_length, training.epochs)


def candidates(config: RunConfig, figures: dict[str, Any], memory: bool, time: bool) -> list[Candidate]:
    """All that may help, by how much they change: accumulation, which leaves what is learned as it is, then deeper
    freezing, then a length that cuts one text in twenty, the head alone, and fewer epochs last.

    Args:
        figures: of an estimate of the config.
        memory, time: what is to be less.
    """
    asked = asked_for(config)
    found = (
        Candidate(freeze, accumulation, max_length, epochs)
        for freeze, accumulation, max_length, epochs in product(
            _freezes(config, figures),
            _accumulations(config) if memory else [asked.accumulation],
            _lengths(config, figures),
            range(asked.epochs, 0, -1) if time else [asked.epochs],
        )
    )
    possible = (c for c in found if c != asked and _opens_all(config, c, figures))
    return sorted(possible, key=lambda candidate: _departure(asked, candidate, figures))


def _freezes(config: RunConfig, figures: dict[str, Any]) -> Iterator[int | Literal["auto", "none", "all"]]:
    """As it is, then deeper; the head alone where there is no LoRA, which needs a hidden layer."""
    layers, frozen = figures["hidden_layers"], figures["frozen_layers"]
    yield freeze_depth(config)
    yield from range(0 if frozen is None else frozen + 1, layers)
    if config.adapter.type == "none" and frozen != layers:
        yield "all"


def _opens_all(config: RunConfig, candidate: Candidate, figures: dict[str, Any]) -> bool:
    """Whether gradual unfreezing, if it is wanted, has something to open and epochs enough for it."""
    above = int(figures["hidden_layers"]) - max(0, _depth(candidate, figures))
    return why_never_opened(above, config.training.model_copy(update={"epochs": candidate.epochs})) is None


def _accumulations(config: RunConfig) -> list[int]:
    """As it is, twice as much, and so on, to one item a pass."""
    own, most = config.training.accumulation, config.training.batch_size
    return [own * 2**n for n in range(max(1, int(math.log2(max(1, most / own))) + 1))]


def _lengths(config: RunConfig, figures: dict[str, Any]) -> list[int]:
    """As it is, and what leaves most texts whole."""
    own, shorter = config.data.max_length, max(8, figures["tokens"][f"p{CUT_AT_MOST}"])
    return [own, shorter] if shorter < figures["tokens"]["p100"] else [own]


def _departure(asked: Candidate, candidate: Candidate, figures: dict[str, Any]) -> float:
    """How far a candidate is from what was asked for; a matter of taste, but for the order of its parts."""
    deeper = _depth(candidate, figures) - _depth(asked, figures)
    return (
        0.5 * math.log2(candidate.accumulation / asked.accumulation)
        + 2 * deeper
        + 4 * (candidate.freeze == "all" and deeper > 0)
        + 3 * (candidate.max_length < asked.max_length)
        + 20 * (asked.epochs - candidate.epochs)
    )


def _depth(candidate: Candidate, figures: dict[str, Any]) -> int:
    """Frozen hidden layers; -1 where the embeddings are trained too."""
    if candidate.freeze == "none":
        return -1
    return int(figures["hidden_layers"]) if candidate.freeze == "all" else int(candidate.freeze)


def predicted(config: RunConfig, candidate: Candidate, figures: dict[str, Any]) -> tuple[float, float]:
    """Memory in MiB and seconds of a whole run, roughly: a layer that is trained counts three times one that is not.

    Args:
        figures: of an estimate of the config.
    """
    asked, layers = asked_for(config), int(figures["hidden_layers"])
    before, now = (layers - _depth(c, figures) + 1 for c in (asked, candidate))
    text = _mean(candidate.max_length, figures) / _mean(asked.max_length, figures)
    longest = _largest(config, candidate, figures) / _largest(config, asked, figures)
    base = figures["memory_before_mib"]
    memory = base + (figures["peak_memory_mib"]["value"] - base) * longest * now / before

    seconds, epochs = figures["seconds"], candidate.epochs / asked.epochs
    repeated = sum(seconds[part] for part in ("steps", "validation", "checkpoints", "learning curve"))
    once = seconds["hidden states"]
    depths = [max(0, _depth(c, figures)) for c in (asked, candidate)]
    if depths[0]:
        once *= depths[1] / depths[0]
    elif depths[1]:  # nothing was kept; now that is computed once
        once += seconds["steps"] / asked.epochs / (3 * before) * depths[1]
    rest = sum(seconds[part] for part in ("setup", "classification", "baselines", "report"))
    return memory, text * (repeated * epochs * now / before + once) + rest


def _mean(max_length: int, figures: dict[str, Any]) -> float:
    """Tokens of a text on average, if texts are cut there, from the quantiles of their lengths."""
    tokens = figures["tokens"]
    halves: list[tuple[float, float]] = [(0.5, tokens["p50"] / 2), (0.45, (tokens["p50"] + tokens["p95"]) / 2)]
    halves.append((0.05, (tokens["p95"] + tokens["p100"]) / 2))
    return max(1.0, sum(share * min(max_length, length) for share, length in halves))


def _largest(config: RunConfig, candidate: Candidate, figures: dict[str, Any]) -> int:
    """Padded tokens of the largest forward pass."""
    longest = min(candidate.max_length, figures["tokens"]["p100"])
    items = math.ceil(config.training.batch_size / candidate.accumulation)
    return items * padded_length(longest, candidate.max_length)
