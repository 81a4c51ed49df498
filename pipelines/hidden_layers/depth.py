"""How many hidden layers to freeze: probes on every layer from one pass, then short runs at the depths they suggest."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.errors import Interrupted
from pipelines.hidden_layers.probes import enough, fit_probes, layers_section
from pipelines.hidden_layers.short_runs import ShortRun, candidates, deepest_of_the_best, short_runs
from pipelines.predict import embed_layers
from pipelines.records import Event, Splits, Stage, column
from pipelines.sampling import at_most
from pipelines.saved_run import SavedRun
from pipelines.score import all_trained_on

MOST = 20_000  # training items of a probe at most, and validation items: their states are held in memory
CAVEAT = (
    "Probes and short runs are scored on the validation part, on which the depth is chosen, so the figures of what was "
    "chosen are a little flattered; the test part is not looked at. A good probe at a layer does not prove that "
    "freezing there is best: the short runs are the evidence, and they are short."
)


@dataclass(frozen=True)
class Advice:
    """What was found about the layers.

    Attributes:
        layers: see `probes.layers_section`.
        runs: short runs; none where they were not wanted.
    """

    layers: list[dict[str, Any]]
    runs: list[ShortRun]

    @property
    def best(self) -> int:
        """Layer with the best probe."""
        return int(max(self.layers, key=lambda layer: layer["macro_f1"])["layer"])

    @property
    def depth(self) -> int:
        """Hidden layers to freeze: by the short runs; without them, where the probe is good enough."""
        return deepest_of_the_best(self.runs).depth if self.runs else min(enough(self.layers), len(self.layers) - 2)

    @property
    def sentence(self) -> str:
        top = len(self.layers) - 1
        first = enough(self.layers)
        told = f"The probe is best after layer {self.best} of {top}, and not clearly worse after layer {first}."
        if not self.runs:
            return f"{told} It suggests to freeze {self.depth}; no short run has confirmed that."
        chosen = deepest_of_the_best(self.runs)
        low, high = chosen.macro_f1_ci
        return (
            f"{told} Of short runs with {_listed(self.runs)} layers frozen, {chosen.depth} is chosen: macro-F1 "
            f"{chosen.macro_f1:.3f} (95% interval {low:.3f} to {high:.3f}) on the validation part."
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "best": self.best,
            "enough": enough(self.layers),
            "short_runs": [run.to_json() for run in self.runs],
            "depth": self.depth,
            "sentence": self.sentence,
            "caveat": CAVEAT,
        }


def probe_layers(
    config: RunConfig, splits: Splits, backbone: Backbone, precision: Precision, most: int = MOST
) -> list[dict[str, Any]]:
    """Probes on every layer of a backbone, from one pass over the training and validation items.

    Args:
        most: training items, and validation items, that are looked at: some, stratified.
    """
    seed = config.training.seed
    train = splits.train
    if len(set(column(train, "label"))) < 2:  # one class of a client's, after `start_from`
        train = all_trained_on(splits)
    splits = replace(splits, train=at_most(train, most, seed), validation=at_most(splits.validation, most, seed))
    texts = column(splits.train, "text") + column(splits.validation, "text")
    states = embed_layers(backbone, backbone.encode(texts), precision, backbone.depth)
    layers = fit_probes(states, splits, seed)
    return layers_section(layers, splits, config.data.slices, config.evaluation.bootstrap, seed)


def advise(
    config: RunConfig,
    splits: Splits,
    backbone: Backbone,
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    folder: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
    confirm: bool = True,
) -> Generator[Event, None, dict[str, Any]]:
    """Probe, and confirm by short runs; returns the advice as JSON.

    All processes must call this alike; each computes the same probes.

    Args:
        backbone: before fine-tuning.
        folder: of the short runs' checkpoints.
        confirm: whether short runs are wanted.

    Raises:
        Interrupted: after `stop`.
    """
    n = sum(min(MOST, len(part)) for part in (splits.train, splits.validation))
    yield Stage("probe", f"a logistic regression on each of {backbone.depth + 1} layers of {n:,} texts, from one pass")
    layers = probe_layers(config, splits, backbone, precision)
    if stop():
        raise Interrupted("stopped after the probes")
    advice = Advice(layers, [])
    if not confirm:
        return advice.to_json()
    depths = candidates(advice.best, enough(layers), backbone.depth)
    runs = yield from short_runs(config, splits, depths, start, precision, accelerator, folder, stop, store)
    return Advice(layers, runs).to_json()


def _listed(runs: list[ShortRun]) -> str:
    return ", ".join(f"{run.depth} ({run.macro_f1:.3f})" for run in runs)
