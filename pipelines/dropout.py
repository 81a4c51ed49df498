"""Dropout whose masks cost less on a CPU.

PyTorch draws a mask there by one Bernoulli draw an element, one after the other. Here one 64-bit random number gives
four elements, 16 bits each, compared with p. The source is still torch's generator, so seeds mean what they meant.
Srivastava et al. 2014, jmlr.org/papers/v15/srivastava14a.html.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

BITS = 16  # p is met to 2**-17


class CheapDropout(TorchFunctionMode):  # type: ignore[misc]
    """Within it, `dropout` and the dropout of `scaled_dot_product_attention` are drawn as above, on a CPU.

    Whatever else is called, and everything on other devices, stays as it is; so does every model's own code.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        replacement = _REPLACED.get(func)
        if replacement is None or not args or args[0].device.type != "cpu":
            return func(*args, **kwargs or {})
        return replacement(*args, **kwargs or {})


def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:  # noqa: ARG001
    """Like `torch.nn.functional.dropout`, never in place."""
    if not training or p == 0 or x.numel() == 0:
        return x
    if p == 1:
        return x * 0
    numbers = torch.empty(math.ceil(x.numel() * BITS / 64), dtype=torch.int64).random_(-(2**63), None)
    below = round(p * 2**BITS) - 2 ** (BITS - 1)  # of the 16-bit integers, this share of all
    kept = numbers.view(torch.int16)[: x.numel()].view(x.shape) >= below
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Like `scaled_dot_product_attention`, whose fast kernels know no dropout: (B, heads, T, D / heads)."""
    if dropout_p == 0 or is_causal or enable_gqa:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-2, -1)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)  # a row may see nothing
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(scores.softmax(dim=-1), dropout_p) @ value


_REPLACED: Mapping[Any, Callable[..., torch.Tensor]] = {
    F.dropout: dropout,
    F.scaled_dot_product_attention: attention,
}
