"""The cut: which part of a backbone is frozen, and what frozen means.

Frozen parameters get no gradient, and frozen modules are in eval mode always: dropout below the cut would make the
trunk something else than a pure function of the content.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from pipelines.backbones import Backbone
from pipelines.errors import ConfigError

Freeze = int | Literal["none", "all"]


class Trunk:
    """The frozen part of a backbone.

    Args:
        backbone: its model's parameters are frozen here, in place.
        freeze: `none` trains everything; N freezes the embeddings, what all layers share, and the first N hidden
            layers; `all` (the same as N = L) leaves the head.

    Attributes:
        depth: number of frozen hidden layers, or None if nothing is frozen.
        opened: number of hidden layers that are trained; fewer than are above the cut while some wait (`unfreezing`).

    Raises:
        ConfigError: more layers than there are.
    """

    def __init__(self, backbone: Backbone, freeze: Freeze) -> None:
        L = backbone.depth
        if isinstance(freeze, int) and freeze > L:
            raise ConfigError(
                f"backbone.freeze: expected at most {L}, the hidden layers of {backbone.name}; found {freeze}"
            )
        self.backbone = backbone
        self.depth: int | None = None if freeze == "none" else L if freeze == "all" else freeze
        self.opened = L - (self.depth or 0)
        if self.depth is not None:
            self.open(self.opened)

    @property
    def frozen_share(self) -> float:
        """Frozen hidden layers over all hidden layers, 0 to 1."""
        return (self.depth or 0) / self.backbone.depth

    @property
    def parameters(self) -> tuple[int, int]:
        """How many parameters are trained, and how many there are, LoRA and head included."""
        parameters = list(self.backbone.model.parameters())
        return sum(p.numel() for p in parameters if p.requires_grad), sum(map(_size, parameters))

    def open(self, layers: int) -> None:
        """Train the head and this many of the uppermost hidden layers; all others are frozen, be it for a while.

        With nothing below the cut, the embeddings are trained as soon as all hidden layers are.
        """
        self.opened = layers
        self.backbone.model.requires_grad_(self._whole)
        for parameter in (parameter for module in self._trained() for parameter in module.parameters()):
            if parameter.is_floating_point():  # quantized matrices are not
                parameter.requires_grad_(True)

    def train(self) -> None:
        """Put the model into training mode, what is frozen into eval mode. Use this instead of `model.train()`."""
        model = self.backbone.model
        model.train()
        if not self._whole:
            model.get_submodule(model.base_model_prefix).eval()
            for module in self._trained():
                module.train()

    @contextmanager
    def replay(self, states: torch.Tensor) -> Iterator[None]:
        """Within it, the frozen hidden layers compute nothing and give `states`, (B, T, D), to the layers above."""
        with replaced(self.backbone, self.backbone.layers[: self.depth], states):
            yield

    @property
    def _whole(self) -> bool:
        """Everything is trained."""
        return self.depth is None and self.opened == self.backbone.depth

    def _trained(self) -> list[nn.Module]:
        """Modules that are trained, looked up by path: LoRA replaces some of them."""
        backbone = self.backbone
        paths = [f"{backbone.layers_path}.{number}" for number in range(backbone.depth - self.opened, backbone.depth)]
        if paths:
            paths += backbone.final_norm_paths
        return [backbone.model.get_submodule(path) for path in paths + backbone.head_paths]


def _size(parameter: nn.Parameter) -> int:
    """Numbers in a parameter; one of 4 bits is packed, two in a byte, and knows its own shape."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else math.prod(packed.shape)


@contextmanager
def replaced(backbone: Backbone, layers: Sequence[nn.Module], states: torch.Tensor) -> Iterator[None]:
    """Within it, these layers, which follow each other, return `states`, (B, T, D), whatever they are given.

    Only `forward` is replaced, so parameters, their names and what else the model reads from its layers stay.
    """
    output = backbone.layer_output(states)

    def forward(*_: object, **__: object) -> object:
        return output

    for layer in layers:
        layer.forward = forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
