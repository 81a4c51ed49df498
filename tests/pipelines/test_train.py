"""The training loop: it learns, it is deterministic, it resumes bit for bit, and accumulation changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import lora
from pipelines.backbones import load_text_backbone
from pipelines.checkpoint import Checkpoints, Tensors
from pipelines.config import AdapterConfig, BackboneConfig, TrainingConfig
from pipelines.device import start_accelerator
from pipelines.encoded import Encoded
from pipelines.errors import Interrupted, TrainingError
from pipelines.predict import predict_logits
from pipelines.records import Checkpoint, Event, Step, Validation
from pipelines.train import Loop, Progress, TrainingData, class_weights, train
from pipelines.trunk import Freeze, Trunk
from tests.toys import tiny_backbone, toy_rows


class Run:
    """One training run on toy data; `events` and `weights` are filled by `go`."""

    def __init__(self, folder: Path, freeze: Freeze = 1, use_lora: bool = False, **settings: Any) -> None:
        if not (folder / "tiny").exists():
            tiny_backbone(folder / "tiny")
        self.folder = folder
        backbone = load_text_backbone(BackboneConfig(name=str(folder / "tiny")), ("calm", "harsh"), 32, seed=0)
        self.trunk = Trunk(backbone, freeze)
        if use_lora:
            lora.attach(self.trunk, AdapterConfig(type="lora", r=2))
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


@pytest.mark.parametrize("use_lora", [False, True])
def test_a_killed_run_resumes_from_the_last_checkpoint(use_lora: bool, tmp_path: Path) -> None:
    """Dropping the generator between two events is what SIGKILL leaves: no farewell checkpoint."""
    whole = Run(tmp_path, use_lora=use_lora, checkpoint_steps=5)
    whole.go("whole")
    killed = Run(tmp_path, use_lora=use_lora, checkpoint_steps=5)
    events = train(
        killed.trunk, killed.training, killed.validation, killed.config, killed.accelerator, "fp32",
        Checkpoints(tmp_path / "parts"), None, lambda: False,
    )  # fmt: skip
    while not (isinstance(event := next(events), Checkpoint) and event.step == 10):
        pass
    events.close()
    resumed = Run(tmp_path, use_lora=use_lora, checkpoint_steps=5)
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


def test_accumulation_gives_the_same_gradient(tmp_path: Path) -> None:
    """Unequal chunks with class weights: a mean per chunk would differ."""
    gradients = []
    for accumulation in (1, 3):
        run = Run(tmp_path, accumulation=accumulation, class_weights="balanced", max_grad_norm=1e9)
        for module in run.trunk.backbone.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        run.training.targets[:30] = 0
        loop = Loop(run.trunk, run.training, run.config, run.accelerator)
        loop.optimizer.zero_grad = lambda: None  # so that the gradients can be looked at
        run.trunk.train()
        loss = loop.step(np.arange(25, 45), 0)
        gradients.append((float(loss), {n: p.grad.clone() for n, p in loop.parameters.items()}))  # type: ignore[union-attr]
    assert gradients[0][0] == pytest.approx(gradients[1][0], abs=1e-6)
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradient, gradients[1][1][name], atol=1e-6, rtol=1e-4)


def test_the_loss_is_the_class_weighted_mean(tmp_path: Path) -> None:
    run = Run(tmp_path, class_weights="balanced")
    run.training.targets[:40] = 0
    loop = Loop(run.trunk, run.training, run.config, run.accelerator)
    run.trunk.backbone.model.eval()
    batch = np.arange(36, 44)
    logits = predict_logits(run.trunk.backbone, [run.training.items.encodings[i] for i in batch], "fp32")
    counts = np.bincount(run.training.targets)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(run.training.targets[batch]), torch.from_numpy(50 / (2 * counts))
    )
    assert float(loop.step(batch, 0)) == pytest.approx(float(expected), abs=1e-5)


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


@pytest.mark.parametrize(
    ("mode", "targets", "expected"),
    [
        ("none", [0, 0, 0, 1], [1, 1]),
        ("balanced", [0, 0, 0, 1], [4 / 6, 2]),
        ("auto", [0, 0, 0, 1], [4 / 6, 2]),
        ("auto", [0, 0, 0, 0, 1, 1, 1], [1, 1]),
        ("auto", [0, 0, 0, 1, 1], [5 / 6, 5 / 4]),  # 1.5 times as many is uneven
    ],
)
def test_class_weights(mode: str, targets: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(class_weights(np.array(targets), 2, mode), expected)


@pytest.mark.parametrize(
    ("mode", "targets", "expected"),
    [
        ("none", [0, 0, 0, 2], [1, 1, 1, 1]),
        ("balanced", [0, 0, 0, 2], [4 / 6, 1, 2, 1]),
        ("auto", [0, 0, 0, 2], [4 / 6, 1, 2, 1]),
        ("auto", [0, 0, 2, 2, 3], [5 / 6, 1, 5 / 6, 5 / 3]),
        ("auto", [0, 0, 0, 0, 2, 2, 2], [1, 1, 1, 1]),  # an absent class makes nothing uneven
        ("balanced", [2, 2], [1, 1, 1, 1]),
    ],
)
def test_an_absent_class_counts_for_nothing(mode: str, targets: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(class_weights(np.array(targets), 4, mode), expected)


def test_biases_and_norms_do_not_decay(tmp_path: Path) -> None:
    run = Run(tmp_path, freeze="none")
    loop = Loop(run.trunk, run.training, run.config, run.accelerator)
    decayed, kept = loop.optimizer.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    assert {p.ndim for p in kept["params"]} == {1}
    assert {p.ndim for p in decayed["params"]} == {2}
