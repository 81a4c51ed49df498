"""The training loop: it learns, it is deterministic, it resumes bit for bit, and accumulation changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from pipelines import lora
from pipelines.backbones import load_text_backbone
from pipelines.batches import epoch_batches, stream_seed
from pipelines.checkpoint import Checkpoints, Tensors
from pipelines.config import AdapterConfig, BackboneConfig, TrainingConfig
from pipelines.device import start_accelerator
from pipelines.dropout import CheapDropout
from pipelines.encoded import Encoded
from pipelines.errors import Interrupted, TrainingError
from pipelines.loop import Progress, TrainingData
from pipelines.metrics import macro_f1
from pipelines.predict import predict_logits
from pipelines.records import Checkpoint, Event, Step, Validation
from pipelines.train import train
from pipelines.trunk import Freeze, Trunk
from tests.toys import tiny_backbone, toy_rows


class Run:
    """One training run on toy data; `events` and `weights` are filled by `go`."""

    def __init__(self, folder: Path, freeze: Freeze = 1, adapter: Any = "none", **settings: Any) -> None:
        if not (folder / "tiny").exists():
            tiny_backbone(folder / "tiny")
        self.folder = folder
        backbone = load_text_backbone(BackboneConfig(name=str(folder / "tiny")), ("calm", "harsh"), 32, seed=0)
        self.trunk = Trunk(backbone, freeze)
        if adapter != "none":
            lora.attach(self.trunk, AdapterConfig(type=adapter, r=2))
        rows = toy_rows(70)
        encodings = backbone.encode([row["text"] for row in rows])
        targets = np.array([row["label"] == "harsh" for row in rows]).astype(np.int64)
        self.training = TrainingData(Encoded(backbone, encodings[:50]), targets[:50])
        self.validation = TrainingData(Encoded(backbone, encodings[50:]), targets[50:])
        defaults: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "precision": "fp32"}
        self.config = TrainingConfig(**defaults | settings)
        self.accelerator = start_accelerator("fp32", (), folder)
        self.events: list[Event] = []

    def go(self, name: str = "checkpoints", stop: Callable[[], bool] = lambda: False) -> Progress:
        checkpoints = Checkpoints(self.folder / name)
        saved, data = checkpoints.newest(), (self.training, self.validation)
        events = train(self.trunk, *data, self.config, self.accelerator, "fp32", checkpoints, saved, stop)
        while True:
            try:
                self.events.append(next(events))
            except StopIteration as end:
                progress: Progress = end.value
                return progress

    def weights(self) -> Tensors:
        return {name: tensor.clone() for name, tensor in self.trunk.backbone.model.state_dict().items()}


def assert_equal(first: Tensors, second: Tensors) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def assert_same_end(folder: Path, first: str, second: str) -> None:
    """The last checkpoints of two runs are bitwise equal: weights, best weights and optimizer."""
    a, b = Checkpoints(folder / first).newest(), Checkpoints(folder / second).newest()
    assert a is not None
    assert b is not None
    assert a.progress["step"] == b.progress["step"] == 21
    assert_equal(a.weights, b.weights)
    assert_equal(a.best, b.best)
    assert_equal(a.optimizer, b.optimizer)


def told(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events without what the clock decides."""
    return [{k: v for k, v in event.items() if k not in ("items_per_second", "remaining_s")} for event in history]


def stop_after(steps: int) -> Callable[[], bool]:
    calls = iter(range(1, 10_000))
    return lambda: next(calls) >= steps


def test_it_learns_what_the_toy_words_tell(tmp_path: Path) -> None:
    run = Run(tmp_path, epochs=10)
    progress = run.go()
    assert progress.best_macro_f1 > 0.9
    logits = predict_logits(run.trunk.backbone, run.validation.items.encodings, "fp32")
    assert np.mean(logits.argmax(axis=1) == run.validation.targets) > 0.9


def test_events_tell_steps_epochs_and_learning_rate(tmp_path: Path) -> None:
    run = Run(tmp_path)
    progress = run.go()
    steps = [event for event in run.events if isinstance(event, Step)]
    checks = [event for event in run.events if isinstance(event, Validation)]
    assert steps[-1].step == steps[-1].total_steps == 3 * math.ceil(50 / 8) == progress.step
    assert [event.epoch for event in checks] == [1.0, 2.0, 3.0]
    assert steps[-1].learning_rate == pytest.approx(0.0)
    assert steps[-1].remaining_s == 0
    assert all(event.loss > 0 and event.items_per_second > 0 for event in steps)
    assert progress.best_macro_f1 == max(event.macro_f1 for event in checks)
    assert [event.step for event in run.events if isinstance(event, Checkpoint)] == [7, 14, 21]


def test_the_best_epoch_is_kept_not_the_last(tmp_path: Path) -> None:
    run = Run(tmp_path, epochs=4, learning_rate=0.03)
    progress = run.go()
    logits = predict_logits(run.trunk.backbone, run.validation.items.encodings, "fp32")
    best = next(e for e in run.events if isinstance(e, Validation) and e.step == progress.best_step)
    assert float(np.mean(logits.argmax(axis=1) == run.validation.targets)) == pytest.approx(best.accuracy)


def test_same_seed_same_bits_other_seed_other_bits(tmp_path: Path) -> None:
    first, second, third = Run(tmp_path), Run(tmp_path), Run(tmp_path, seed=1)
    first.go("a")
    second.go("b")
    third.go("c")
    assert_equal(first.weights(), second.weights())
    assert any(not torch.equal(a, b) for a, b in zip(first.weights().values(), third.weights().values(), strict=True))


@pytest.mark.parametrize("step", [1, 6, 7, 8, 13, 20])
def test_a_stopped_run_resumes_bit_for_bit(step: int, tmp_path: Path) -> None:
    whole = Run(tmp_path)
    whole.go("whole")
    stopped = Run(tmp_path)
    with pytest.raises(Interrupted, match=rf"stopped at step {step} of 21; a checkpoint was kept"):
        stopped.go("parts", stop=stop_after(step))
    resumed = Run(tmp_path)
    progress = resumed.go("parts")
    assert progress.step == 21
    assert_same_end(tmp_path, "whole", "parts")
    assert_equal(whole.weights(), resumed.weights())
    assert told(progress.history) == told([e.to_json() for e in whole.events if isinstance(e, Step | Validation)])


@pytest.mark.parametrize("adapter", ["none", "lora", "rslora", "dora"])
def test_a_killed_run_resumes_from_the_last_checkpoint(adapter: str, tmp_path: Path) -> None:
    """Dropping the generator between two events is what SIGKILL leaves: no farewell checkpoint."""
    whole = Run(tmp_path, adapter=adapter, checkpoint_steps=5)
    whole.go("whole")
    killed = Run(tmp_path, adapter=adapter, checkpoint_steps=5)
    events = train(
        killed.trunk, killed.training, killed.validation, killed.config, killed.accelerator, "fp32",
        Checkpoints(tmp_path / "parts"), None, lambda: False,
    )  # fmt: skip
    while not (isinstance(event := next(events), Checkpoint) and event.step == 10):
        pass
    events.close()
    resumed = Run(tmp_path, adapter=adapter, checkpoint_steps=5)
    resumed.go("parts")
    assert next(e.step for e in resumed.events if isinstance(e, Checkpoint)) == 14
    assert_same_end(tmp_path, "whole", "parts")
    assert_equal(whole.weights(), resumed.weights())


def test_a_finished_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    first = Run(tmp_path)
    first.go()
    again = Run(tmp_path)
    again.go()
    assert not [event for event in again.events if isinstance(event, Step)]
    assert_equal(first.weights(), again.weights())


def test_no_checkpoint_is_made_of_a_loss_that_is_no_number(tmp_path: Path) -> None:
    run = Run(tmp_path, checkpoint_steps=3)
    with torch.no_grad():
        next(p for p in run.trunk.backbone.model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(TrainingError, match="not a number at step 3"):
        run.go()
    assert Checkpoints(tmp_path / "checkpoints").newest() is None


def test_patience_ends_training_early(tmp_path: Path) -> None:
    run = Run(tmp_path, epochs=20, patience=2, learning_rate=1e-9)
    progress = run.go()
    assert progress.epoch == 3
    assert progress.epochs_without_gain == 2


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with torch.no_grad():
        next(p for p in run.trunk.backbone.model.parameters() if p.requires_grad).fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"not a number at step 7; lower training\.learning_rate"):
        run.go()


def test_plain_training_is_the_plain_loop(tmp_path: Path) -> None:
    """With every option off: cross-entropy, AdamW, one learning rate, each item once an epoch, bit for bit."""
    run, plain = Run(tmp_path), Run(tmp_path)
    run.go()
    model, data, config = plain.trunk.backbone.model, plain.training, plain.config
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [[p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]]
    decays = [{"params": own, "weight_decay": decay} for own, decay in zip(groups, (0.01, 0.0), strict=True)]
    optimizer = torch.optim.AdamW(decays, lr=0.01, fused=True)
    schedule = get_scheduler("linear", optimizer, round(0.1 * 21), 21)
    step, scores, best = 0, [], {}
    for epoch in range(3):
        plain.trunk.train()
        for batch in epoch_batches(data.items.lengths, 8, config.seed, epoch):
            torch.manual_seed(stream_seed(config.seed, step, 0))
            with CheapDropout():
                logits = data.items.logits(model, batch)
            losses = torch.nn.functional.cross_entropy(logits, torch.from_numpy(data.targets[batch]), reduction="none")
            (losses.sum() / len(batch)).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
        predicted = predict_logits(plain.trunk.backbone, plain.validation.items.encodings, "fp32").argmax(axis=1)
        scores.append(macro_f1(plain.validation.targets, predicted))
        if scores[-1] == max(scores) and scores.count(scores[-1]) == 1:
            best = plain.weights()
    model.load_state_dict(best)
    assert_equal(run.weights(), plain.weights())
