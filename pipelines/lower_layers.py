"""The lower layers run alone: encodings -> hidden states at a depth, by one fixed recipe.

The recipe is part of the fingerprint: weights in bf16 where the precision is bf16, else in fp32; no autocast; what
leaves a hidden layer is rounded to bf16, in fp32 too; and kept states are computed in batches of STATE_TOKENS padded
tokens (see `activations`). So nothing is lost when states are kept in bf16, and going on from kept states of a lower
depth gives the same bits as starting from the content.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
import xxhash
from torch import nn

from pipelines.backbones import Backbone
from pipelines.backbones.base import FINAL_NORMS, Encoding
from pipelines.batches import MULTIPLE
from pipelines.device import Precision, device, numeric_backend
from pipelines.trunk import Trunk, replaced

RECIPE = 2  # to be raised when this module or `activations` computes other bits
STATE_TOKENS = 1024  # padded, of a batch of one shape: 256 take 1.7 times as long with AMX, 4096 fill up more
Kind = Literal["tokens", "pooled", "mean"]  # all tokens; the one the head reads; masked mean of the last layer
_NOT_NUMERIC = (  # keys of a model's config that name or describe; the same layers may carry others
    "id2label", "label2id", "num_labels", "problem_type", "architectures", "transformers_version", "dtype",
    "_name_or_path", "pad_token_id", "use_cache",
)  # fmt: skip


class LowerLayers:
    """Embeddings and the first hidden layers of a backbone, in eval mode, without gradient.

    Args:
        backbone: its layers below `depth` must not change while this is used. They are put into eval mode here and
            must stay in it. In fp32 they are used as they are, in bf16 from a copy.
        depth: how many hidden layers; the mean takes all.
        kind: what is kept of an item: (T, D), or (1, D).
        precision: fp16 computes in fp32.

    Attributes:
        fingerprint: two of them are equal only if the same content gives the same bits.
        width: D.
    """

    def __init__(self, backbone: Backbone, depth: int, kind: Kind, precision: Precision) -> None:
        self.backbone = backbone
        self.depth = depth
        self.kind = kind
        backbone.base.eval()
        self.width = int(backbone.model.config.hidden_size)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._ingredients = _ingredients(backbone, self._dtype)
        self._weights = list(_weights_by_depth(backbone, depth))
        self.fingerprint = _name_of(self._parts(depth, kind))
        self._base = backbone.base if self._dtype == torch.float32 else _bf16_copy(backbone, depth)

    @property
    def ingredients(self) -> dict[str, Any]:
        """What the fingerprint is made of, as JSON."""
        return self._parts(self.depth, self.kind)

    def fingerprint_at(self, depth: int) -> str:
        """Fingerprint of all tokens' states at a lower depth; `__call__` can start from them."""
        return _name_of(self._parts(depth, "tokens"))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def __call__(
        self, encodings: Sequence[Encoding], start: tuple[int, torch.Tensor] | None = None, at_least: int = 0
    ) -> torch.Tensor:
        """States of B items in bf16: (B, T, D), or (B, 1, D) where one row is kept of an item.

        Args:
            encodings: B items.
            start: a lower depth and the states there, (B, T, D).
            at_least: T is not less.
        """
        inputs = self._inputs(encodings, at_least)
        with torch.autocast(device().type, enabled=False):
            states = self._run(inputs, start).to(torch.bfloat16)
        if self.kind == "tokens":
            return states
        if self.kind == "pooled":
            positions = torch.tensor([self.backbone.pooled_position(encoding) for encoding in encodings])
            return states[torch.arange(len(encodings)), positions].unsqueeze(1)
        return _masked_mean(states, inputs["attention_mask"]).unsqueeze(1).to(torch.bfloat16)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def means(self, encodings: Sequence[Encoding]) -> torch.Tensor:
        """Masked means of B items after 0, 1, ... `depth` hidden layers, from one pass; 0 are the embeddings.

        Returns:
            (B, depth + 1, D) in fp32.
        """
        inputs = self._inputs(encodings, 0)
        found: list[torch.Tensor] = []

        def look(_layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            entering = args[0] if args else kwargs["hidden_states"]
            found.append(_masked_mean(entering, inputs["attention_mask"]))

        with torch.autocast(device().type, enabled=False), ExitStack() as stack:
            for layer in list(self._base.get_submodule(self.backbone.inner_layers_path).children())[: self.depth]:
                handle = layer.register_forward_pre_hook(look, with_kwargs=True)
                stack.callback(handle.remove)
            last = self._run(inputs, None)
        return torch.stack([*found, _masked_mean(last, inputs["attention_mask"])], dim=1)

    def _inputs(self, encodings: Sequence[Encoding], at_least: int) -> dict[str, torch.Tensor]:
        if next(self._base.parameters()).device != device():  # `to` visits every module, whether it moves it or not
            self._base.to(device())
        return {name: tensor.to(device()) for name, tensor in self.backbone.collate(encodings, at_least).items()}

    def _run(self, inputs: dict[str, torch.Tensor], start: tuple[int, torch.Tensor] | None) -> torch.Tensor:
        layers = self._base.get_submodule(self.backbone.inner_layers_path).children()
        begun = (start[0], start[1].to(device(), self._dtype)) if start else None
        with ExitStack() as stack:
            for layer in list(layers)[start[0] if start else 0 : self.depth]:
                stack.enter_context(_hook(layer, self._rounded))
            depth = None if self.kind == "mean" else self.depth
            return hidden_states(self.backbone, self._base, inputs, depth, begun)

    def _rounded(self, layer: nn.Module, inputs: Any, output: Any) -> Any:
        return self.backbone.layer_output(_states(output).to(torch.bfloat16).to(self._dtype))

    def _parts(self, depth: int, kind: Kind) -> dict[str, Any]:
        weights = [self._weights[depth]]
        if kind == "mean":
            norms = [self.backbone.model.get_submodule(path) for path in self.backbone.final_norm_paths]
            weights += [_digest("", norm.state_dict().items()) for norm in norms]
        return self._ingredients | {"weights": weights, "depth": depth, "kind": kind}


def trunk_layers(trunk: Trunk, precision: Precision) -> LowerLayers | None:
    """The hidden layers below the cut; None where there are none, or where they are quantized. Above the last one the
    head reads a token or more."""
    if not trunk.depth or trunk.backbone.quantized:
        return None
    whole = trunk.depth == trunk.backbone.depth and trunk.backbone.pooling is not None
    return LowerLayers(trunk.backbone, trunk.depth, "pooled" if whole else "tokens", precision)


def hidden_states(
    backbone: Backbone,
    base: nn.Module,
    inputs: dict[str, torch.Tensor],
    depth: int | None,
    start: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Hidden states, (B, T, D), after `depth` hidden layers; None means all, and the final norm.

    Args:
        backbone: says where the layers are.
        base: its base model, or a copy.
        inputs: of B items, on the device.
        start: a lower depth and the states there, (B, T, D), in the dtype of the base.
    """
    layers = list(base.get_submodule(backbone.inner_layers_path).children())
    with ExitStack() as stack:
        if start:
            stack.enter_context(replaced(backbone, layers[: start[0]], start[1]))
        if depth is not None:
            stack.enter_context(_hook(layers[depth - 1], _stop))
        try:
            states: torch.Tensor = base(**inputs).last_hidden_state
        except _ReachedError as reached:
            states = reached.states
    return states


def layer_fingerprints(backbone: Backbone) -> list[str]:
    """What decides the hidden states at depth 0, 1, ... L, besides precision and machine: two backbones with an equal
    entry compute the same up to there. (L + 1,)
    """
    same = _name_of(_ingredients(backbone, torch.float32))
    return [f"{same} {weights}" for weights in _weights_by_depth(backbone, backbone.depth)]


class _ReachedError(Exception):
    """Ends a forward pass at the depth that was asked for."""

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states


def _stop(_layer: nn.Module, _inputs: Any, output: Any) -> None:
    raise _ReachedError(_states(output))


def _masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T, D), (B, T) -> (B, D) in fp32."""
    weights = mask.unsqueeze(-1).float()
    return (states.float() * weights).sum(dim=1) / weights.sum(dim=1)


def _states(output: Any) -> torch.Tensor:
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states


@contextmanager
def _hook(layer: nn.Module, function: Any) -> Iterator[None]:
    handle = layer.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()


def _bf16_copy(backbone: Backbone, depth: int) -> nn.Module:
    """The base model up to a depth, its parameters in bf16. Buffers stay: rotary frequencies need fp32."""
    layers = backbone.model.get_submodule(backbone.layers_path)
    assert isinstance(layers, nn.ModuleList)
    above = list(layers[depth:])
    del layers[depth:]
    try:
        base = backbone.base
        copies = {id(p): nn.Parameter(p.detach().to(torch.bfloat16), requires_grad=False) for p in base.parameters()}
        copied: nn.Module = copy.deepcopy(base, copies)
    finally:
        layers.extend(above)
    return copied.eval()


def _ingredients(backbone: Backbone, dtype: torch.dtype) -> dict[str, Any]:
    config = backbone.model.config
    settings = {key: value for key, value in config.to_dict().items() if key not in _NOT_NUMERIC}
    return {
        "recipe": [RECIPE, STATE_TOKENS, MULTIPLE],
        "config": json.loads(json.dumps(settings, sort_keys=True, default=str)),
        "attention": config._attn_implementation,
        "dtype": str(dtype),
        "processing": backbone.processing(),
        "first position": getattr(getattr(backbone.base, "embeddings", None), "padding_idx", None),  # RoBERTa's
        "numeric backend": numeric_backend(),
    }


def _name_of(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _weights_by_depth(backbone: Backbone, depth: int) -> Iterator[str]:
    """Digest of the embeddings and of what all layers share, then with 1, 2, ... `depth` hidden layers."""
    above = ("pooler.", *(f"{name}." for name in FINAL_NORMS))
    others = (f"{backbone.inner_layers_path}.", *above)
    tensors = backbone.base.state_dict().items()
    digest = _digest("", [(name, tensor) for name, tensor in tensors if not name.startswith(others)])
    yield digest
    for layer in backbone.layers[:depth]:
        digest = _digest(digest, layer.state_dict().items())
        yield digest


def _digest(before: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    running = xxhash.xxh3_128(before.encode())
    for name, tensor in tensors:
        running.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
        running.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return running.hexdigest()
