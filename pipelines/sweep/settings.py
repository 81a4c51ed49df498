"""The settings of a sweep: each a config that is known to be sound before anything is trained, each counted once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.config import RunConfig
from pipelines.errors import BackboneError, ConfigError
from pipelines.saved_run import SavedRun
from pipelines.sweep.plan import changed, shown
from pipelines.tune import prepare, with_rate

AS_GIVEN = "the config as it is"  # name of the only setting where nothing is varied


@dataclass(frozen=True)
class Setting:
    """One combination of values.

    Attributes:
        changes: what is varied, key -> value.
        config: with these values, and otherwise as the user wrote it.
        depth: frozen hidden layers; -1 where not even the embeddings are.
        learning_rate: what `auto` becomes, or the number itself.
    """

    changes: dict[str, Any]
    config: RunConfig
    depth: int
    learning_rate: float

    @property
    def name(self) -> str:
        """What people and `runs.jsonl` call it; no two settings of a sweep share one."""
        return _name(self.changes)

    @property
    def label(self) -> str:
        """The same without the sections, for a plot."""
        return _name({key.rpartition(".")[2]: value for key, value in self.changes.items()})

    def seeded(self, seed: int) -> RunConfig:
        """The config of one training."""
        own = {"seed": seed, "learning_rate": self.learning_rate}
        return self.config.model_copy(update={"training": self.config.training.model_copy(update=own)})


@dataclass(frozen=True)
class _Cut:
    """What is known of a model once it has been loaded and frozen: `depth` as in Setting, and its share of all."""

    depth: int
    frozen_share: float
    config: RunConfig


class Settings:
    """Every setting of a sweep. Two that come to the same, such as `freeze: all` and the number of all layers, are one.

    Args:
        config: of the sweep, after `starting_point`.
        labels: C classes.
        start: the run that is continued.

    Attributes:
        weights: sha256 of the backbones by name, of those that were loaded.
    """

    def __init__(self, config: RunConfig, labels: tuple[str, ...], start: SavedRun | None) -> None:
        self.config, self.labels, self.start = config, labels, start
        self.weights: dict[str, Any] = {}
        self._cuts: dict[tuple[Any, ...], _Cut] = {}
        self._found: dict[str, Setting] = {}

    @property
    def all(self) -> list[Setting]:
        """In the order in which they were asked for."""
        return list(self._found.values())

    @property
    def deepest(self) -> RunConfig:
        """Of all that were checked, one with most hidden layers frozen: it gains most from keeping their states; those
        of a quantized backbone are not kept."""
        most = max(self._cuts.values(), key=lambda cut: (cut.config.backbone.quantize == "none", cut.depth))
        return most.config

    def of(self, changes: Mapping[str, Any]) -> Setting:
        """The setting with these values. Raises ConfigError in one line that names it, BackboneError."""
        setting = self.checked(changes)
        return self._found.setdefault(_identity(setting), setting)

    def known(self, changes: Mapping[str, Any]) -> Setting | None:
        """The setting that comes to the same as these values, if it is one of the sweep."""
        try:
            return self._found.get(_identity(self.checked(changes)))
        except (ConfigError, BackboneError):
            return None

    def checked(self, changes: Mapping[str, Any]) -> Setting:
        """The same, without counting it among those of the sweep."""
        try:
            config = changed(self.config, changes)
            cut = self._cut(config)
        except ConfigError as error:
            raise ConfigError(f"{_name(changes)}: cannot be trained: {error}") from None
        rate = with_rate(config, cut.frozen_share).training.learning_rate
        assert not isinstance(rate, str)
        return Setting(dict(changes), config, cut.depth, rate)

    def _cut(self, config: RunConfig) -> _Cut:
        """Load the model once for every shape that it can have. Raises ConfigError for one that it cannot."""
        backbone, training = config.backbone, config.training
        opened = training.unfreeze, training.unfreeze_layers, training.epochs, training.gradient_checkpointing
        adapter = config.adapter.type, config.adapter.r
        shape = backbone.name, backbone.revision, backbone.freeze, backbone.quantize, *adapter, *opened
        if shape not in self._cuts:
            if config.distill is not None:
                raise ConfigError("a sweep has no teacher; leave distill out, and add it to the best config")
            if training.imbalance == "auto":
                raise ConfigError(
                    "training.imbalance auto chooses by itself; expected answers to compare, such as "
                    "--vary training.loss=cross-entropy,focal"
                )
            if backbone.freeze == "auto":
                raise ConfigError(
                    "backbone.freeze auto chooses a depth by itself; expected depths to compare, such as "
                    "--vary backbone.freeze=2,4"
                )
            trunk = prepare(config, self.labels, self.start)
            self.weights[trunk.backbone.name] = trunk.backbone.weights.sha256
            self._cuts[shape] = _Cut(-1 if trunk.depth is None else trunk.depth, trunk.frozen_share, config)
        return self._cuts[shape]


def _name(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value)}" for key, value in changes.items()) or AS_GIVEN


def _identity(setting: Setting) -> str:
    """What decides the result, in words that do not depend on how it was written."""
    config = setting.config
    training = config.training.model_dump(mode="json") | {"learning_rate": setting.learning_rate}
    if config.training.loss != "focal":
        del training["focal_gamma"]
    if config.training.unfreeze == "none":
        del training["unfreeze_layers"]
    adapter = config.adapter.model_dump(mode="json") if config.adapter.type != "none" else None
    backbone = config.backbone.model_dump(mode="json", include={"name", "revision", "quantize"})
    return json.dumps([training, backbone, setting.depth, adapter])
