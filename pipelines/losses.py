"""What a wrong answer costs: of every item, and of every class."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from pipelines.config import TrainingConfig
from pipelines.records import FloatArray, IntArray

UNEVEN = 1.5  # largest over smallest class from which `class_weights: auto` balances


def class_weights(targets: IntArray, classes: int, mode: str) -> FloatArray:
    """Loss weight of every class, (C,): N / (C n_c) when balanced, else 1; C counts the classes that occur."""
    counts = np.bincount(targets, minlength=classes)
    present = np.flatnonzero(counts)
    weights = np.ones(classes)
    if mode == "balanced" or (mode == "auto" and counts.max() >= UNEVEN * counts[present].min()):
        weights[present] = compute_class_weight("balanced", classes=present, y=targets)
    return weights


def loss_weights(targets: IntArray, classes: int, config: TrainingConfig) -> FloatArray:
    """Loss weight of every item, (N,), by its class; an item without a label, whose target is -1, has 0.

    Items that are drawn balanced already have no class weights as long as these are auto.
    """
    balanced_already = config.oversampling == "balanced" and config.class_weights == "auto"
    labelled = targets >= 0
    weights = np.zeros(len(targets))
    of_class = class_weights(targets[labelled], classes, "none" if balanced_already else config.class_weights)
    weights[labelled] = of_class[targets[labelled]]
    return weights


def item_losses(logits: torch.Tensor, targets: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
    """Cross-entropy of B items with smoothed labels (Szegedy et al. 2016, arXiv 1512.00567), (B,).

    `focal` multiplies it by (1 - p)^gamma, where p is the probability of the right class: what is known already counts
    for little (Lin et al. 2017, arXiv 1708.02002).

    Args:
        logits: (B, C).
        targets: (B,); what comes out for an item without a label means nothing.
    """
    targets = targets.clamp(min=0)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=config.label_smoothing)
    if config.loss == "focal":
        right = logits.softmax(dim=-1).gather(1, targets[:, None])[:, 0]
        wrong = (1 - right).clamp(min=torch.finfo(right.dtype).eps)  # at 0 a power below 1 has no gradient
        losses = losses * wrong**config.focal_gamma
    return losses
