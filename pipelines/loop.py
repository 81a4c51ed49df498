"""Model, optimizer and schedule of a training, one optimizer step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import PreTrainedModel, get_scheduler

from pipelines.batches import balanced_draw, epoch_batches, share, stream_seed
from pipelines.checkpoint import Tensors, TrainingState, optimizer_tensors, restore_optimizer
from pipelines.config import TrainingConfig
from pipelines.dropout import CheapDropout
from pipelines.encoded import Encoded
from pipelines.errors import TrainingError
from pipelines.lesson import Lesson
from pipelines.losses import item_losses, loss_weights
from pipelines.parameter_groups import parameter_groups
from pipelines.records import FloatArray, IntArray
from pipelines.trunk import Trunk


@dataclass(frozen=True)
class TrainingData:
    """Encoded items with their class numbers (N,); one without a label has -1, and only a lesson tells of it."""

    items: Encoded
    targets: IntArray
    lesson: Lesson | None = None


@dataclass
class Progress:
    """Where a run stands; what a checkpoint keeps besides tensors."""

    step: int = 0
    epoch: int = 0  # complete epochs
    best_macro_f1: float = -1.0
    best_step: int = 0
    epochs_without_gain: int = 0
    seconds: float = 0.0  # training only: validation and saving excluded
    before: float = 0.0  # of them, before the first batch: tokenization, hidden states that the store lacked
    store: str = "off"  # how the hidden states at the cut were had: cold, warm, or off
    opened: int = 0  # hidden layers that are trained; as of the newest checkpoint, as is what follows
    passes: int = 0  # forward passes of a step, more than `accumulation` once memory ran out
    pending: list[float] = field(default_factory=list)  # losses since the last Step event
    history: list[dict[str, Any]] = field(default_factory=list)  # Step and Validation events


class Loop:
    """Model, optimizer and schedule of one run, one optimizer step at a time.

    The optimizer holds every parameter above the cut from the start; those that wait to be opened have no gradient,
    and AdamW leaves them and their moments alone.

    Args:
        trunk: the backbone with its frozen part; trained in place.
        data: training items.
        config: learning rate resolved.
        accelerator: processes, device and precision.
    """

    def __init__(self, trunk: Trunk, data: TrainingData, config: TrainingConfig, accelerator: Accelerator) -> None:
        assert not isinstance(config.learning_rate, str)
        self.trunk, self.data, self.config, self.accelerator = trunk, data, config, accelerator
        backbone = trunk.backbone
        self.lengths = data.items.lengths
        self.steps_per_epoch = math.ceil(len(self.lengths) / config.batch_size)
        self.total_steps = self.steps_per_epoch * config.epochs
        self.passes = config.accumulation
        self.loss_weights = loss_weights(data.targets, len(backbone.labels), config)
        self.parameters = {n: p for n, p in backbone.model.named_parameters() if p.requires_grad}
        if config.gradient_checkpointing:
            _checkpoint_gradients(backbone.model, self._dropout)
        self.raw = torch.optim.AdamW(
            parameter_groups(self.parameters, backbone, config), lr=config.learning_rate, fused=True
        )
        if config.unfreeze != "none":
            trunk.open(0)
        self.model, self.optimizer = accelerator.prepare(backbone.model, self.raw)
        if accelerator.scaler is not None:  # it may come from a training before; a run has the same bits after any
            accelerator.scaler.load_state_dict(type(accelerator.scaler)(accelerator.device.type).state_dict())
        warmup = round(config.warmup_frac * self.total_steps)
        self.schedule = get_scheduler("linear", self.raw, warmup, self.total_steps)

    def open(self, layers: int) -> None:
        """Train this many hidden layers from the top. Several processes exchange gradients of what they were told of
        when they were connected, so they are connected anew."""
        if layers == self.trunk.opened:
            return
        self.trunk.open(layers)
        if self.accelerator.num_processes > 1:
            model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            del self.model, self.optimizer
            self.accelerator.free_memory()
            clear_device_cache(garbage_collection=True)  # the hooks of the old connection go with it
            self.model, self.optimizer = self.accelerator.prepare(model, self.raw)

    def batches(self, epoch: int) -> list[IntArray]:
        """The global batches of an epoch, as item numbers."""
        config, drawn = self.config, np.arange(len(self.lengths))
        if config.oversampling == "balanced":
            drawn = balanced_draw(self.data.targets, config.seed, epoch)
        lengths = [self.lengths[number] for number in drawn]
        return [drawn[batch] for batch in epoch_batches(lengths, config.batch_size, config.seed, epoch)]

    def step(self, batch: IntArray, step: int) -> torch.Tensor:
        """One optimizer step on a global batch; returns this process's part of its class-weighted mean loss, times
        the number of processes.

        Where memory runs out, twice as many passes share the batch from now on.

        Raises:
            TrainingError: memory does not suffice for one item, or runs out with several processes, which would wait
                for each other.
        """
        while True:
            try:
                loss = self._gradient(batch, step)
                break
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
            self._halve(batch)
            self.optimizer.zero_grad()
            clear_device_cache(garbage_collection=True)  # here, where the error holds nothing any more
        self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        self.optimizer.step()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()
        return loss

    def _gradient(self, batch: IntArray, step: int) -> torch.Tensor:
        """Forward and backward passes of a batch; returns the loss.

        The loss is normalised over the global batch, not per process, so that the number of processes does not
        change the gradient. Gradients are averaged over processes, hence the factor `world`.
        """
        accelerator = self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        torch.manual_seed(stream_seed(self.config.seed, step, rank))
        by_label = self.loss_weights[batch]
        of_all = by_label.sum() or 1.0, len(batch)
        own, own_weights = share(batch, np.stack([by_label, np.ones(len(batch))], axis=1), rank, world)
        passes = min(self.passes, len(own))
        total = torch.zeros((), device=accelerator.device)
        parts = zip(np.array_split(own, passes), np.array_split(own_weights, passes), strict=True)
        for number, (items, item_weights) in enumerate(parts, start=1):
            with nullcontext() if number == passes else accelerator.no_sync(self.model):
                loss = self._loss(items, item_weights, of_all) * world
                accelerator.backward(loss)
            total += loss.detach()
        return total

    def _loss(self, items: IntArray, weights: FloatArray, of_all: tuple[float, int]) -> torch.Tensor:
        """Part of a batch's loss that B of its items make.

        Args:
            weights: (B, 2) of the loss by label, and of that by a lesson.
            of_all: sums of these two over the batch.
        """
        targets = torch.from_numpy(self.data.targets[items]).to(self.accelerator.device)
        with self._dropout():
            logits = self.data.items.logits(self.model, items).float()  # (B, C)
        losses = item_losses(logits, targets, self.config)
        labelled, taught = torch.from_numpy(weights).to(losses).unbind(dim=1)
        loss = (losses * labelled).sum() / of_all[0]
        lesson = self.data.lesson
        if lesson is None:
            return loss
        share_of_lesson = lesson.config.weight
        told = (lesson.losses(logits, items) * taught).sum() / of_all[1]
        return (1 - share_of_lesson) * loss + share_of_lesson * told

    def _dropout(self) -> AbstractContextManager[object]:
        return CheapDropout() if self.accelerator.device.type == "cpu" else nullcontext()

    def _halve(self, batch: IntArray) -> None:
        processes = self.accelerator.num_processes
        if processes > 1 or self.passes >= len(batch):
            raise TrainingError(
                f"out of memory with {self.passes} passes a step on {processes} process{'es' * (processes > 1)}; raise "
                "training.accumulation, lower data.max_length, or set training.gradient_checkpointing: true"
            )
        self.passes *= 2

    def weights(self) -> Tensors:
        """A copy of the trained parameters, on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.parameters.items()}

    def set_weights(self, weights: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def state(self, progress: Progress, best: Tensors) -> TrainingState:
        progress.opened, progress.passes = self.trunk.opened, self.passes
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        extra = {"schedule": self.schedule.state_dict(), "scaler": scaler}
        return TrainingState(vars(progress) | extra, self.weights(), best, optimizer_tensors(self.optimizer))

    def restore(self, state: TrainingState) -> Progress:
        values = dict(state.progress)
        self.schedule.load_state_dict(values.pop("schedule"))
        scaler = values.pop("scaler")
        if scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        self.passes = values["passes"]
        self.open(values["opened"])
        self.set_weights(state.weights)
        restore_optimizer(self.optimizer, state.optimizer)
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate  # a restored schedule does not tell the optimizer
        return Progress(**values)


def _checkpoint_gradients(model: PreTrainedModel, dropout: Callable[[], AbstractContextManager[object]]) -> None:
    """Keep no hidden states inside the trained layers for the backward pass (Chen et al. 2016, arXiv 1604.06174).

    Layers that are frozen keep none in any case, as long as the embeddings' output needs no gradient. A last layer that
    is run for one token keeps its own (`first_token`).

    Args:
        dropout: context in which layers are computed, the second time too: masks must be the same.
    """

    def contexts() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
        return nullcontext(), dropout()

    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    model.disable_input_require_grads()  # which only the reentrant kind needs
