"""Checkpoints of a training run: everything that an exact resume needs, as safetensors and JSON.

Random numbers need no state: every step draws from a seed of (run seed, step, process), see `batches.stream_seed`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pipelines import durable
from pipelines.errors import RunDirectoryError

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainingState:
    """One moment of a run.

    Attributes:
        progress: step, epochs, best score, seconds and the like; plain JSON.
        weights: trained parameters by name. The frozen ones are those of the backbone.
        best: trained parameters at the best validation so far; empty before the first.
        optimizer: AdamW's moments and step counts by `parameter number/name`.
    """

    progress: dict[str, Any]
    weights: Tensors
    best: Tensors
    optimizer: Tensors


class Checkpoints:
    """The checkpoints below one directory; only the newest complete one is kept.

    Args:
        root: made when the first checkpoint is saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, state: TrainingState) -> None:
        """Publish a checkpoint, then drop all others: the older ones, and damaged ones that were not resumed from."""
        step, epoch = int(state.progress["step"]), int(state.progress["epoch"])
        name = f"step-{step:09d}-epoch-{epoch:06d}"  # both: the last step of an epoch may be saved before and after it
        target, staging = self.root / name, self.root / f".staging-{name}"
        durable.discard(staging)
        staging.mkdir(parents=True)
        for part in ("weights", "best", "optimizer"):
            save_file(_contiguous(getattr(state, part)), staging / f"{part}.safetensors")
        durable.write_json(staging / "progress.json", state.progress)
        durable.discard(target)
        durable.publish(staging, target, {"step": step})
        for other in self._complete():
            if other != target:
                durable.discard(other)

    def newest(self) -> TrainingState | None:
        """The newest complete checkpoint, checked against its digests, or None."""
        for path in reversed(self._complete()):
            try:
                durable.verify(path)
            except RunDirectoryError:
                continue
            progress = json.loads((path / "progress.json").read_text(encoding="utf-8"))
            weights, best, optimizer = (load_file(path / f"{n}.safetensors") for n in ("weights", "best", "optimizer"))
            return TrainingState(progress, weights, best, optimizer)
        return None

    def _complete(self) -> list[Path]:
        return sorted(path for path in self.root.glob("step-*") if (path / durable.MANIFEST).is_file())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimizer's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{number}/{name}": torch.as_tensor(value) for number, s in state.items() for name, value in s.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put named tensors back; the optimizer must hold the same parameters in the same order."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _contiguous(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
