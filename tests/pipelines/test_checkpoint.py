"""Checkpoints hold everything that an exact resume needs; only the newest whole one counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.checkpoint import Checkpoints, TrainingState, optimizer_tensors, restore_optimizer


def state(step: int, epoch: int = 1) -> TrainingState:
    weights = {"head.weight": torch.full((2, 3), float(step)), "head.bias": torch.arange(3.0)}
    return TrainingState(
        {"step": step, "epoch": epoch, "best_macro_f1": 0.1 + 0.2, "note": "ä"},
        weights,
        {},
        {"0/step": torch.tensor(3.0)},
    )


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_nothing_saved_nothing_found(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent").newest() is None


def test_a_saved_state_comes_back_exactly(tmp_path: Path) -> None:
    saved = state(5)
    weights = saved.weights | {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "half": torch.tensor([1.5], dtype=torch.bfloat16),
    }
    Checkpoints(tmp_path).save(TrainingState(saved.progress, weights, {"b": torch.zeros(1)}, saved.optimizer))
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found.progress == saved.progress  # floats too, to the last bit
    for name, tensors in (("weights", weights), ("best", {"b": torch.zeros(1)}), ("optimizer", saved.optimizer)):
        assert getattr(found, name).keys() == tensors.keys()
        for key, tensor in tensors.items():
            assert torch.equal(getattr(found, name)[key], tensor)
            assert getattr(found, name)[key].dtype == tensor.dtype


def test_only_the_newest_is_kept_as_safetensors_and_json(tmp_path: Path) -> None:
    for step in (9, 10, 1000):
        Checkpoints(tmp_path).save(state(step))
    assert steps(tmp_path) == ["step-000001000-epoch-000001"]
    files = {path.name for path in (tmp_path / "step-000001000-epoch-000001").iterdir()}
    assert files == {
        "weights.safetensors", "best.safetensors", "optimizer.safetensors", "progress.json", "manifest.json",
    }  # fmt: skip


def older_and_newer(root: Path) -> Path:
    """Step 4 and a newer step 8, as if the run was killed before step 4 could be dropped. Returns the newer."""
    Checkpoints(root / "other").save(state(8))
    Checkpoints(root).save(state(4))
    name = "step-000000008-epoch-000001"
    (root / "other" / name).rename(root / name)
    (root / "other").rmdir()
    return root / name


def test_the_newest_of_several_is_found(tmp_path: Path) -> None:
    older_and_newer(tmp_path)
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found.progress["step"] == 8


@pytest.mark.parametrize("damage", ["no manifest", "cut file", "missing file", "torn manifest"])
def test_a_torn_checkpoint_is_skipped(tmp_path: Path, damage: str) -> None:
    newer = older_and_newer(tmp_path)
    weights, manifest = newer / "weights.safetensors", newer / "manifest.json"
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "cut file":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "missing file":
        weights.unlink()
    else:
        manifest.write_text('{"sha256": {"wei')
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found.progress["step"] == 4


def test_a_damaged_checkpoint_ahead_does_not_outlive_a_good_one(tmp_path: Path) -> None:
    """A run that resumed from before the damage saves steps below it."""
    (older_and_newer(tmp_path) / "weights.safetensors").write_bytes(b"")
    Checkpoints(tmp_path).save(state(5))
    assert steps(tmp_path) == ["step-000000005-epoch-000001"]
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found.progress["step"] == 5


def test_what_a_killed_save_left_is_overwritten(tmp_path: Path) -> None:
    staging = tmp_path / ".staging-step-000000005-epoch-000001"
    staging.mkdir()
    (staging / "weights.safetensors").write_bytes(b"half")
    Checkpoints(tmp_path).save(state(5))
    assert steps(tmp_path) == ["step-000000005-epoch-000001"]


def test_killed_while_a_step_is_saved_again_after_its_epoch_the_first_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Checkpoints(tmp_path).save(state(5, epoch=0))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.durable.publish", killed)
        with pytest.raises(KeyboardInterrupt):
            Checkpoints(tmp_path).save(state(5, epoch=1))
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert (found.progress["step"], found.progress["epoch"]) == (5, 0)
    Checkpoints(tmp_path).save(state(5, epoch=1))
    found = Checkpoints(tmp_path).newest()
    assert found is not None
    assert found.progress["epoch"] == 1


@pytest.mark.parametrize("fused", [True, False])
def test_a_restored_optimizer_goes_on_bit_for_bit(tmp_path: Path, fused: bool) -> None:
    def fresh() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(7, 5)
        groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
        return model, torch.optim.AdamW(groups, lr=0.1, fused=fused)

    def advance(model: torch.nn.Linear, optimizer: torch.optim.AdamW, numbers: range) -> None:
        for number in numbers:
            x = torch.randn(4, 7, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    model, optimizer = fresh()
    advance(model, optimizer, range(3))
    Checkpoints(tmp_path).save(
        TrainingState({"step": 3, "epoch": 0}, model.state_dict(), {}, optimizer_tensors(optimizer))
    )
    advance(model, optimizer, range(3, 6))

    found = Checkpoints(tmp_path).newest()
    assert found is not None
    again, restored = fresh()
    again.load_state_dict(found.weights)
    restore_optimizer(restored, found.optimizer)
    advance(again, restored, range(3, 6))
    assert torch.equal(model.weight, again.weight)
    assert torch.equal(model.bias, again.bias)
    before, now = optimizer_tensors(optimizer), optimizer_tensors(restored)
    assert before.keys() == now.keys() == {f"{n}/{name}" for n in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")}
    assert all(torch.equal(before[key], now[key]) for key in before)


def test_an_optimizer_that_never_stepped_has_no_state() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))], fused=True)
    assert optimizer_tensors(optimizer) == {}
    restore_optimizer(optimizer, {})
    assert optimizer.state_dict()["state"] == {}
