"""One fine-tuning: backbone -> freeze, LoRA -> items -> the training loop. A run and its learning curve use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Literal

from accelerate import Accelerator
from datasets import Dataset

from pipelines import lora
from pipelines.backbones import Backbone, continue_text_backbone, load_text_backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.records import Event, Splits, column
from pipelines.saved_run import SavedRun
from pipelines.train import Progress, TrainingData, train
from pipelines.trunk import Trunk


def prepare(config: RunConfig, labels: tuple[str, ...], start: SavedRun | None) -> Trunk:
    """A model ready to be trained: pretrained or from an earlier run, frozen below the cut, LoRA attached.

    Raises:
        BackboneError, ConfigError: see `backbones`, `trunk` and `lora`.
    """
    backbone: Backbone
    if start is None:
        backbone = load_text_backbone(config.backbone, labels, config.data.max_length, config.training.seed)
    else:
        seed, most = config.training.seed, config.data.max_length
        backbone = continue_text_backbone(start.path / "model", str(start.path), labels, most, seed)
    trunk = Trunk(backbone, freeze_depth(config))
    if config.adapter.type == "lora":
        lora.attach(trunk, config.adapter)
    return trunk


def freeze_depth(config: RunConfig) -> int | Literal["none", "all"]:
    """LoRA leaves the base weights alone, so `freeze: none` with LoRA freezes the embeddings at least."""
    lora_on_all = config.adapter.type == "lora" and config.backbone.freeze == "none"
    return 0 if lora_on_all else config.backbone.freeze


def tune(
    trunk: Trunk,
    splits: Splits,
    items: Dataset,
    config: RunConfig,
    accelerator: Accelerator,
    precision: Precision,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
) -> Generator[Event, None, Progress]:
    """Encode and train. Arguments, events and errors are those of `train.train`; tokenization counts as training time.

    Args:
        items: the training items, `splits.train` or some of them.
    """
    backbone = trunk.backbone
    started = time.perf_counter()
    training = TrainingData(backbone.encode(column(items, "text")), splits.targets(items))
    tokenization = time.perf_counter() - started
    validation = TrainingData(backbone.encode(column(splits.validation, "text")), splits.targets(splits.validation))
    progress = yield from train(trunk, training, validation, config.training, accelerator, precision, checkpoints, stop)
    progress.seconds += tokenization
    return progress


def finished_model(trunk: Trunk) -> Backbone:
    """The trained model with LoRA merged: a plain one."""
    if trunk.backbone.adapter is not None:
        lora.merge(trunk.backbone)
    return trunk.backbone
