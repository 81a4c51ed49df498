"""A complete run directory, read back: what `start_from` continues and `compare` scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset

from pipelines import durable
from pipelines.artifacts import SEEN
from pipelines.backbones import Backbone, load_saved_model, load_text_backbone
from pipelines.baselines import Baseline, load_baseline
from pipelines.config import RunConfig, load_config
from pipelines.device import Precision
from pipelines.errors import ConfigError, RunDirectoryError


class SavedRun:
    """One run directory.

    Args:
        path: every file is checked against the manifest.

    Attributes:
        config, report, manifest: as they were written.
        labels: C classes in the model's order.

    Raises:
        RunDirectoryError: not a complete, unchanged run directory of `rootstock finetune`, or of another task.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = durable.verify(path)
        if self.manifest.get("kind") != "run":
            raise RunDirectoryError(f"{path}: not a run directory of rootstock finetune")
        if not (path / SEEN).is_file():
            raise RunDirectoryError(f"{path}: {SEEN} is missing: the run is of an older version; run it again")
        self.config = _config(path)
        self.report: dict[str, Any] = json.loads((path / "report.json").read_text(encoding="utf-8"))
        if not {"labels", "main", "systems", "calibration"} <= self.report.keys():
            raise RunDirectoryError(f"{path}: report.json is of an older version; run it again")
        self.labels = tuple(self.report["labels"])

    @property
    def main(self) -> str:
        """Name of the system whose model is in `model/`."""
        return str(self.report["main"])

    def seen(self) -> Dataset:
        """The items that the run, and those before it, were trained (`part` train) or validated on."""
        return Dataset.from_dict(pq.read_table(self.path / SEEN).to_pydict())

    def system(self, name: str) -> dict[str, Any]:
        """What report.json says of a system: costs, validation score, details."""
        found: dict[str, Any] = next(system for system in self.report["systems"] if system["name"] == name)
        return found

    def model(self) -> Backbone:
        """The fine-tuned model."""
        return load_saved_model(self.path / "model")

    def pretrained(self) -> Backbone:
        """The backbone before fine-tuning, which embeds for one of the baselines."""
        return load_text_backbone(self.config.backbone, self.labels, self.config.data.max_length, 0)

    @property
    def baselines(self) -> list[str]:
        """Names of the saved baselines, in the order of the report."""
        saved = {folder.name for folder in (self.path / "baselines").glob("*") if folder.is_dir()}
        return [system["name"] for system in self.report["systems"] if system["name"] in saved]

    def baseline(self, name: str, pretrained: Backbone, precision: Precision) -> Baseline:
        return load_baseline(self.path / "baselines" / name, pretrained, precision)


def _config(path: Path) -> RunConfig:
    try:
        return load_config(path / "config.yaml")
    except ConfigError as error:
        problem = " ".join(str(error).split())
        raise RunDirectoryError(f"{path}: not a run that this version can use: {problem}") from None


def starting_point(config: RunConfig) -> tuple[RunConfig, SavedRun | None]:
    """The run of `start_from`, whose backbone becomes that of the config; one that is named must be the same."""
    if config.start_from is None:
        return config, None
    try:
        start = SavedRun(config.start_from)
    except RunDirectoryError as error:
        raise ConfigError(f"start_from: {error}; expected the directory of a finished run") from None
    own, theirs = config.backbone, start.config.backbone
    if "name" in own.model_fields_set and own.name != theirs.name:
        raise ConfigError(
            f"backbone.name: expected {theirs.name}, as in the run at start_from, found {own.name}; leave it out"
        )
    same = own.model_copy(update={"name": theirs.name, "revision": theirs.revision})
    return config.model_copy(update={"backbone": same}), start
