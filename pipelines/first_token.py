"""The last hidden layer for the first token alone, where that is all that the head reads.

::

    head                  first token
    last hidden layer     first token: query, attention output, feed-forward   4 D^2 instead of 24 D^2 a token
                          all tokens:  key, value
    layers below          all tokens

The same sums in another shape: equal in mathematics, not in the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812

from pipelines.backbones import Backbone

Layer = Any  # a hidden layer of transformers; its parts are found by name
Part = Callable[[Layer, torch.Tensor, torch.Tensor | None], torch.Tensor]


@contextmanager
def first_token_only(backbone: Backbone) -> Iterator[None]:
    """Within it, the last hidden layer returns (B, 1, D). Does nothing for models that it does not know."""
    layer: Layer = backbone.layers[-1]
    compute = _COMPUTE.get(backbone.model.config.model_type)
    plain = backbone.model.config._attn_implementation in ("sdpa", "eager")
    if compute is None or not plain or "forward" in vars(layer):  # the latter: its states are replayed
        yield
        return

    def forward(hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **__: Any) -> Any:
        return compute(layer, hidden_states, None if attention_mask is None else attention_mask[:, :, :1])

    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward


def _bert(layer: Layer, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    own, first = layer.attention.self, states[:, :1]
    rate = own.dropout.p if layer.training else 0.0
    context = _attend(own.query(first), own.key(states), own.value(states), mask, own.attention_head_size, rate)
    output: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(context, first))
    return output


def _distilbert(layer: Layer, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    own, first = layer.attention, states[:, :1]
    rate = own.dropout.p if layer.training else 0.0
    context = _attend(own.q_lin(first), own.k_lin(states), own.v_lin(states), mask, own.attention_head_size, rate)
    attended = layer.sa_layer_norm(own.out_lin(context) + first)
    output: torch.Tensor = layer.output_layer_norm(layer.ffn(attended) + attended)
    return output


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, size: int, rate: float
) -> torch.Tensor:
    """Multi-head attention of one query a row, (B, 1, D), on T keys and values, (B, T, D)."""
    q, k, v = (x.unflatten(-1, (-1, size)).transpose(1, 2) for x in (query, key, value))  # (B, heads, 1 or T, size)
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate).transpose(1, 2).flatten(-2)


_COMPUTE: dict[str, Part] = dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), _bert) | {
    "distilbert": _distilbert
}
