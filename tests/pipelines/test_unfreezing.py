"""Gradual unfreezing: what is trained when, what a checkpoint knows of it, and that a resumed run goes on alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.checkpoint import Checkpoints
from pipelines.errors import ConfigError, Interrupted
from pipelines.records import Checkpoint, Stage, Step, Validation
from pipelines.train import train
from pipelines.trunk import Freeze
from pipelines.unfreezing import open_next, refuse_what_never_opens
from tests.pipelines.test_train import Run, assert_equal, stop_after


def layers_of(names: Any) -> set[str]:
    """Hidden layers of parameters, `head` and `embeddings`."""
    found = set()
    for name in names:
        inside = name.removeprefix("bert.encoder.layer.")
        below = "embeddings" if "embeddings" in name else "head"
        found.add(inside.split(".")[0] if inside != name else below)
    return found


def open_layers(run: Run) -> set[str]:
    return layers_of(n for n, p in run.trunk.backbone.model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("freeze", "each", "expected"),
    [
        (1, 1, [{"head", "2"}, {"head", "1", "2"}, {"head", "1", "2"}, {"head", "1", "2"}]),
        (1, 2, [{"head", "1", "2"}] * 4),
        (0, 1, [{"head", "2"}, {"head", "1", "2"}, {"head", "0", "1", "2"}, {"head", "0", "1", "2"}]),
        ("none", 2, [{"head", "1", "2"}, *[{"head", "0", "1", "2", "embeddings"}] * 3]),
    ],
)
def test_hidden_layers_open_from_the_top(freeze: Freeze, each: int, expected: list[set[str]], tmp_path: Path) -> None:
    """After each of four epochs; before the first is over it is the head alone."""
    run = Run(tmp_path, freeze=freeze, unfreeze="epoch", unfreeze_layers=each, epochs=4)
    data, checkpoints = (run.training, run.validation), Checkpoints(tmp_path / "c")
    found, in_training_mode = [], []
    for event in train(run.trunk, *data, run.config, run.accelerator, "fp32", checkpoints, None, lambda: False):
        if isinstance(event, Step):
            in_training_mode.append([layer.training for layer in run.trunk.backbone.layers])
        if isinstance(event, Validation) and event.epoch == 1:
            assert open_layers(run) == {"head"}
        if isinstance(event, Checkpoint):
            found.append(open_layers(run))
    assert found == expected
    assert in_training_mode[0] == [False] * 3
    assert in_training_mode[-1] == [str(number) in expected[-1] for number in range(3)]


def test_what_waits_keeps_its_weights_and_has_no_moments(tmp_path: Path) -> None:
    run = Run(tmp_path, freeze=1, unfreeze="epoch", epochs=3)
    before = run.weights()
    with pytest.raises(Interrupted):
        run.go(stop=stop_after(7))  # the whole first epoch
    after = run.weights()
    changed = layers_of(name for name in before if not torch.equal(before[name], after[name]))
    assert changed == {"head"}
    saved = Checkpoints(tmp_path / "checkpoints").newest()
    assert saved is not None
    assert saved.progress["opened"] == 0
    with_moments = {key.split("/")[0] for key in saved.optimizer}
    assert len(with_moments) == sum(layers_of([name]) == {"head"} for name in saved.weights)
    assert layers_of(saved.weights) == {"head", "1", "2"}  # what waits is saved too


@pytest.mark.parametrize("mode", ["epoch", "stall"])
@pytest.mark.parametrize("step", [5, 7, 8, 14, 20, 27])
def test_a_stopped_run_resumes_bit_for_bit(mode: str, step: int, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"freeze": 1, "unfreeze": mode, "epochs": 4, "layer_decay": 0.5}
    whole, stopped, resumed = (Run(tmp_path, **settings) for _ in range(3))
    whole.go("whole")
    with pytest.raises(Interrupted):
        stopped.go("parts", stop=stop_after(step))
    resumed.go("parts")
    a, b = (Checkpoints(tmp_path / name).newest() for name in ("whole", "parts"))
    assert a is not None
    assert b is not None
    assert a.progress["opened"] == b.progress["opened"]
    for one, other in ((a.weights, b.weights), (a.best, b.best), (a.optimizer, b.optimizer)):
        assert_equal(one, other)
    assert_equal(whole.weights(), resumed.weights())


def test_a_stall_opens_the_next_and_patience_waits_for_it(tmp_path: Path) -> None:
    """A learning rate of nothing gains nothing after the first epoch."""
    run = Run(tmp_path, freeze=1, unfreeze="stall", epochs=20, patience=2, learning_rate=1e-12)
    progress = run.go()
    told = [event.message for event in run.events if isinstance(event, Stage)]
    assert told == ["training 1 hidden layer from epoch 3 on", "training 2 hidden layers from epoch 4 on"]
    assert progress.opened == 2
    assert progress.epoch == 5  # two without a gain, counted from the last that was opened


def test_while_validation_gains_nothing_opens(tmp_path: Path) -> None:
    run = Run(tmp_path, freeze=1, unfreeze="stall")
    assert open_next(run.trunk, run.config, 1, gained=True) == run.trunk.opened


def test_it_learns(tmp_path: Path) -> None:
    """With as many epochs for the hidden layers as `test_train` gives them, after those in which they wait."""
    assert Run(tmp_path, freeze=1, unfreeze="epoch", epochs=20).go().best_macro_f1 > 0.9


@pytest.mark.parametrize(
    ("freeze", "settings", "message"),
    [
        ("all", {"unfreeze": "stall"}, r"expected hidden layers above the freeze point, found none"),
        (0, {"unfreeze": "epoch", "epochs": 3}, r"3 hidden layers .* 1 opened after each epoch, need 4 epochs or more"),
    ],
)
def test_what_would_never_open_is_refused(
    freeze: Freeze, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = Run(tmp_path, freeze=freeze, **settings)
    with pytest.raises(ConfigError, match=message):
        refuse_what_never_opens(run.trunk, run.config)
