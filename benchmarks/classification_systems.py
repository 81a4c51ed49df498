"""What `benchmarks.classification` compares: Rootstock's engines, run in this process, and the peers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.classification_inputs import (
    MAIN,
    clients,
    int8_file,
    onnx_file,
    openvino_file,
    read_texts,
)
from benchmarks.classification_peers import Labels, OnnxRuntime, OpenVino, Peer, Pipeline
from pipelines.device import best_precision

Setting = dict[str, Any]
Backend = Literal["auto", "torch", "openvino"]


class Ours(Peer):
    """One pass over the texts with each engine: the engines of `rootstock classify`, without files.

    Args:
        folder: of the models.
        names: of the models.
        backend: auto chooses runtime and precision as the command does, on the last texts; hardly any is measured.
        together: one engine for all, or one run after the other, each on its own.
    """

    def __init__(self, folder: Path, names: Sequence[str], backend: Backend = "torch", together: bool = True) -> None:
        super().__init__(folder)
        self.backend = backend
        self.runs = [list(names)] if together else [[name] for name in names]

    def load(self) -> None:
        self.engines = [engine for names in self.runs for engine in self._engines(names)]
        settings = [engine.settings for engine in self.engines]
        used = sorted({f"{own['backend']} {own['precision']}" for own in settings})
        self.details = {"engines": used, "count": len(self.engines)}

    def _engines(self, names: Sequence[str]) -> list[Any]:
        # Here, so that it is no memory of the peers.
        from pipelines.backbones import load_saved_model
        from pipelines.bulk.engines import SAMPLE, Choice, candidates, choose, open_engines

        def load() -> dict[str, Any]:
            return {name: load_saved_model(self.model / name / "model") for name in names}

        sample = read_texts(self.model).texts[-SAMPLE:]
        if self.backend == "auto":
            choice, _ = choose(load, sample, candidates("auto", "auto", len(names), more=True), free=True)
        elif self.backend == "torch":
            choice = Choice("torch", best_precision())
        else:
            choice = candidates("openvino", "auto", len(names), more=True)[0]
        return open_engines(load, choice, sample)

    def labels(self, texts: Sequence[str]) -> Labels:
        """(N,); of several models (N, M)."""
        found: dict[str, Labels] = {}
        for engine in self.engines:
            for name, logits in engine.logits(engine.backbone.encode(texts)).items():
                found[name] = np.array(self._labels_of(engine, name))[logits.argmax(axis=1)]
        columns = [found[name] for names in self.runs for name in names]
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)

    @staticmethod
    def _labels_of(engine: Any, name: str) -> tuple[str, ...]:
        backbones = getattr(engine, "backbones", None) or {name: engine.backbone}
        labels: tuple[str, ...] = backbones[name].labels
        return labels


@dataclass(frozen=True)
class System:
    """A way from text to label, and the settings among which it is at its best.

    Attributes:
        make: models' folder and a setting -> the system, not yet loaded.
        settings: what is tried, once; the fastest is measured.
        models: whose labels it gives.
        exported: the graph it runs, which the preparation made.
    """

    make: Callable[[Path, Setting], Peer]
    settings: tuple[Setting, ...] = ({},)
    models: tuple[str, ...] = field(default=(MAIN,))
    exported: str | None = None


def _pipeline(folder: Path, setting: Setting) -> Peer:
    return Pipeline(folder / MAIN / "model", setting["batch"])


def _sorted_pipeline(folder: Path, setting: Setting) -> Peer:
    return Pipeline(folder / MAIN / "model", setting["batch"], best_precision(), by_length=True)


def _onnx(folder: Path, setting: Setting) -> Peer:
    return OnnxRuntime(folder / MAIN / "model", setting["batch"], onnx_file(folder))


def _int8(folder: Path, setting: Setting) -> Peer:
    return OnnxRuntime(folder / MAIN / "model", setting["batch"], int8_file(folder))


def _openvino(folder: Path, setting: Setting) -> Peer:
    return OpenVino(folder / MAIN / "model", setting["batch"], openvino_file(folder), setting["hint"])


def _ours(backend: Backend) -> Callable[[Path, Setting], Peer]:
    return lambda folder, _: Ours(folder, [MAIN], backend)


def _clients(depth: int, together: bool) -> System:
    names = clients(depth)
    return System(lambda folder, _: Ours(folder, names, "torch", together), models=tuple(names))


BATCHES = tuple({"batch": size} for size in (8, 16, 32, 64, 128))
HINTED = tuple(batch | {"hint": hint} for hint in ("LATENCY", "THROUGHPUT") for batch in BATCHES)
SYSTEMS = {
    "ours": System(_ours("auto")),
    "ours-torch": System(_ours("torch")),
    "ours-openvino": System(_ours("openvino")),
    "pipeline-default": System(_pipeline, ({"batch": 1},)),
    "pipeline-32": System(_pipeline, ({"batch": 32},)),
    "pipeline-sorted": System(_sorted_pipeline, BATCHES),
    "onnxruntime-fp32": System(_onnx, BATCHES, exported="onnx"),
    "onnxruntime-int8": System(_int8, BATCHES, exported="int8"),
    "openvino": System(_openvino, HINTED, exported="openvino"),
    "ten-runs-k4": _clients(4, together=False),
    "ours-fan-out-k4": _clients(4, together=True),
    "ten-runs-k5": _clients(5, together=False),
    "ours-fan-out-k5": _clients(5, together=True),
}
