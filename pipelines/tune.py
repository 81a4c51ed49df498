"""One fine-tuning: backbone -> freeze, LoRA -> items -> the training loop. Runs, their curves and sweeps use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset

from pipelines import lora
from pipelines.activation_store import ActivationStore
from pipelines.activations import Computed, kept
from pipelines.backbones import Backbone, continue_text_backbone, load_text_backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, auto_learning_rate
from pipelines.device import Precision
from pipelines.encoded import Encoded, Replayed
from pipelines.errors import ConfigError, StoreError, TrainingError
from pipelines.lesson import Lesson
from pipelines.loop import Progress, TrainingData
from pipelines.lower_layers import LowerLayers, trunk_layers
from pipelines.records import Event, Splits, Stage, column
from pipelines.saved_run import SavedRun
from pipelines.train import train
from pipelines.trunk import Trunk
from pipelines.unfreezing import refuse_what_never_opens

OUT_OF_MEMORY = (
    "out of memory where more passes a step do not help; freeze more layers, train an adapter, or lower data.max_length"
)


def prepare(config: RunConfig, labels: tuple[str, ...], start: SavedRun | None) -> Trunk:
    """A model ready to be trained: pretrained or from an earlier run, frozen below the cut, LoRA attached.

    As long as the depth is `auto`, nothing is frozen or attached: the model is there to be looked at.

    Raises:
        BackboneError, ConfigError: see `backbones`, `trunk` and `lora`.
    """
    backbone: Backbone
    depth, most, seed = freeze_depth(config), config.data.max_length, config.training.seed
    if start is None:
        bits = config.backbone.quantize
        few = None if bits == "none" or depth == "auto" else bits
        backbone = load_text_backbone(config.backbone, labels, most, seed, few)
    else:
        backbone = continue_text_backbone(start.path / "model", str(start.path), labels, most, seed)
    trunk = Trunk(backbone, "none" if depth == "auto" else depth)
    if config.adapter.type != "none" and depth != "auto":
        lora.attach(trunk, config.adapter)
    if depth != "auto":
        refuse_what_never_opens(trunk, config.training)
    if config.training.gradient_checkpointing and not backbone.model.supports_gradient_checkpointing:
        kind = backbone.model.config.model_type
        raise ConfigError(f"training.gradient_checkpointing: {kind} models cannot; leave it out")
    return trunk


def freeze_depth(config: RunConfig) -> int | Literal["auto", "none", "all"]:
    """LoRA leaves the base weights alone, so `freeze: none` with LoRA freezes the embeddings at least."""
    lora_on_all = config.adapter.type != "none" and config.backbone.freeze == "none"
    return 0 if lora_on_all else config.backbone.freeze


def with_rate(config: RunConfig, frozen_share: float) -> RunConfig:
    """A learning rate that is `auto` becomes that of the depth; `frozen_share` is the trunk's."""
    if config.training.learning_rate != "auto":
        return config
    rate = auto_learning_rate(frozen_share, config.adapter.type != "none")
    return config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": rate})})


def tune(
    trunk: Trunk,
    splits: Splits,
    items: Dataset,
    config: RunConfig,
    accelerator: Accelerator,
    precision: Precision,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    store: ActivationStore | None,
    lesson: Lesson | None = None,
) -> Generator[Event, None, Progress]:
    """Encode and train. Arguments, events and errors are those of `train.train`.

    Tokenization and what the store lacks of the training items count as training time.

    A quantized backbone is replaced by the original one in the end, with what was trained on top.

    Args:
        items: the training items, `splits.train` or some of them.
        store: of hidden states at the cut; without one they are computed for every batch. A run whose store fails
            goes on without, and says so; resumed, it stays without, since states of other batches have other bits.
        lesson: of a teacher, about `items` and others without labels, which are trained on too.
    """
    saved = checkpoints.newest()
    resumed = saved is not None
    if saved is not None and saved.progress["store"] == "off":
        store = None
    started = time.perf_counter()
    lower = trunk_layers(trunk, precision)
    unlabelled = [] if lesson is None else lesson.texts
    texts = column(items, "text") + unlabelled
    encoded, used = yield from _encode(trunk, texts, lower, store, accelerator, stop, resumed)
    before = time.perf_counter() - started
    kept_in = None if used == "off" else store
    held_out = column(splits.validation, "text")
    validated, found = yield from _encode(trunk, held_out, lower, kept_in, accelerator, stop, resumed)
    if found == "off" and used != "off":  # it failed meanwhile: all without, so that a resumed run can be alike
        encoded, used = yield from _encode(trunk, texts, lower, None, accelerator, stop, resumed)
    del lower  # a copy of its layers, which is not needed where states are kept
    targets = np.concatenate([splits.targets(items), np.full(len(unlabelled), -1, dtype=np.int64)])
    training = TrainingData(encoded, targets, lesson)
    validation = TrainingData(validated, splits.targets(splits.validation))
    begun = Progress(seconds=before, before=before, store=used)
    try:
        progress = yield from train(
            trunk, training, validation, config.training, accelerator, precision, checkpoints, saved, stop, begun
        )
    except RuntimeError as error:
        if should_reduce_batch_size(error):
            raise TrainingError(f"{OUT_OF_MEMORY} ({str(error).splitlines()[0]})") from None
        raise
    if trunk.backbone.quantized:
        trunk.backbone = _on_whole_weights(trunk, config, splits.labels)
    return progress


def _on_whole_weights(trunk: Trunk, config: RunConfig, labels: tuple[str, ...]) -> Backbone:
    """The original backbone with the adapters and the head that were trained on a quantized one."""
    trained = {name: p.detach() for name, p in trunk.backbone.model.named_parameters() if p.requires_grad}
    whole = prepare(_whole(config), labels, None)
    with torch.no_grad():
        for name, parameter in whole.backbone.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(trained[name])
    return whole.backbone


def _whole(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"quantize": "none"})})


def _encode(
    trunk: Trunk,
    texts: list[str],
    lower: LowerLayers | None,
    store: ActivationStore | None,
    accelerator: Accelerator,
    stop: Callable[[], bool],
    resumed: bool,
) -> Generator[Event, None, tuple[Encoded, str]]:
    """Items ready for the part above the cut, and how their hidden states were had: cold, warm, or off."""
    encodings = trunk.backbone.encode(texts)
    if lower is None:
        return Encoded(trunk.backbone, encodings), "off"
    pooled = lower.kind == "pooled"
    if store is not None:
        try:
            states = yield from kept(lower, encodings, store, accelerator, stop)
            return Replayed(trunk, encodings, states, pooled), "cold" if states.computed else "warm"
        except StoreError as error:
            but = "; the result is close to that of an uninterrupted run, not bit for bit the same" if resumed else ""
            yield Stage("store", f"going on without it{but}. {error}")
    return Replayed(trunk, encodings, Computed(lower, encodings), pooled), "off"


def finished_model(trunk: Trunk) -> Backbone:
    """The trained model with LoRA merged: a plain one."""
    if trunk.backbone.adapter is not None:
        lora.merge(trunk.backbone)
    return trunk.backbone
