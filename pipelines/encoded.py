"""Encoded items, and how a model is run on some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.batches import padded_length
from pipelines.device import device
from pipelines.first_token import first_token_only
from pipelines.records import IntArray
from pipelines.trunk import Trunk


class Encoded:
    """N items as inputs of a backbone's model.

    Args:
        backbone: that has encoded them.
        encodings: N.

    Attributes:
        lengths: N sizes in tokens; batches are grouped by them.
    """

    def __init__(self, backbone: Backbone, encodings: Sequence[Encoding]) -> None:
        self.backbone = backbone
        self.encodings = encodings
        self.lengths = [backbone.length(encoding) for encoding in encodings]

    def __len__(self) -> int:
        return len(self.encodings)

    def logits(self, model: nn.Module, numbers: IntArray) -> torch.Tensor:
        """Logits (B, C) of the items with these numbers (B,).

        Args:
            model: the backbone's, or a wrapper around it.
        """
        inputs = self.backbone.collate([self.encodings[i] for i in numbers], self._tokens(numbers))
        with first_token_only(self.backbone):
            outputs: Any = model(**{name: tensor.to(device()) for name, tensor in inputs.items()})
        logits: torch.Tensor = outputs.logits
        return logits

    def _tokens(self, numbers: IntArray) -> int:
        """T of a batch."""
        longest = max(self.backbone.length(self.encodings[i]) for i in numbers)
        return padded_length(longest, self.backbone.max_length)


class StateSource(Protocol):
    """The hidden states at the cut of N items."""

    def batch(self, numbers: IntArray, at_least: int = 0) -> torch.Tensor:
        """(B, T, D) in bf16 on the device of this process; T is the length of the longest, or `at_least`.

        What is behind an item is masked. One token of an item: (B, 1, D).
        """


class Replayed(Encoded):
    """N items whose hidden states at the cut are given: of the model, only what is above the cut is run.

    Args:
        trunk: whose cut it is.
        encodings: N, as the layers below the cut saw them.
        states: of these items.
        pooled: there is one state of an item, of the token that the head reads.
    """

    def __init__(self, trunk: Trunk, encodings: Sequence[Encoding], states: StateSource, pooled: bool) -> None:
        super().__init__(trunk.backbone, encodings)
        self.trunk = trunk
        self.states = states
        if pooled:
            only, position = trunk.backbone.only, trunk.backbone.pooled_position
            self.encodings = [only(encoding, position(encoding)) for encoding in encodings]

    def logits(self, model: nn.Module, numbers: IntArray) -> torch.Tensor:
        states = self.states.batch(numbers, self._tokens(numbers))
        with self.trunk.replay(states.to(next(self.backbone.model.parameters()).dtype)):
            return super().logits(model, np.asarray(numbers))
