"""The one training loop, on Accelerate: CPU, one GPU or many. It yields events; the caller decides what they mean.

Head-only, LoRA and full fine-tuning differ only in which parameters are trainable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.metrics import accuracy_score
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from transformers import get_scheduler

from pipelines.batches import epoch_batches, share, stream_seed
from pipelines.checkpoint import Checkpoints, Tensors, TrainingState, optimizer_tensors, restore_optimizer
from pipelines.config import TrainingConfig
from pipelines.device import Precision
from pipelines.dropout import CheapDropout
from pipelines.encoded import Encoded
from pipelines.errors import Interrupted, TrainingError
from pipelines.metrics import macro_f1
from pipelines.predict import logits_of
from pipelines.records import Checkpoint, Event, FloatArray, IntArray, Step, Validation
from pipelines.trunk import Trunk

UNEVEN = 1.5  # largest over smallest class from which `class_weights: auto` balances
REPORT_STEPS = 10  # optimizer steps between two Step events: reading the loss waits for the device


@dataclass(frozen=True)
class TrainingData:
    """Encoded items with their class numbers (N,)."""

    items: Encoded
    targets: IntArray


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
    pending: list[float] = field(default_factory=list)  # losses since the last Step event
    history: list[dict[str, Any]] = field(default_factory=list)  # Step and Validation events


def class_weights(targets: IntArray, classes: int, mode: str) -> FloatArray:
    """Loss weight of every class, (C,): N / (C n_c) when balanced, else 1; C counts the classes that occur."""
    counts = np.bincount(targets, minlength=classes)
    present = np.flatnonzero(counts)
    weights = np.ones(classes)
    if mode == "balanced" or (mode == "auto" and counts.max() >= UNEVEN * counts[present].min()):
        weights[present] = compute_class_weight("balanced", classes=present, y=targets)
    return weights


class Loop:
    """Model, optimizer and schedule of one run, one optimizer step at a time.

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
        self.class_weights = class_weights(data.targets, len(backbone.labels), config.class_weights)
        self.parameters = {n: p for n, p in backbone.model.named_parameters() if p.requires_grad}
        raw = torch.optim.AdamW(
            _decay_groups(self.parameters, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.model, self.optimizer = accelerator.prepare(backbone.model, raw)
        warmup = round(config.warmup_frac * self.total_steps)
        self.schedule = get_scheduler("linear", raw, warmup, self.total_steps)

    def step(self, batch: IntArray, step: int) -> torch.Tensor:
        """One optimizer step on a global batch; returns this process's part of its class-weighted mean loss, times
        the number of processes.

        The loss is normalised over the global batch, not per process, so that the number of processes does not
        change the gradient. Gradients are averaged over processes, hence the factor `world`.
        """
        accelerator = self.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        torch.manual_seed(stream_seed(self.config.seed, step, rank))
        weights = self.class_weights[self.data.targets[batch]]
        own, own_weights = share(batch, weights, rank, world)
        chunks = min(self.config.accumulation, len(own))
        total = torch.zeros((), device=accelerator.device)
        parts = zip(np.array_split(own, chunks), np.array_split(own_weights, chunks), strict=True)
        for number, (items, item_weights) in enumerate(parts, start=1):
            with nullcontext() if number == chunks else accelerator.no_sync(self.model):
                loss = self._loss(items, item_weights) / weights.sum() * world
                accelerator.backward(loss)
            total += loss.detach()
        accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        self.optimizer.step()
        if not accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.optimizer.zero_grad()
        return total

    def _loss(self, items: IntArray, weights: FloatArray) -> torch.Tensor:
        """Weighted sum of the cross-entropies of B items."""
        accelerator = self.accelerator
        targets = torch.from_numpy(self.data.targets[items]).to(accelerator.device)
        with CheapDropout() if accelerator.device.type == "cpu" else nullcontext():
            logits = self.data.items.logits(self.model, items).float()  # (B, C)
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        return (losses * torch.from_numpy(weights).to(losses)).sum()

    def weights(self) -> Tensors:
        """A copy of the trained parameters, on the CPU."""
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self.parameters.items()}

    def set_weights(self, weights: Tensors) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(weights[name])

    def state(self, progress: Progress, best: Tensors) -> TrainingState:
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        extra = {"schedule": self.schedule.state_dict(), "scaler": scaler}
        return TrainingState(vars(progress) | extra, self.weights(), best, optimizer_tensors(self.optimizer))

    def restore(self, state: TrainingState) -> Progress:
        values = dict(state.progress)
        self.schedule.load_state_dict(values.pop("schedule"))
        scaler = values.pop("scaler")
        if scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        self.set_weights(state.weights)
        restore_optimizer(self.optimizer, state.optimizer)
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate  # a restored schedule does not tell the optimizer
        return Progress(**values)


def train(
    trunk: Trunk,
    training: TrainingData,
    validation: TrainingData,
    config: TrainingConfig,
    accelerator: Accelerator,
    precision: Precision,
    checkpoints: Checkpoints,
    saved: TrainingState | None,
    stop: Callable[[], bool],
    begun: Progress | None = None,
) -> Generator[Event, None, Progress]:
    """Train in place and leave the weights of the best validation macro-F1 in the model. Returns where it ended.

    Args:
        trunk: the backbone with its frozen part.
        training, validation: encoded items.
        config: learning rate resolved.
        accelerator: all its processes must call this alike.
        precision: of validation; the accelerator has the same.
        checkpoints: written by the main process.
        saved: the newest of them, which is resumed; None starts afresh.
        stop: asked after every step (several processes answer at the next Step event); True saves a checkpoint and
            raises.
        begun: what a run that is not resumed starts from: the seconds before its first batch.

    Raises:
        Interrupted: after `stop`; the checkpoint is complete.
        TrainingError: the loss is not a number.
    """
    loop = Loop(trunk, training, config, accelerator)
    progress, best = begun or Progress(), {}
    if saved is not None:
        progress, best = loop.restore(saved), saved.best
        if begun is not None and begun.store == "off":
            progress.store = "off"
    session = _Clock(progress)

    def checkpoint() -> Iterator[Event]:
        if accelerator.is_main_process:
            checkpoints.save(loop.state(progress, best))
            yield Checkpoint(progress.step)

    while progress.epoch < config.epochs and not _patience_is_over(progress, config):
        batches = epoch_batches(loop.lengths, config.batch_size, config.seed, progress.epoch)
        trunk.train()
        session.start()
        losses = [torch.tensor(loss, device=accelerator.device) for loss in progress.pending]
        for batch in batches[progress.step - progress.epoch * loop.steps_per_epoch :]:
            losses.append(loop.step(batch, progress.step))
            progress.step += 1
            session.items += len(batch)
            reporting = progress.step % REPORT_STEPS == 0 or progress.step % loop.steps_per_epoch == 0
            if reporting:
                yield _step_event(loop, progress, losses, session)
                losses = []
            stopping = _asked_to_stop(stop, accelerator, reporting)
            if stopping or (config.checkpoint_steps and progress.step % config.checkpoint_steps == 0):
                session.stop()
                progress.pending = [_finite(float(loss), progress.step) for loss in losses]
                yield from checkpoint()
                if stopping:
                    accelerator.wait_for_everyone()  # or the launcher ends the one that is still saving
                    raise Interrupted(f"stopped at step {progress.step} of {loop.total_steps}; a checkpoint was kept")
                session.start()
        session.stop()
        progress.epoch += 1
        progress.pending = []
        event = _validate(loop, validation, precision, progress)
        if event.best:
            best = loop.weights()
        yield event
        yield from checkpoint()

    loop.set_weights(best)
    accelerator.unwrap_model(loop.model, keep_fp32_wrapper=False)
    return progress


def _validate(loop: Loop, data: TrainingData, precision: Precision, progress: Progress) -> Validation:
    """Score the validation part and record it in `progress`."""
    logits = logits_of(data.items, precision, loop.accelerator)
    predicted = logits.argmax(axis=1)
    loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(data.targets))
    score = macro_f1(data.targets, predicted)
    best = score > progress.best_macro_f1
    progress.epochs_without_gain = 0 if best else progress.epochs_without_gain + 1
    if best:
        progress.best_macro_f1, progress.best_step = score, progress.step
    event = Validation(
        step=progress.step,
        epoch=float(progress.epoch),
        loss=float(loss),
        accuracy=float(accuracy_score(data.targets, predicted)),
        macro_f1=score,
        best=best,
    )
    progress.history.append(event.to_json())
    return event


def _step_event(loop: Loop, progress: Progress, losses: list[torch.Tensor], session: _Clock) -> Step:
    mean = torch.stack(losses).mean()
    loss = _finite(float(loop.accelerator.reduce(mean, reduction="mean")), progress.step)
    session.update()
    rate = session.items / session.seconds
    remaining = (loop.total_steps - progress.step) * loop.config.batch_size / rate
    learning_rate = float(loop.schedule.get_last_lr()[0])
    event = Step(
        progress.step, loop.total_steps, progress.step / loop.steps_per_epoch, loss, learning_rate, rate, remaining
    )
    progress.history.append(event.to_json())
    return event


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is not a number at step {step}; lower training.learning_rate or use precision fp32"
        )
    return loss


def _asked_to_stop(stop: Callable[[], bool], accelerator: Accelerator, reporting: bool) -> bool:
    """Whether to stop now: all processes must agree, and agreeing waits, so several do it only where they report."""
    if accelerator.num_processes == 1:
        return stop()
    if stop():
        accelerator.set_trigger()
    return reporting and bool(accelerator.check_trigger())


def _patience_is_over(progress: Progress, config: TrainingConfig) -> bool:
    return config.patience is not None and progress.epochs_without_gain >= config.patience


def _decay_groups(parameters: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: not on biases and norms, which are vectors."""
    matrices = [p for p in parameters.values() if p.ndim > 1]
    vectors = [p for p in parameters.values() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


class _Clock:
    """Adds the training seconds of this process to `progress.seconds`; counts its items for the rate."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.items = 0
        self.seconds = 0.0
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def update(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._started
        self.progress.seconds += now - self._started
        self._started = now

    def stop(self) -> None:
        self.update()
