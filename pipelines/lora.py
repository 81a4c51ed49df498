"""LoRA adapters on the hidden layers above the freeze point (Hu et al. 2021, arXiv 2106.09685; library: peft).

::

            x (B, T, D)
            |        \\
            W frozen   A (r, D)  dropout before it
            |          B (D', r)  zero at the start
            |        /  times alpha / r
            + ------
            y (B, T, D') = W x + (alpha / r) B A x

Every linear layer above the cut gets one. The head is trained as a whole and saved with the adapter.

`rslora` scales by alpha / sqrt(r) instead, so that a larger rank learns no slower (Kalajdzievski 2023, arXiv
2312.03732). `dora` also trains the length of every row of W + B A apart from its direction (Liu et al. 2024, arXiv
2402.09353).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from peft import LoraConfig, TaskType, get_peft_model
from torch import nn

from pipelines.backbones import Backbone
from pipelines.config import AdapterConfig
from pipelines.errors import ConfigError
from pipelines.trunk import Trunk


def attach(trunk: Trunk, config: AdapterConfig) -> None:
    """Put adapters on every linear layer above the cut and leave only them and the head trainable.

    Raises:
        ConfigError: nothing is above the cut, nothing is frozen, or the rank is above the width of a layer.
    """
    backbone = trunk.backbone
    if trunk.depth is None:
        raise ConfigError(
            f"adapter.type {config.type}: expected backbone.freeze to be a number (0: all hidden layers), found none"
        )
    targets = _linear_paths(backbone, trunk.depth)
    if not targets:
        raise ConfigError(
            f"adapter.type {config.type}: expected hidden layers above the freeze point, found none; backbone.freeze "
            f"must be below {backbone.depth}"
        )
    layers = [backbone.model.get_submodule(path) for path in targets]  # weights may be packed, in any shape
    narrowest = min(min(layer.in_features, layer.out_features) for layer in layers)
    if config.r > narrowest:
        raise ConfigError(
            f"adapter.r: expected at most {narrowest}, the width of the narrowest layer that it is put on, found "
            f"{config.r}; a rank above the width trains more than the layer has"
        )
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        use_rslora=config.type == "rslora",
        use_dora=config.type == "dora",
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
        modules_to_save=[path.rsplit(".", 1)[-1] for path in backbone.head_paths],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", ".*is_gradient_checkpointing", FutureWarning
        )  # peft 0.21 asks for an old name
        backbone.adapter = get_peft_model(backbone.model, lora)


def save(backbone: Backbone, path: Path) -> None:
    """Write the adapter with its head, and which base it belongs to. Call it before `merge`."""
    assert backbone.adapter is not None
    backbone.adapter.save_pretrained(path)
    (path / "README.md").unlink(missing_ok=True)  # peft's empty card; the run directory has a real one
    config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = backbone.name  # instead of a directory of this machine
    (path / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    base = {"name": backbone.name, "revision": backbone.weights.revision, "sha256": backbone.weights.sha256}
    (path / "base.json").write_text(json.dumps(base, indent=2) + "\n", encoding="utf-8")


def merge(backbone: Backbone) -> None:
    """Fold the adapters into the weights, for plain LoRA W + (alpha / r) B A. The model is a plain one afterwards."""
    assert backbone.adapter is not None
    backbone.model = backbone.adapter.merge_and_unload()
    backbone.adapter = None


def _linear_paths(backbone: Backbone, depth: int) -> list[str]:
    paths = []
    for number in range(depth, backbone.depth):
        layer = f"{backbone.layers_path}.{number}"
        modules = backbone.model.get_submodule(layer).named_modules()
        paths += [f"{layer}.{name}" for name, module in modules if isinstance(module, nn.Linear)]
    return paths
