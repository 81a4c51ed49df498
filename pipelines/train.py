"""The one training loop, on Accelerate: CPU, one GPU or many. It yields events; the caller decides what they mean.

Head-only, LoRA and full fine-tuning differ only in which parameters are trainable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator

import torch
from accelerate import Accelerator
from sklearn.metrics import accuracy_score
from torch import nn

from pipelines.checkpoint import Checkpoints, TrainingState
from pipelines.config import TrainingConfig
from pipelines.device import Precision
from pipelines.errors import Interrupted, TrainingError
from pipelines.loop import Loop, Progress, TrainingData
from pipelines.metrics import macro_f1
from pipelines.predict import logits_of
from pipelines.records import Checkpoint, Event, Stage, Step, Validation
from pipelines.trunk import Trunk
from pipelines.unfreezing import open_next

REPORT_STEPS = 10  # optimizer steps between two Step events: reading the loss waits for the device


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
        TrainingError: the loss is not a number, or memory ran out.
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
        batches = loop.batches(progress.epoch)
        trunk.train()
        session.start()
        losses = [torch.tensor(loss, device=accelerator.device) for loss in progress.pending]
        for batch in batches[progress.step - progress.epoch * loop.steps_per_epoch :]:
            passes = loop.passes
            losses.append(loop.step(batch, progress.step))
            if loop.passes != passes:
                since = f"from step {progress.step + 1} on a batch takes {loop.passes} passes"
                yield Stage("memory", f"it ran out: {since}")
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
        opened = open_next(trunk, config, progress.epoch, event.best)
        if opened != trunk.opened and progress.epoch < config.epochs:
            loop.open(opened)
            progress.epochs_without_gain = 0  # patience is with what is trained now
            layers = f"{opened} hidden layer{'s' * (opened > 1)}"
            yield Stage("unfreeze", f"training {layers} from epoch {progress.epoch + 1} on")
        yield from checkpoint()

    loop.set_weights(best)
    if config.gradient_checkpointing:
        trunk.backbone.model.activation_checkpointing_disable()
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
