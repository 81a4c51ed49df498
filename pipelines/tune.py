"""One fine-tuning: backbone -> freeze, LoRA -> items -> the training loop. A run and its learning curve use it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Literal

from accelerate import Accelerator
from datasets import Dataset

from pipelines import lora
from pipelines.activation_store import ActivationStore
from pipelines.activations import Computed, kept
from pipelines.backbones import Backbone, continue_text_backbone, load_text_backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.encoded import Encoded, Replayed
from pipelines.errors import StoreError
from pipelines.lower_layers import LowerLayers, trunk_layers
from pipelines.records import Event, Splits, Stage, column
from pipelines.saved_run import SavedRun
from pipelines.train import Progress, TrainingData, train
from pipelines.trunk import Trunk


def prepare(config: RunConfig, labels: tuple[str, ...], start: SavedRun | None) -> Trunk:
    """A model ready to be trained: pretrained or from an earlier run, frozen below the cut, LoRA attached.

    As long as the depth is `auto`, nothing is frozen or attached: the model is there to be looked at.

    Raises:
        BackboneError, ConfigError: see `backbones`, `trunk` and `lora`.
    """
    backbone: Backbone
    if start is None:
        backbone = load_text_backbone(config.backbone, labels, config.data.max_length, config.training.seed)
    else:
        seed, most = config.training.seed, config.data.max_length
        backbone = continue_text_backbone(start.path / "model", str(start.path), labels, most, seed)
    depth = freeze_depth(config)
    trunk = Trunk(backbone, "none" if depth == "auto" else depth)
    if config.adapter.type == "lora" and depth != "auto":
        lora.attach(trunk, config.adapter)
    return trunk


def freeze_depth(config: RunConfig) -> int | Literal["auto", "none", "all"]:
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
    store: ActivationStore | None,
) -> Generator[Event, None, Progress]:
    """Encode and train. Arguments, events and errors are those of `train.train`.

    Tokenization and what the store lacks of the training items count as training time.

    Args:
        items: the training items, `splits.train` or some of them.
        store: of hidden states at the cut; without one they are computed for every batch. A run whose store fails
            goes on without, and says so; resumed, it stays without, since states of other batches have other bits.
    """
    saved = checkpoints.newest()
    resumed = saved is not None
    if saved is not None and saved.progress["store"] == "off":
        store = None
    started = time.perf_counter()
    lower = trunk_layers(trunk, precision)
    encoded, used = yield from _encode(trunk, items, lower, store, accelerator, stop, resumed)
    before = time.perf_counter() - started
    kept_in = None if used == "off" else store
    validated, found = yield from _encode(trunk, splits.validation, lower, kept_in, accelerator, stop, resumed)
    if found == "off" and used != "off":  # it failed meanwhile: all without, so that a resumed run can be alike
        encoded, used = yield from _encode(trunk, items, lower, None, accelerator, stop, resumed)
    del lower  # a copy of its layers, which is not needed where states are kept
    training = TrainingData(encoded, splits.targets(items))
    validation = TrainingData(validated, splits.targets(splits.validation))
    begun = Progress(seconds=before, before=before, store=used)
    return (
        yield from train(
            trunk, training, validation, config.training, accelerator, precision, checkpoints, saved, stop, begun
        )
    )


def _encode(
    trunk: Trunk,
    items: Dataset,
    lower: LowerLayers | None,
    store: ActivationStore | None,
    accelerator: Accelerator,
    stop: Callable[[], bool],
    resumed: bool,
) -> Generator[Event, None, tuple[Encoded, str]]:
    """Items ready for the part above the cut, and how their hidden states were had: cold, warm, or off."""
    encodings = trunk.backbone.encode(column(items, "text"))
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
