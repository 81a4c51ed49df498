"""Cheap dropout: the statistics, gradients and seeds of PyTorch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F  # noqa: N812

from pipelines import dropout as module
from pipelines.dropout import CheapDropout, attention, dropout


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_p_and_the_mean_stays(p: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1_000_000), p)
    zeros = int((dropped == 0).sum())
    assert stats.binomtest(zeros, 1_000_000, p).pvalue > 1e-4
    assert torch.allclose(dropped[dropped > 0], torch.tensor(1 / (1 - p)))


def test_elements_are_dropped_independently_of_their_neighbours() -> None:
    """Four come from one random number: none of the 16 patterns of four is likelier than it should be."""
    torch.manual_seed(0)
    zero = (dropout(torch.ones(400_000), 0.25) == 0).int().reshape(-1, 4)
    counts = np.bincount((zero * torch.tensor([1, 2, 4, 8])).sum(dim=1), minlength=16)
    expected = [100_000 * 0.25 ** bin(n).count("1") * 0.75 ** (4 - bin(n).count("1")) for n in range(16)]
    assert stats.chisquare(counts, expected).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(7,), (3, 5, 11), (0, 4), ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shape_dtype_and_gradient(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    dropped = dropout(x, 0.5)
    assert (dropped.shape, dropped.dtype) == (x.shape, dtype)
    dropped.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


def test_a_seed_decides_and_another_seed_differs() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return dropout(torch.ones(1000), 0.1)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_nothing_is_dropped_without_need() -> None:
    x = torch.ones(100)
    assert dropout(x, 0.5, training=False) is x
    assert dropout(x, 0.0) is x
    assert not dropout(x, 1.0).any()


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
def test_attention_is_that_of_pytorch_but_for_the_masks_drawn(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 5, 4) for _ in range(3))
    seen = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    seen[1, ..., 3:] = False
    given = {"none": None, "bool": seen, "float": torch.zeros(2, 1, 1, 5).masked_fill(~seen, -1e9)}[mask]
    monkeypatch.setattr(module, "dropout", lambda x, _: x)
    for scale in (None, 0.3):
        exact = F.scaled_dot_product_attention(q, k, v, given, scale=scale)
        torch.testing.assert_close(attention(q, k, v, given, 0.1, scale=scale), exact)
    monkeypatch.undo()
    many = torch.stack([attention(q, k, v, given, 0.1) for _ in range(3000)]).mean(dim=0)
    torch.testing.assert_close(many, F.scaled_dot_product_attention(q, k, v, given), atol=0.06, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_that_may_see_nothing_gives_numbers(dtype: torch.dtype) -> None:
    q = torch.randn(1, 2, 4, 3, dtype=dtype)
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    mask[..., 2, :] = False
    assert attention(q, q, q, mask, 0.1).isfinite().all()


def test_a_model_uses_it_only_within_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("dropout", "attention"):
        function = getattr(module, name)
        key = {"dropout": F.dropout, "attention": F.scaled_dot_product_attention}[name]
        monkeypatch.setitem(
            module._REPLACED,  # type: ignore[arg-type]
            key,
            lambda *args, name=name, function=function, **kwargs: calls.append(name) or function(*args, **kwargs),
        )
    layer = nn.Dropout(0.5)
    q = torch.ones(1, 1, 4, 4)
    layer(torch.ones(4))
    assert calls == []
    with CheapDropout():
        layer(torch.ones(4))
        F.scaled_dot_product_attention(q, q, q, dropout_p=0.1)
    assert calls == ["dropout", "attention"]


@pytest.mark.parametrize("option", [{"is_causal": True}, {"dropout_p": 0.0}])
def test_what_it_does_not_know_is_left_to_pytorch(option: dict[str, object]) -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, 5, 4)
    with CheapDropout():
        found = F.scaled_dot_product_attention(q, q, q, **option)  # type: ignore[arg-type]
    assert torch.equal(found, F.scaled_dot_product_attention(q, q, q, **option))  # type: ignore[arg-type]
