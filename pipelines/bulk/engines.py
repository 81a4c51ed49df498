"""Which runtime and precision classify: measured on the user's own items, held against fp32, the fastest that agrees.

A candidate passes if at least AGREEMENT of its labels equal those of PyTorch in fp32 on the sample. `auto` takes the
fastest that passes; one that was asked for by name is refused if it does not pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.bulk import openvino_engine
from pipelines.bulk.encoding import encoded
from pipelines.bulk.openvino_engine import OpenVinoEngine
from pipelines.bulk.torch_engine import TorchEngine, Wanted, families
from pipelines.device import best_precision, device
from pipelines.errors import BackboneError, ConfigError
from pipelines.records import FloatArray

Backend = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Load = Callable[[], dict[str, Backbone]]

AGREEMENT = 0.995  # share of labels that must equal those of fp32
WARM = 64  # texts before the clock starts: they set up what later ones reuse
SAMPLE = 512  # texts on which candidates are measured; with fewer, `--precision auto` is fp32, unmeasured


class Engine(Protocol):
    """Logits of one or many models that prepare content alike."""

    @property
    def names(self) -> list[str]:
        """Of the models."""

    @property
    def backbone(self) -> Backbone:
        """What prepares content for all of them."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the bits, besides the machine."""

    def logits(self, encodings: Sequence[Encoding], wanted: Wanted | None = None) -> dict[str, FloatArray]:
        """(N, C) of every model, in input order."""


@dataclass(frozen=True)
class Choice:
    """A runtime, a precision, and what was measured of it on the sample."""

    backend: Backend
    precision: Precision
    agreement: float | None = None
    texts_per_second: float | None = None

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class OneModel:
    """OpenVINO, which runs one model at a time, as an `Engine`."""

    def __init__(self, name: str, backbone: Backbone, precision: Precision, sample: Sequence[Encoding]) -> None:
        assert precision != "fp16"
        self._engine = OpenVinoEngine(backbone, precision, sample)
        self._name = name
        self.backbone = backbone

    @property
    def names(self) -> list[str]:
        return [self._name]

    @property
    def settings(self) -> dict[str, Any]:
        return {"backend": "openvino"} | self._engine.settings

    def logits(self, encodings: Sequence[Encoding], wanted: Wanted | None = None) -> dict[str, FloatArray]:
        if wanted is None or wanted[self._name].all():
            return {self._name: self._engine.logits(encodings)}
        own = np.flatnonzero(wanted[self._name])
        found = np.full((len(encodings), len(self.backbone.labels)), np.nan)
        if len(own):
            found[own] = self._engine.logits([encodings[int(i)] for i in own])
        return {self._name: found}


def open_engines(
    load: Load,
    choice: Choice,
    sample: Sequence[str],
    store: ActivationStore | None = None,
    keep_depth: int = 0,
) -> list[Engine]:
    """Engines for all models, one for every group that can share layers.

    Args:
        load: the models, by name, as they were saved.
        choice: what they run on.
        sample: texts that int8 is calibrated on.
        store, keep_depth: see `TorchEngine`.
    """
    if choice.backend == "torch":
        assert choice.precision != "int8"
        return [TorchEngine(family, choice.precision, store, keep_depth) for family in families(load())]
    return [OneModel(n, b, choice.precision, encoded(b, sample)[0]) for n, b in load().items()]


def candidates(
    backend: Backend | Literal["auto"], precision: Precision | Literal["auto"], models: int, more: bool
) -> list[Choice]:
    """What is to be tried.

    Args:
        backend, precision: as the user wants them.
        models: how many; OpenVINO runs them one by one and is not tried for several on its own accord.
        more: whether the input is long enough for a runtime that takes seconds to start.

    Raises:
        ConfigError: a backend that is not installed, or a precision that it does not have.
    """
    if precision == "int8" and backend == "torch":
        raise ConfigError("--precision int8 needs --backend openvino: PyTorch has no fast int8 for these models")
    if precision == "fp16" and backend == "openvino":
        raise ConfigError("--precision fp16: expected fp32, bf16 or int8 with --backend openvino")
    if (backend == "openvino" or precision == "int8") and not openvino_engine.available():
        raise ConfigError("OpenVINO is not installed: pip install 'rootstock[openvino]'")
    precisions: list[Precision] = (
        [precision] if precision != "auto" else list(dict.fromkeys((best_precision(), "fp32")))
    )
    found = [Choice("torch", p) for p in precisions if p != "int8" and backend != "openvino"]
    worth_it = models == 1 and more and device().type == "cpu" and openvino_engine.available()
    if backend == "openvino" or precision == "int8":
        found = [Choice("openvino", p) for p in precisions]
    elif backend == "auto" and worth_it and precisions[0] in ("fp32", "bf16"):
        found.append(Choice("openvino", precisions[0]))
    return found


def choose(load: Load, sample: Sequence[str], wanted: Sequence[Choice], free: bool) -> tuple[Choice, list[Choice]]:
    """The fastest candidate that agrees with fp32, and what was measured of each.

    Args:
        load: the models.
        sample: the user's texts.
        wanted: candidates.
        free: whether the precision was left to us; with few texts it is fp32 then.

    Raises:
        ConfigError: none agrees.
    """
    reference = Choice("torch", "fp32")
    if list(wanted) == [reference] or (free and reference in wanted and len(sample) < SAMPLE) or not sample:
        return (reference if reference in wanted else wanted[0]), []
    labels, seconds = _labels(load, reference, sample)
    tried = []
    for choice in wanted:
        try:
            own, took = (labels, seconds) if choice == reference else _labels(load, choice, sample)
        except (BackboneError, ConfigError):
            if not free or choice == wanted[0]:
                raise
            continue  # a runtime that cannot run this model here is no reason not to use another
        agreement = min(float(np.mean(own[name] == labels[name])) for name in labels)  # of the model that agrees least
        tried.append(Choice(choice.backend, choice.precision, agreement, len(sample) / took))
    passing = [trial for trial in tried if (trial.agreement or 0.0) >= AGREEMENT]
    if not passing:
        raise ConfigError(
            f"{tried[0].name} gives the label of fp32 for {tried[0].agreement:.1%} of the first {len(sample)} texts, "
            f"and {AGREEMENT:.1%} are needed; use another --precision, or auto"
        )
    return max(passing, key=lambda trial: trial.texts_per_second or 0.0), tried


def _labels(load: Load, choice: Choice, sample: Sequence[str]) -> tuple[Mapping[str, Any], float]:
    """Labels of every model, and the seconds they took once warm."""
    engines = open_engines(load, choice, sample)
    for texts in (sample[:WARM], sample):
        started = time.perf_counter()
        found = {n: z.argmax(axis=1) for engine in engines for n, z in _run(engine, texts).items()}
        seconds = time.perf_counter() - started
    return found, seconds


def _run(engine: Engine, sample: Sequence[str]) -> dict[str, FloatArray]:
    return engine.logits(encoded(engine.backbone, sample)[0])
