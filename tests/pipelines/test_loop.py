"""One optimizer step: its loss, its gradient however it is computed, what it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.checkpoint import Checkpoints
from pipelines.encoded import Encoded
from pipelines.errors import Interrupted, TrainingError
from pipelines.loop import Loop, TrainingData
from pipelines.predict import predict_logits
from pipelines.records import IntArray, Stage
from pipelines.trunk import Freeze
from tests.pipelines.test_train import Run, assert_same_end, stop_after


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


def test_an_epoch_of_balanced_draws_has_every_class_as_often(tmp_path: Path) -> None:
    run = Run(tmp_path, oversampling="balanced")
    run.training.targets[:] = np.arange(50) >= 45
    loop = Loop(run.trunk, run.training, run.config, run.accelerator)
    drawn = [np.concatenate(loop.batches(epoch)) for epoch in range(20)]
    assert {len(numbers) for numbers in drawn} == {50}
    assert 0.45 < np.mean(run.training.targets[np.concatenate(drawn)]) < 0.55  # a tenth of the items
    np.testing.assert_array_equal(loop.loss_weights, 1)  # counted once
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], np.concatenate(loop.batches(0)))


def test_a_training_starts_with_the_scale_of_a_first_one(tmp_path: Path) -> None:
    """Of fp16 losses: what a training before has left would skip other steps."""
    run = Run(tmp_path)
    fresh = torch.amp.GradScaler("cpu").state_dict()
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    Loop(run.trunk, run.training, run.config, run.accelerator)
    assert run.accelerator.scaler.state_dict() == fresh


@pytest.mark.parametrize("freeze", [1, "none"])
def test_gradient_checkpointing_gives_the_same_bits(freeze: Freeze, tmp_path: Path) -> None:
    plain, saving = Run(tmp_path, freeze=freeze), Run(tmp_path, freeze=freeze, gradient_checkpointing=True)
    computed = {"plain": 0, "saving": 0}
    for name, run in (("plain", plain), ("saving", saving)):
        layer: Any = run.trunk.backbone.layers[1]
        layer.attention.register_forward_hook(lambda *_, name=name: computed.update({name: computed[name] + 1}))
        run.go(name)
    assert_same_end(tmp_path, "plain", "saving")
    assert computed["saving"] - computed["plain"] == 21  # once more in each step
    assert not saving.trunk.backbone.model.is_activation_checkpointing


def test_with_gradient_checkpointing_frozen_layers_keep_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, gradient_checkpointing=True)
    needing: list[bool] = []
    run.trunk.backbone.layers[0].register_forward_hook(lambda *found: needing.append(found[2].requires_grad))
    run.go()
    assert needing
    assert not any(needing)


@pytest.mark.parametrize(
    ("adapter", "unfreeze"), [("none", "none"), ("none", "stall"), ("lora", "none"), ("dora", "none")]
)
def test_what_has_a_gradient_is_what_the_optimizer_holds(adapter: str, unfreeze: str, tmp_path: Path) -> None:
    run = Run(tmp_path, adapter=adapter, unfreeze=unfreeze)
    loop = Loop(run.trunk, run.training, run.config, run.accelerator)
    loop.open(2)
    named = run.trunk.backbone.model.named_parameters()
    assert {name for name, parameter in named if parameter.requires_grad} == set(loop.parameters)


class ShortOfMemory(Encoded):
    """Items of which no more than `most` fit into memory at once."""

    most = 3

    def logits(self, model: torch.nn.Module, numbers: IntArray) -> torch.Tensor:
        if len(numbers) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().logits(model, numbers)


def test_out_of_memory_is_answered_with_more_passes(tmp_path: Path) -> None:
    run, spared = Run(tmp_path), Run(tmp_path, accumulation=4)
    run.training = TrainingData(ShortOfMemory(run.trunk.backbone, run.training.items.encodings), run.training.targets)
    with pytest.raises(Interrupted):
        run.go("short", stop=stop_after(3))
    (told_of,) = [event.message for event in run.events if isinstance(event, Stage)]
    assert told_of == "it ran out: from step 1 on a batch takes 4 passes"
    saved = Checkpoints(tmp_path / "short").newest()
    assert saved is not None
    assert saved.progress["passes"] == 4
    run.events.clear()
    run.go("short")  # knows from its checkpoint
    assert not [event for event in run.events if isinstance(event, Stage)]
    spared.go("spared")
    assert_same_end(tmp_path, "short", "spared")


def test_memory_too_small_for_one_item_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.training = TrainingData(ShortOfMemory(run.trunk.backbone, run.training.items.encodings), run.training.targets)
    run.training.items.most = 0  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match=r"out of memory with 8 passes a step .* raise training\.accumulation"):
        run.go()


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.training.items.logits = lambda *_: torch.zeros(1) @ torch.zeros(2)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="size"):
        run.go()
