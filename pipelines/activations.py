"""The hidden states at the cut of these items: computed once and kept, or computed anew for every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from pipelines.activation_store import KEY_BYTES, ActivationStore, States
from pipelines.backbones.base import Encoding
from pipelines.batches import padded_length
from pipelines.device import device
from pipelines.errors import Interrupted, StoreError
from pipelines.lower_layers import STATE_TOKENS, LowerLayers
from pipelines.records import Event, IntArray, Stage

FILE_BYTES = 64 << 20  # states in memory before they are written


class Computed:
    """States that are computed for every batch."""

    def __init__(self, lower: LowerLayers, encodings: Sequence[Encoding]) -> None:
        self.lower = lower
        self.encodings = encodings

    def batch(self, numbers: IntArray, at_least: int = 0) -> torch.Tensor:
        """See `StateSource`."""
        return self.lower([self.encodings[i] for i in numbers], at_least=at_least)


class Kept:
    """States that are read from the store.

    Args:
        states: of all keys.
        keys: N.
        computed: how many of them were not in the store before.
    """

    def __init__(self, states: States, keys: Sequence[bytes], computed: int) -> None:
        self.states = states
        self.keys = keys
        self.computed = computed

    def batch(self, numbers: IntArray, at_least: int = 0) -> torch.Tensor:
        """See `StateSource`."""
        return _padded([self.states[self.keys[i]] for i in numbers], at_least).to(device())


def content_key(lower: LowerLayers, encoding: Encoding) -> bytes:
    """What an item is found by: a digest of its content, whatever its text, place or data set."""
    return hashlib.blake2b(lower.backbone.content(encoding), digest_size=KEY_BYTES).digest()


def lacking(lower: LowerLayers, encodings: Sequence[Encoding], store: ActivationStore) -> list[Encoding]:
    """Those of N items, each content once, whose states are not kept yet."""
    own = {content_key(lower, encoding): encoding for encoding in encodings}
    states = store.read(lower.fingerprint, own)
    return [encoding for key, encoding in own.items() if key not in states]


def filling_work(
    lower: LowerLayers, encodings: Sequence[Encoding], store: ActivationStore | None, begun: int = 0
) -> float:
    """What `kept` would compute for N items, in tokens through all layers; padding and filling up included.

    Args:
        store: what it has, at this depth or below, is not computed again; None: an empty one.
        begun: a depth at which all states will be there.
    """
    missing = {content_key(lower, encoding): encoding for encoding in encodings}
    depths = dict.fromkeys(missing, begun)
    if store is not None:
        missing = {content_key(lower, encoding): encoding for encoding in lacking(lower, encodings, store)}
        found = _depths(missing, _lower_states(lower, missing, store))
        depths = {key: max(begun, depth) for key, depth in found.items()}
    batches = _batches(lower, missing, depths)
    return sum(len(batch.keys) * batch.tokens * (1 - batch.depth / lower.depth) for batch in batches)


def kept(
    lower: LowerLayers,
    encodings: Sequence[Encoding],
    store: ActivationStore,
    accelerator: Accelerator | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Event, None, Kept]:
    """The states of N items; those that the store lacks are computed and kept.

    Several processes share the work: each computes other batches; all read everything.

    Args:
        accelerator: all its processes must call this alike.
        stop: asked after every batch; what was computed is kept.

    Raises:
        StoreError: they cannot be kept, in any of the processes.
        Interrupted: after `stop`.
    """
    keys = [content_key(lower, encoding) for encoding in encodings]
    states = store.read(lower.fingerprint, keys)
    missing = {key: encoding for key, encoding in zip(keys, encodings, strict=True) if key not in states}
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    if world > 1:  # all must see the same gaps, and one may have read what another has just written
        missing = _union(gather_object([list(missing.items())]))
    if missing:
        yield Stage("store", f"computing the hidden states of {len(missing):,} items")
        trouble, stopped = yield from _fill(lower, missing, store, rank, world, stop)
        if world > 1:
            outcomes = gather_object([(trouble, stopped)])
            trouble = next((text for text, _ in outcomes if text), None)
            stopped = any(flag for _, flag in outcomes)
        if stopped:
            raise Interrupted("stopped while hidden states were being computed; what was computed is kept")
        if trouble:
            raise StoreError(trouble)
        states = store.read(lower.fingerprint, keys)
        complete = all(key in states for key in keys)
        if not (complete if world == 1 else all(gather_object([complete]))):
            raise StoreError(f"{store.root}: hidden states were dropped while they were being computed")
    return Kept(states, keys, len(missing))


def _union(parts: list[list[tuple[bytes, Encoding]]]) -> dict[bytes, Encoding]:
    return dict(sorted((pair for part in parts for pair in part), key=lambda pair: pair[0]))


def _fill(
    lower: LowerLayers,
    missing: dict[bytes, Encoding],
    store: ActivationStore,
    rank: int,
    world: int,
    stop: Callable[[], bool],
) -> Generator[Event, None, tuple[str | None, bool]]:
    """Compute and write this process's share. Returns what went wrong with the store, if anything; and if stopped."""
    below = _lower_states(lower, missing, store)
    begun = _depths(missing, below)
    if world > 1:  # all must cut the same batches
        found = gather_object([begun])
        begun = {key: depth if all(own[key] == depth for own in found) else 0 for key, depth in begun.items()}
    try:
        keys: list[bytes] = []
        rows: list[torch.Tensor] = []
        size = done = 0
        for batch in list(_batches(lower, missing, begun))[rank::world]:
            there = [below[batch.depth][key] for key in batch.keys] if batch.depth else []
            start = (batch.depth, _padded(there, batch.tokens)) if there else None
            states = lower([missing[key] for key in batch.keys], start, batch.tokens).cpu()
            new = batch.keys[: batch.new]
            keys += new
            rows += [_kept_rows(lower, missing[key], row).clone() for key, row in zip(new, states, strict=False)]
            size += sum(row.nbytes for row in rows[-len(new) :])
            stopping = stop()
            if stopping or size >= FILE_BYTES:
                store.write(lower.fingerprint, lower.ingredients, keys, rows)
                done += len(keys)
                keys, rows, size = [], [], 0
                yield Stage("store", f"{min(done * world, len(missing)):,} of {len(missing):,} items")
            if stopping:
                return None, True
        if keys:
            store.write(lower.fingerprint, lower.ingredients, keys, rows)
    except StoreError as error:
        return str(error), False
    return None, False


def _lower_states(lower: LowerLayers, missing: dict[bytes, Encoding], store: ActivationStore) -> dict[int, States]:
    """What the store has of the items at depths below this one, the deepest first."""
    found: dict[int, States] = {}
    wanted = set(missing)
    for depth in range(lower.depth if lower.kind != "tokens" else lower.depth - 1, 0, -1):
        found[depth] = store.read(lower.fingerprint_at(depth), wanted)
        wanted = {key for key in wanted if key not in found[depth]}
    return found


def _depths(missing: Iterable[bytes], below: dict[int, States]) -> dict[bytes, int]:
    """At which depth below the states of every item are there; 0: nowhere."""
    return {key: next((depth for depth, states in below.items() if key in states), 0) for key in missing}


def _kept_rows(lower: LowerLayers, encoding: Encoding, states: torch.Tensor) -> torch.Tensor:
    """What is kept of an item's states: those of its own tokens, or the one row (1, D)."""
    return states[: lower.backbone.length(encoding)] if lower.kind == "tokens" else states


def _padded(rows: Sequence[torch.Tensor], at_least: int) -> torch.Tensor:
    """Rows of (t, D) as (B, T, D), zeros behind each; T is not less than `at_least`."""
    states = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    return nn.functional.pad(states, (0, 0, 0, max(0, at_least - states.shape[1])))


@dataclass(frozen=True)
class _Batch:
    """Items of one shape; `keys` is filled up to the fixed size with items that are already in it."""

    keys: list[bytes]
    new: int
    tokens: int
    depth: int  # at which its states are there already; 0: none


def _batches(lower: LowerLayers, missing: dict[bytes, Encoding], begun: dict[bytes, int]) -> Iterator[_Batch]:
    """Batches whose shape follows from each of their items: so an item's bits do not depend on its neighbours.

    Items that need no padding have batches of their own, as transformers drops a mask that hides nothing.
    """
    groups: dict[tuple[int, int, bool], list[bytes]] = {}
    for key, encoding in missing.items():
        length = lower.backbone.length(encoding)
        tokens = max(1, padded_length(length, lower.backbone.max_length))
        groups.setdefault((begun[key], tokens, length == tokens), []).append(key)
    for (depth, tokens, _), own in sorted(groups.items()):
        size = max(1, STATE_TOKENS // tokens)
        for first in range(0, len(own), size):
            chunk = own[first : first + size]
            yield _Batch((chunk * size)[:size], len(chunk), tokens, depth)
