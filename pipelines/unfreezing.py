"""Gradual unfreezing: at first the head alone, then the hidden layers above the cut from the top down.

::

    epoch            1    2    3    4      `unfreeze: epoch`, one hidden layer at a time
    head             *    *    *    *      * trained
    hidden layer 5   .    *    *    *      . frozen as yet, in eval mode
    hidden layer 4   .    .    *    *
    hidden layer 3   .    .    .    *
    ---------------- freeze depth 3, whose states are stored as ever

Howard and Ruder 2018, arXiv 1801.06146. What is open is part of a run's progress, so every checkpoint knows it.
"""

from __future__ import annotations

from pipelines.config import TrainingConfig
from pipelines.errors import ConfigError
from pipelines.trunk import Trunk


def above_cut(trunk: Trunk) -> int:
    """Hidden layers that are trained in the end."""
    return trunk.backbone.depth - (trunk.depth or 0)


def open_next(trunk: Trunk, config: TrainingConfig, epoch: int, gained: bool) -> int:
    """How many of them are trained after an epoch.

    Args:
        epoch: complete epochs.
        gained: the last one had the best validation macro-F1 so far.
    """
    if config.unfreeze == "epoch":
        return min(above_cut(trunk), epoch * config.unfreeze_layers)
    if config.unfreeze == "stall" and not gained:
        return min(above_cut(trunk), trunk.opened + config.unfreeze_layers)
    return trunk.opened


def refuse_what_never_opens(trunk: Trunk, config: TrainingConfig) -> None:
    """Raises ConfigError: there is nothing to open, or not everything opens within the epochs."""
    problem = why_never_opened(above_cut(trunk), config)
    if problem is not None:
        raise ConfigError(f"training.unfreeze: {problem}")


def why_never_opened(layers: int, config: TrainingConfig) -> str | None:
    """What hinders gradual unfreezing, if it is wanted, with so many hidden layers above the cut."""
    if config.unfreeze == "none":
        return None
    if layers == 0:
        return "expected hidden layers above the freeze point, found none; lower backbone.freeze"
    needed = 1 + -(-layers // config.unfreeze_layers)
    if config.unfreeze == "epoch" and config.epochs < needed:
        return (
            f"{layers} hidden layers above the freeze point, {config.unfreeze_layers} opened after each epoch, need "
            f"{needed} epochs or more, found {config.epochs}; raise training.epochs, training.unfreeze_layers or "
            "backbone.freeze"
        )
    return None
