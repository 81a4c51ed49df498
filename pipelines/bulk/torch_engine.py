"""Logits of one or many models by PyTorch: hidden layers that models share are run once.

::

                    +- layers 4, 5, head of client A
    layers 0 to 3  -+- layers 4, 5, head of client B
                    +- layer 4 -+- layer 5, head of client C
                                +- layer 5, head of client D

Models share their layers up to the depth where their fingerprints part: same embeddings, same weights, same tokenizer.
The base model holds its weights in the precision it computes in, without autocast; heads compute in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.activation_store import ActivationStore
from pipelines.activations import kept
from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.batches import padded_length, token_batches
from pipelines.device import Precision, device
from pipelines.encoded import StateSource
from pipelines.first_token import first_token_only
from pipelines.lower_layers import LowerLayers, hidden_states, layer_fingerprints
from pipelines.records import BoolArray, FloatArray, IntArray, finished
from pipelines.trunk import replaced

Wanted = Mapping[str, BoolArray]
BATCH_TOKENS = 2048  # padded, of a batch sorted by length; on two CPU cores 4096 is a tenth slower
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class _Branch:
    """Models that share their hidden layers up to `depth`, and how they go on from there."""

    names: list[str]
    depth: int
    branches: list[_Branch] = field(default_factory=list)


class TorchEngine:
    """Logits of models that prepare content alike and share at least their embeddings.

    Args:
        backbones: by name; see `families` for which may be put together. They are changed in place: cast to the
            precision, and what they share is held once.
        precision: of the hidden layers.
        store: where the states at `keep_depth` are kept and looked up, for runs to come.
        keep_depth: how many layers are frozen in all of them; with a store only.
    """

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        precision: Precision,
        store: ActivationStore | None = None,
        keep_depth: int = 0,
    ) -> None:
        self.backbones = dict(backbones)
        self.precision = precision
        self._fingerprints = {name: layer_fingerprints(backbone) for name, backbone in backbones.items()}
        self._root = _grown(list(backbones), self._fingerprints)
        self._store = store
        shared = min(keep_depth, self._root.depth)
        self._lower = LowerLayers(self.backbone, shared, "tokens", precision) if store and shared else None
        for backbone in self.backbones.values():
            _cast(backbone, _DTYPES[precision])
        _hold_once(self.backbones, self._fingerprints)

    @property
    def names(self) -> list[str]:
        return list(self.backbones)

    @property
    def family(self) -> str:
        """What prepares content for all of them and embeds it; engines of the same one can be joined."""
        return self._fingerprints[self.names[0]][0]

    @property
    def backbone(self) -> Backbone:
        """The one that prepares content for all."""
        return next(iter(self.backbones.values()))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the bits, besides the machine."""
        kept_depth = self._lower.depth if self._lower else 0
        return {"backend": "torch", "precision": self.precision, "batch_tokens": BATCH_TOKENS, "kept_depth": kept_depth}

    def join(self, other: TorchEngine) -> None:
        """Take over the models of another engine of the same family and precision; neither may have a store."""
        assert (self.family, self.precision) == (other.family, other.precision)
        assert self._lower is None
        assert other._lower is None
        self.backbones |= other.backbones
        self._fingerprints |= other._fingerprints
        self._root = _grown(self.names, self._fingerprints)
        _hold_once(self.backbones, self._fingerprints)

    def remove(self, name: str) -> None:
        """Let go of a model, which is not the last, and of what no other shares with it."""
        assert self._lower is None
        del self.backbones[name], self._fingerprints[name]
        self._root = _grown(self.names, self._fingerprints)

    def logits(self, encodings: Sequence[Encoding], wanted: Wanted | None = None) -> dict[str, FloatArray]:
        """Logits of every model, (N, C) in input order.

        Args:
            encodings: N items.
            wanted: for every model, which items it is to classify, (N,); rows of others are not numbers.
        """
        wanted = wanted or {name: np.ones(len(encodings), dtype=bool) for name in self.backbones}
        found = {name: np.full((len(encodings), len(b.labels)), np.nan) for name, b in self.backbones.items()}
        states = self._kept_states(encodings)
        lengths = [self.backbone.length(encoding) for encoding in encodings]
        with torch.inference_mode():
            for batch in token_batches(lengths, BATCH_TOKENS):
                tokens = padded_length(max(lengths[i] for i in batch), self.backbone.max_length)
                inputs = self.backbone.collate([encodings[i] for i in batch], tokens)
                given = None
                if states is not None and self._lower is not None:
                    given = self._lower.depth, states.batch(batch, tokens).to(_DTYPES[self.precision])
                rows = _Rows(batch, {k: v.to(device()) for k, v in inputs.items()}, given)
                for name, numbers, logits in self._run(self._root, rows, wanted):
                    found[name][numbers] = logits.float().cpu().numpy()
        return found

    def _kept_states(self, encodings: Sequence[Encoding]) -> StateSource | None:
        if self._lower is None or self._store is None:
            return None
        return finished(kept(self._lower, encodings, self._store))

    def _run(self, branch: _Branch, rows: _Rows, wanted: Wanted) -> Iterator[tuple[str, IntArray, torch.Tensor]]:
        """Name, item numbers and logits of every model of a branch that has something to do."""
        rows = rows.of(np.any([wanted[name][rows.numbers] for name in branch.names], axis=0))
        if not len(rows.numbers):
            return
        if not branch.branches:
            name = branch.names[0]
            yield name, rows.numbers, _head(self.backbones[name], rows)
            return
        first = self.backbones[branch.names[0]]
        if branch.depth > rows.depth:
            top = branch.depth == first.depth and first.pooling == "first"
            with first_token_only(first) if top else nullcontext():
                states = hidden_states(first, first.base, rows.inputs, branch.depth, rows.states)
            rows = _Rows(rows.numbers, rows.inputs, (branch.depth, states))
        for after in branch.branches:
            yield from self._run(after, rows, wanted)


@dataclass(frozen=True)
class _Rows:
    """B items on their way through the layers: their numbers, model inputs, and the depth and states reached."""

    numbers: IntArray
    inputs: dict[str, torch.Tensor]
    states: tuple[int, torch.Tensor] | None

    @property
    def depth(self) -> int:
        return self.states[0] if self.states else 0

    def of(self, chosen: BoolArray) -> _Rows:
        """Some of them."""
        if chosen.all():
            return self
        rows = torch.from_numpy(np.flatnonzero(chosen)).to(device())
        states = (self.states[0], self.states[1][rows]) if self.states else None
        return _Rows(self.numbers[chosen], {name: tensor[rows] for name, tensor in self.inputs.items()}, states)


def families(backbones: Mapping[str, Backbone]) -> list[dict[str, Backbone]]:
    """Models grouped by what prepares their content and embeds it; each group is one `TorchEngine`."""
    groups: dict[str, dict[str, Backbone]] = {}
    for name, backbone in backbones.items():
        groups.setdefault(layer_fingerprints(backbone)[0], {})[name] = backbone
    return list(groups.values())


def _grown(names: list[str], fingerprints: Mapping[str, list[str]]) -> _Branch:
    """The tree of what these models, which share their embeddings, share."""
    if len(names) == 1:
        return _Branch(names, len(fingerprints[names[0]]) - 1)
    levels = zip(*(fingerprints[name] for name in names), strict=False)
    depth = [len(set(level)) == 1 for level in levels]
    shared = (depth.index(False) if False in depth else len(depth)) - 1
    groups: dict[str, list[str]] = {}
    for name in names:
        own = fingerprints[name]
        groups.setdefault(own[shared + 1] if shared + 1 < len(own) else name, []).append(name)
    return _Branch(names, shared, [_grown(group, fingerprints) for group in groups.values()])


def _head(backbone: Backbone, rows: _Rows) -> torch.Tensor:
    """The rest of one model, from the depth reached: logits (B, C)."""
    given = replaced(backbone, backbone.layers[: rows.depth], rows.states[1]) if rows.states else nullcontext()
    with given, first_token_only(backbone):
        outputs: Any = backbone.model(**rows.inputs)
    logits: torch.Tensor = outputs.logits
    return logits


def _cast(backbone: Backbone, dtype: torch.dtype) -> None:
    """Hidden layers in a precision, the head in fp32. Buffers stay: rotary frequencies need fp32."""
    model = backbone.model.eval()
    if dtype != torch.float32:
        heads = {id(p) for path in backbone.head_paths for p in model.get_submodule(path).parameters()}
        for parameter in model.parameters():
            if id(parameter) not in heads:
                parameter.data = parameter.data.to(dtype)
        for path in backbone.head_paths:
            model.get_submodule(path).register_forward_pre_hook(_in_fp32)
    model.requires_grad_(False).to(device())


def _in_fp32(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs)


def _hold_once(backbones: Mapping[str, Backbone], fingerprints: Mapping[str, list[str]]) -> None:
    """Let models that share layers share their memory too."""
    holders: dict[str, Backbone] = {}
    for name, backbone in backbones.items():
        for depth, fingerprint in enumerate(fingerprints[name]):
            first = holders.setdefault(fingerprint, backbone)
            if first is backbone:
                continue
            if depth:
                _share(backbone.layers[depth - 1], first.layers[depth - 1])
            elif (own := getattr(backbone.base, "embeddings", None)) is not None:
                _share(own, first.base.embeddings)


def _share(own: nn.Module, other: nn.Module) -> None:
    for parameter, theirs in zip(own.parameters(), other.parameters(), strict=True):
        parameter.data = theirs.data
