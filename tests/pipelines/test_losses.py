"""What a wrong answer costs: class weights, focal loss, smoothed labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pipelines.config import TrainingConfig
from pipelines.losses import class_weights, item_losses, loss_weights

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 0.0]])
TARGETS = torch.tensor([0, 2, 0])


@pytest.mark.parametrize(
    ("mode", "targets", "expected"),
    [
        ("none", [0, 0, 0, 1], [1, 1]),
        ("balanced", [0, 0, 0, 1], [4 / 6, 2]),
        ("auto", [0, 0, 0, 1], [4 / 6, 2]),
        ("auto", [0, 0, 0, 0, 1, 1, 1], [1, 1]),
        ("auto", [0, 0, 0, 1, 1], [5 / 6, 5 / 4]),  # 1.5 times as many is uneven
    ],
)
def test_class_weights(mode: str, targets: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(class_weights(np.array(targets), 2, mode), expected)


@pytest.mark.parametrize(
    ("mode", "targets", "expected"),
    [
        ("none", [0, 0, 0, 2], [1, 1, 1, 1]),
        ("balanced", [0, 0, 0, 2], [4 / 6, 1, 2, 1]),
        ("auto", [0, 0, 0, 2], [4 / 6, 1, 2, 1]),
        ("auto", [0, 0, 2, 2, 3], [5 / 6, 1, 5 / 6, 5 / 3]),
        ("auto", [0, 0, 0, 0, 2, 2, 2], [1, 1, 1, 1]),  # an absent class makes nothing uneven
        ("balanced", [2, 2], [1, 1, 1, 1]),
    ],
)
def test_an_absent_class_counts_for_nothing(mode: str, targets: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(class_weights(np.array(targets), 4, mode), expected)


def test_an_item_weighs_what_its_class_does() -> None:
    targets = np.array([0, 0, -1, 0, 1])
    np.testing.assert_allclose(loss_weights(targets, 2, TrainingConfig()), [4 / 6, 4 / 6, 0, 4 / 6, 2])
    drawn_balanced = TrainingConfig(oversampling="balanced")
    np.testing.assert_allclose(loss_weights(targets, 2, drawn_balanced), [1, 1, 0, 1, 1])


def losses(**settings: Any) -> torch.Tensor:
    return item_losses(LOGITS, TARGETS, TrainingConfig(**settings))


def test_plain_losses_are_cross_entropies() -> None:
    expected = torch.nn.functional.cross_entropy(LOGITS, TARGETS, reduction="none")
    assert torch.equal(losses(), expected)
    assert torch.equal(losses(loss="focal", focal_gamma=0), expected)


def test_focal_loss_is_its_formula() -> None:
    right = LOGITS.softmax(-1)[torch.arange(3), TARGETS]
    torch.testing.assert_close(losses(loss="focal", focal_gamma=1.5), -((1 - right) ** 1.5) * right.log())


def test_focal_loss_counts_what_is_known_for_little() -> None:
    share = losses(loss="focal") / losses()
    assert share[0] < 0.05 < 0.99 < share[2]


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_what_is_known_for_sure_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[60.0, 0.0]], requires_grad=True)
    item_losses(logits, torch.tensor([0]), TrainingConfig(loss="focal", focal_gamma=gamma)).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_smoothed_label_is_spread_over_all_classes() -> None:
    labels = torch.nn.functional.one_hot(TARGETS, 3) * 0.7 + 0.3 / 3
    torch.testing.assert_close(losses(label_smoothing=0.3), -(labels * LOGITS.log_softmax(-1)).sum(-1))
