"""Keep the hidden states at the cut, or compute them in every epoch? Measured on this machine, on these items."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.activations import lacking
from pipelines.backbones.base import Encoding
from pipelines.batches import padded_length
from pipelines.device import Precision, agreed
from pipelines.errors import StoreError
from pipelines.lower_layers import STATE_TOKENS, LowerLayers, trunk_layers
from pipelines.trunk import Trunk

Remember = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]


@dataclass(frozen=True)
class Choice:
    """What was decided, and why."""

    keep: bool
    reason: str

    @property
    def sentence(self) -> str:
        return f"hidden states of the frozen layers are {'kept' if self.keep else 'not kept'}: {self.reason}"


def choose(
    cache: Literal["auto", "on", "off"],
    trunk: Trunk,
    texts: Sequence[str],
    precision: Precision,
    store: ActivationStore,
    passes: int,
    accelerator: Accelerator,
    remember: Remember,
) -> Choice:
    """Decide for a run. All processes must call this alike; the main one measures.

    Args:
        cache: as in the config.
        texts: N training items.
        passes: over all items, by this run.
        remember: keeps what was measured, so that a resumed run goes on alike.
    """
    if not trunk.depth:
        return Choice(False, "no hidden layer is frozen")
    if trunk.backbone.quantized:
        return Choice(False, "states are kept of the original weights, not of quantized ones")
    if cache != "auto":
        return Choice(cache == "on", f"backbone.cache is {cache}")
    choice: Choice | None = None
    if accelerator.is_main_process:
        lower = trunk_layers(trunk, precision)
        assert lower is not None
        encodings = trunk.backbone.encode(texts)
        choice = Choice(**remember("cache", lambda: asdict(measured(lower, encodings, store, passes))))
    choice = agreed(choice)
    assert choice is not None
    return choice


def measured(lower: LowerLayers, encodings: Sequence[Encoding], store: ActivationStore, passes: int) -> Choice:
    """Keep where writing once and reading in every pass takes less time than computing again in all but the first."""
    lengths = [lower.backbone.length(encoding) for encoding in encodings]
    rows = sum(lengths) if lower.kind == "tokens" else len(lengths)
    size = 2 * lower.width * rows
    if not lacking(lower, encodings, store):
        return Choice(True, "they are there already")
    trouble = store.refuse(size)
    if trouble:
        return Choice(False, trouble)
    compute = _seconds_to_compute(lower, encodings, lengths) * sum(lengths)
    try:
        write, read = (seconds * size for seconds in store.seconds_per_byte())
    except StoreError as error:
        return Choice(False, str(error))
    found = f"computing them takes {compute:.2g} s an epoch, writing {write:.2g} s, reading {read:.2g} s"
    return Choice(write + passes * read < (passes - 1) * compute, found)


def _seconds_to_compute(lower: LowerLayers, encodings: Sequence[Encoding], lengths: Sequence[int]) -> float:
    """Seconds per token, on one batch of an item of the median length."""
    median = encodings[int(np.argsort(lengths, kind="stable")[len(lengths) // 2])]
    length = lower.backbone.length(median)
    tokens = padded_length(length, lower.backbone.max_length)
    batch = [median] * max(1, STATE_TOKENS // tokens)
    lower(batch, at_least=tokens).cpu()  # the first call sets up what the others reuse
    started = time.perf_counter()
    lower(batch, at_least=tokens).cpu()  # waits for the device
    return (time.perf_counter() - started) / (len(batch) * length)
