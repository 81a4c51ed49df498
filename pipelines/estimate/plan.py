"""What a run will do, counted: items, optimizer steps, and the padded tokens that pass through the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.batches import epoch_batches, padded_length, token_batches
from pipelines.config import RunConfig, TrainingConfig
from pipelines.learning_curve import nested_shares
from pipelines.predict import BATCH_TOKENS
from pipelines.records import FloatArray, IntArray, Splits, column

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Epoch:
    """The optimizer steps of one epoch.

    Attributes:
        batches: (S,) arrays of item numbers.
        tokens: padded tokens of each step, (S,).
        shapes: distinct lengths T of its forward passes; what is compiled for a shape is compiled once.
    """

    batches: list[IntArray]
    tokens: FloatArray
    shapes: frozenset[int]


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        encodings: of the items of every part.
        lengths: the same in tokens.
        padded: tokens of one pass over a part, without training.
        epoch: of the run itself; that of later epochs differs in its order only.
        smaller: one for each point of the learning curve, and its number of items.
    """

    encodings: Mapping[str, Sequence[Encoding]]
    lengths: dict[str, list[int]]
    padded: dict[str, int]
    epoch: Epoch
    smaller: list[tuple[int, Epoch]]


def plan_of(config: RunConfig, splits: Splits, backbone: Backbone) -> Plan:
    """Count what a run of this config does with these items."""
    encodings = {part: backbone.encode(column(getattr(splits, part), "text")) for part in PARTS}
    lengths = {part: [backbone.length(encoding) for encoding in own] for part, own in encodings.items()}
    smaller = []
    for items in nested_shares(splits.train, config.evaluation.learning_curve, config.training.seed):
        own = [backbone.length(encoding) for encoding in backbone.encode(column(items, "text"))]
        smaller.append((len(own), epoch_of(own, config.training, backbone.max_length)))
    padded = {part: padded_tokens(own) for part, own in lengths.items()}
    return Plan(encodings, lengths, padded, epoch_of(lengths["train"], config.training, backbone.max_length), smaller)


def epoch_of(lengths: Sequence[int], config: TrainingConfig, most: int, number: int = 0) -> Epoch:
    """Epoch `number` over N items of these lengths in tokens; a text has at most `most`."""
    batches = epoch_batches(lengths, config.batch_size, config.seed, number)
    sizes = np.asarray(lengths)
    passes = [_passes(sizes[batch], config.accumulation, most) for batch in batches]
    tokens = np.array([sum(count * T for count, T in own) for own in passes], dtype=np.float64)
    return Epoch(batches, tokens, frozenset(T for own in passes for _, T in own))


def _passes(lengths: IntArray, accumulation: int, most: int) -> list[tuple[int, int]]:
    """Items and padded length T of the forward passes of one optimizer step, as `train.Loop` cuts them."""
    chunks = np.array_split(lengths, min(accumulation, len(lengths)))
    return [(len(chunk), padded_length(int(chunk.max()), most)) for chunk in chunks]


def padded_tokens(lengths: Sequence[int]) -> int:
    """Padded tokens of one pass over N items without training, as `predict` batches them."""
    sizes = np.asarray(lengths)
    batches = token_batches(lengths, BATCH_TOKENS)
    return sum(len(own) * padded_length(max(1, int(sizes[own].max())), BATCH_TOKENS) for own in batches)
