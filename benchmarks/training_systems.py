"""What `benchmarks.training` compares: Rootstock's own training, and `transformers.Trainer` at several settings.

Every system trains the same texts with the same batch size, epochs and hence optimizer steps. Its clock runs from text
to the last optimizer step: tokenization and, with the store, computing hidden states included; loading the model,
validation and saving left out.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from pipelines import lora
from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.device import Precision, best_precision, device, start_accelerator
from pipelines.losses import class_weights
from pipelines.records import Splits, column, finished
from pipelines.trunk import Freeze, Trunk
from pipelines.tune import finished_model, tune


@dataclass(frozen=True)
class System:
    """A way to train.

    Attributes:
        ours: Rootstock's loop, or Trainer.
        freeze: as in the config.
        tuned: Trainer at its best known settings (length-grouped batches, the fastest precision, our recipe), or out of
            the box: fp32, random batches padded to their longest text, its own schedule.
        adapter: none or lora.
        store: whether Rootstock keeps hidden states.
        rate_of: the system whose learning rate it has, where both train alike.
    """

    ours: bool
    freeze: Freeze
    tuned: bool = True
    adapter: str = "none"
    store: bool = True
    rate_of: str | None = None

    @property
    def precision(self) -> Precision:
        return best_precision() if self.ours or self.tuned else "fp32"


SYSTEMS = {
    "trainer-default": System(False, "none", tuned=False),
    "trainer-tuned": System(False, "none"),
    "trainer-tuned-k4": System(False, 4),
    "trainer-tuned-k5": System(False, 5),
    "trainer-lora": System(False, 0, adapter="lora"),
    "ours-k3": System(True, 3),
    "ours-k4": System(True, 4),
    "ours-k5": System(True, 5),
    "ours-k5-without-store": System(True, 5, store=False, rate_of="ours-k5"),
    "ours-lora-k4": System(True, 4, adapter="lora"),
}


@dataclass(frozen=True)
class Trained:
    """A trained model and what it took."""

    backbone: Backbone
    seconds: float
    step_seconds: float  # of them, first batch to last step


def trunk_of(system: System, config: RunConfig, splits: Splits) -> Trunk:
    """A fresh model, frozen, with LoRA where the system wants it."""
    backbone = load_text_backbone(config.backbone, splits.labels, config.data.max_length, config.training.seed)
    trunk = Trunk(backbone, system.freeze)
    if system.adapter == "lora":
        lora.attach(trunk, config.adapter)
    return trunk


def train_system(system: System, config: RunConfig, splits: Splits, store: ActivationStore) -> Trained:
    """Train once.

    Args:
        config: seed and learning rate set.
        splits: training and validation items; only Rootstock looks at the latter, after every epoch, off the clock.
        store: used by systems that have one.
    """
    trunk = trunk_of(system, config, splits)
    run = _train_ours if system.ours else _train_trainer
    seconds, steps = run(system, trunk, config, splits, store)
    return Trained(finished_model(trunk), seconds, steps)


def _train_ours(
    system: System, trunk: Trunk, config: RunConfig, splits: Splits, store: ActivationStore
) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        accelerator = start_accelerator(system.precision, (), Path(scratch))
        checkpoints = Checkpoints(Path(scratch) / "checkpoints")
        kept = store if system.store else None
        events = tune(trunk, splits, splits.train, config, accelerator, system.precision, checkpoints, _never, kept)
        progress = finished(events)
    return progress.seconds, progress.seconds - progress.before


def _never() -> bool:
    return False


def _train_trainer(
    system: System, trunk: Trunk, config: RunConfig, splits: Splits, _: ActivationStore
) -> tuple[float, float]:
    backbone, targets, clock = trunk.backbone, splits.targets(splits.train), _Clock()
    assert isinstance(backbone, TextBackbone)
    started = time.perf_counter()
    encodings = backbone.encode(column(splits.train, "text"))
    tokenization = time.perf_counter() - started
    rows = [{"input_ids": ids, "labels": int(t)} for ids, t in zip(encodings, targets, strict=True)]
    options: dict[str, Any] = _tuned(system, config, len(rows)) if system.tuned else {}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=config.training.epochs,
            per_device_train_batch_size=config.training.batch_size,
            learning_rate=config.training.learning_rate,
            seed=config.training.seed,
            use_cpu=device().type == "cpu",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **options,
        )
        Trainer(
            model=backbone.adapter or backbone.model,
            args=arguments,
            train_dataset=rows,
            processing_class=backbone.tokenizer,  # its default collator pads each batch
            compute_loss_func=_weighted_loss(backbone, config, targets) if system.tuned else None,
            callbacks=[clock],
        ).train()
    steps = clock.last_step - clock.begin
    return tokenization + steps, steps


def _tuned(system: System, config: RunConfig, items: int) -> dict[str, Any]:
    recipe = config.training
    steps = -(-items // recipe.batch_size) * recipe.epochs
    return {
        "train_sampling_strategy": "group_by_length",
        "bf16": system.precision == "bf16",
        "fp16": system.precision == "fp16",
        "optim": "adamw_torch_fused",
        "warmup_steps": round(recipe.warmup_frac * steps),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "logging_steps": 10,
    }


def _weighted_loss(backbone: Backbone, config: RunConfig, targets: Any) -> Callable[..., torch.Tensor]:
    values = class_weights(targets, len(backbone.labels), config.training.class_weights)
    weights = torch.tensor(values, dtype=torch.float32).to(device())

    def weighted_loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits.float(), labels, weight=weights)

    return weighted_loss


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Times, in seconds, of the first batch and of the end of the last optimizer step."""

    begin = last_step = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begin = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.last_step = time.perf_counter()
