"""Batches of items of similar length, the same for any number of processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from pipelines.records import FloatArray, IntArray

MULTIPLE = 8  # tokens; lengths of batches are multiples of it


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """The global batches of one epoch: every item once, shuffled, items of similar length together.

    Args:
        lengths: N sizes in tokens.
        batch_size: items per optimizer step over all processes; the last batch may be smaller.
        seed, epoch: the order is a function of these two.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
    order = np.array(list(LengthGroupedSampler(batch_size, lengths=list(lengths), generator=generator)))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def balanced_draw(targets: IntArray, seed: int, epoch: int) -> IntArray:
    """N item numbers drawn with replacement, every class as likely as any other: what one epoch trains on, (N,).

    Args:
        targets: (N,) class numbers.
        seed, epoch: the draw is a function of these two.
    """
    chances = 1 / np.bincount(targets)[targets]
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch, 1))
    return np.array(list(WeightedRandomSampler(chances.tolist(), len(targets), generator=generator)))


def share(batch: IntArray, weights: FloatArray, rank: int, world: int) -> tuple[IntArray, FloatArray]:
    """This process's items of a global batch and the weights of their losses.

    All processes get equally many items, as the gradient exchange needs; a filler item has no weight.

    Args:
        batch: (B,) item numbers.
        weights: (B, K) weights of K losses.
        rank, world: this process and how many there are.
    """
    size = -(-len(batch) // world)
    own, own_weights = batch[rank::world], weights[rank::world]
    filler = size - len(own)
    return np.concatenate([own, batch[:filler]]), np.concatenate([own_weights, np.zeros((filler, weights.shape[1]))])


def padded_length(longest: int, most: int) -> int:
    """T of a batch, in tokens: few different ones, since oneDNN compiles a matrix product for every shape and keeps it
    (https://uxlfoundation.github.io/oneDNN/dev_guide_primitive_cache.html).

    Measured (`benchmarks.training`, k = 4): 2,238 MiB at most where T was the longest item's, 1,429 in multiples of 8.

    Args:
        longest: item of the batch.
        most: what the model takes; T is not more, unless an item is.
    """
    return longest if longest <= MULTIPLE else min(-(-longest // MULTIPLE) * MULTIPLE, max(longest, most))


def token_batches(lengths: Sequence[int], most_tokens: int) -> list[IntArray]:
    """Item numbers sorted by length, longest first, in batches of at most `most_tokens` padded tokens."""
    batches: list[IntArray] = []
    order = np.argsort(np.asarray(lengths), kind="stable")[::-1]
    start = 0
    while start < len(order):
        size = max(1, most_tokens // padded_length(max(1, lengths[order[start]]), most_tokens))
        batches.append(order[start : start + size])
        start += size
    return batches


def stream_seed(*path: int) -> int:
    """An independent seed for a place in a run, such as (seed, step, rank). Nothing has to be stored to resume."""
    return int(np.random.SeedSequence(path).generate_state(1)[0])
