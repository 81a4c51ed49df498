"""The models that are held in memory, within a bound.

Models that share layers hold them once and run them once (see `pipelines.bulk.torch_engine`). Beyond the bound, the
model that was not used for longest goes, and with it what no other shares. While a model is read, it is there in
addition, in fp32: the peak is the bound and one model more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from pipelines.backbones import Backbone
from pipelines.bulk.torch_engine import TorchEngine
from pipelines.device import Precision
from pipelines.saved_run import SavedRun
from service.inference.batching import Result
from service.inference.errors import InferenceError
from service.inference.records import Piece
from service.inference.rows import classified

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


class Pool:
    """Models by name, in one engine for every family. It is what `batching.Models` describes.

    Only the thread that computes may compute in parallel: two teams of OpenMP in one process yield to each other at
    every operation (measured: 15 ms for a short text instead of 8).

    Args:
        most_bytes: of distinct weights.
        threads: of `compute`.
        precision: of the hidden layers.
    """

    def __init__(self, most_bytes: int, threads: int, precision: Precision) -> None:
        self.most_bytes = most_bytes
        self.threads = threads
        self.precision = precision
        self.weights_bytes = 0
        self._engines: dict[str, TorchEngine] = {}
        self._families: OrderedDict[str, str] = OrderedDict()  # of every model; the one used last is last

    def __contains__(self, name: str) -> bool:
        return name in self._families

    def load(self, name: str, path: Path) -> TorchEngine:
        """A verified run directory as an engine of one model.

        Raises:
            RootstockError: incomplete, changed, or not supported.
            InferenceError: larger than the bound.
        """
        torch.set_num_threads(1)  # of this thread, and of those that it may start
        run = SavedRun(path)
        files = (run.path / "model").glob("*.safetensors")  # in fp32, whatever they are computed in
        size = sum(file.stat().st_size for file in files) * _BYTES[self.precision] // _BYTES["fp32"]
        if size > self.most_bytes:
            raise InferenceError(
                "model_too_large",
                f"expected a model of at most {self.most_bytes / 2**20:,.1f} MiB, found {size / 2**20:,.1f}; "
                "the operator may raise the bound",
            )
        return TorchEngine({name: run.model()}, self.precision)

    def admit(self, name: str, loaded: TorchEngine) -> None:
        """Hold a model, and let go of those that were not used for longest until the bound is kept."""
        torch.set_num_threads(self.threads)
        family = loaded.family
        if family in self._engines:
            self._engines[family].join(loaded)
        else:
            self._engines[family] = loaded
        self._families[name] = family
        self.weights_bytes = self._weigh()
        while self.weights_bytes > self.most_bytes and len(self._families) > 1:
            self._drop(next(iter(self._families)))
            self.weights_bytes = self._weigh()

    def compute(self, pieces: Sequence[Piece]) -> list[Result]:
        """A result for every piece; None for those of a model that is not held."""
        results: list[Result] = [None] * len(pieces)
        groups: dict[str, list[int]] = {}
        for number, piece in enumerate(pieces):
            if piece.model in self._families:
                self._families.move_to_end(piece.model)
                groups.setdefault(self._families[piece.model], []).append(number)
        for family, numbers in groups.items():
            found = classified(self._engines[family], [pieces[number] for number in numbers])
            for number, result in zip(numbers, found, strict=True):
                results[number] = result
        return results

    def statistics(self) -> dict[str, Any]:
        """What is held, least recently used first."""
        return {"models": list(self._families), "weights_bytes": self.weights_bytes, "precision": self.precision}

    def _drop(self, name: str) -> None:
        family = self._families.pop(name)
        if len(self._engines[family].names) == 1:
            del self._engines[family]
        else:
            self._engines[family].remove(name)

    def _weigh(self) -> int:
        return weights_bytes(backbone for engine in self._engines.values() for backbone in engine.backbones.values())


def weights_bytes(backbones: Iterable[Backbone]) -> int:
    """Bytes of parameters, those that are held in common counted once."""
    parameters = (parameter for backbone in backbones for parameter in backbone.model.parameters())
    return sum({p.data_ptr(): p.numel() * p.element_size() for p in parameters}.values())
