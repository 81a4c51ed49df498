"""Which trained parameters share a learning rate and a weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pipelines.backbones import Backbone
from pipelines.config import TrainingConfig


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], backbone: Backbone, config: TrainingConfig
) -> list[dict[str, Any]]:
    """Groups for an optimizer, the head's first.

    With `layer_decay` the head has the learning rate of the config, every hidden layer `layer_decay` times that of what
    is above it, the embeddings the lowest (Howard and Ruder 2018, arXiv 1801.06146; Clark et al. 2020, arXiv
    2003.10555).

    Args:
        parameters: those that are trained, by their name in the backbone's model.
    """
    assert not isinstance(config.learning_rate, str)
    if config.layer_decay == 1:
        return _decayed(parameters, config.weight_decay)
    below_head: dict[int, dict[str, nn.Parameter]] = {}
    for name, parameter in parameters.items():
        below_head.setdefault(layers_below_head(name, backbone), {})[name] = parameter
    return [
        group | {"lr": config.learning_rate * config.layer_decay**steps}
        for steps, own in sorted(below_head.items())
        for group in _decayed(own, config.weight_decay)
    ]


def layers_below_head(name: str, backbone: Backbone) -> int:
    """0 for the head and a final norm, 1 for the uppermost hidden layer, L + 1 for the embeddings."""
    inside = name.removeprefix(f"{backbone.layers_path}.")
    if inside != name:
        return backbone.depth - int(inside.split(".")[0])
    on_top = [*backbone.head_paths, *backbone.final_norm_paths]
    return 0 if any(name.startswith(f"{path}.") for path in on_top) else backbone.depth + 1


def _decayed(parameters: Mapping[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: not on biases and norms, which are vectors."""
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
