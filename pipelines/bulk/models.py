"""The models of a classification: run directories, checked, with the names that the output gives them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.backbones import Backbone
from pipelines.durable import MANIFEST
from pipelines.errors import ConfigError
from pipelines.saved_run import SavedRun
from pipelines.weights import sha256_file


class Models:
    """One or more finished runs.

    Args:
        paths: run directories; their names must differ.
        max_length: tokens; longer texts are cut or split. Default: as each was trained.

    Attributes:
        runs: by name.

    Raises:
        RunDirectoryError: one is incomplete or changed.
        ConfigError: two have the same name.
    """

    def __init__(self, paths: Sequence[Path], max_length: int | None = None) -> None:
        self.max_length = max_length
        self.runs: dict[str, SavedRun] = {}
        for path in paths:
            name = path.resolve().name
            if name in self.runs:
                raise ConfigError(f"{path}: a second model called {name!r}; rename one of the directories")
            self.runs[name] = SavedRun(path)

    @property
    def first(self) -> SavedRun:
        return next(iter(self.runs.values()))

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        return {name: run.labels for name, run in self.runs.items()}

    @property
    def frozen_depth(self) -> int:
        """How many hidden layers all of them left as pretrained."""
        frozen = {"none": 0, "all": sys.maxsize}  # an engine shares no more layers than there are
        depths = [run.config.backbone.freeze for run in self.runs.values()]
        return min(frozen[depth] if isinstance(depth, str) else depth for depth in depths)

    def load(self) -> dict[str, Backbone]:
        """The models as they were saved."""
        backbones = {name: run.model() for name, run in self.runs.items()}
        if self.max_length is not None:
            for backbone in backbones.values():
                backbone.limit(self.max_length)
        return backbones

    def digests(self) -> list[list[str]]:
        """Name and sha256 of the manifest of every run, in order: the manifest holds the digests of all its files."""
        return [[name, sha256_file(run.path / MANIFEST)] for name, run in self.runs.items()]

    def thresholds(self, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
        """For every model, the score from which a label is flagged.

        Args:
            wanted: such as `harsh=0.7`, or `harsh=precision:0.9`, which is looked up in the report's thresholds.

        Raises:
            ConfigError: a label that no model has, a number that is none, a threshold that the report does not promise.
        """
        found: dict[str, dict[str, float]] = {name: {} for name in self.runs}
        for text in wanted:
            label, _, value = text.rpartition("=")
            having = [name for name, run in self.runs.items() if label in run.labels]
            if not having:
                known = sorted({name for run in self.runs.values() for name in run.labels})
                raise ConfigError(f"--threshold {text}: expected LABEL=VALUE with a label among {', '.join(known)}")
            for name in having:
                found[name][label] = _threshold(self.runs[name], label, value)
        return found


def _threshold(run: SavedRun, label: str, value: str) -> float:
    kind, colon, aim = value.rpartition(":")
    try:
        number = float(aim)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1 or (colon and kind not in ("precision", "recall")):
        raise ConfigError(
            f"--threshold {label}={value}: expected a score from 0 to 1, precision:0.9 or recall:0.9 after the label"
        )
    return _promised(run, label, kind, number) if colon else number


def _promised(run: SavedRun, label: str, kind: str, aim: float) -> float:
    """The threshold that the report promises for a wanted precision or recall."""
    points: list[dict[str, Any]] = run.report.get("operating_points", {}).get("points", [])
    own = [point for point in points if point["class"] == label and point["wanted"] == kind]
    match = [point for point in own if abs(point["aim"] - aim) < 1e-9]
    if match and match[0]["threshold"] is not None:
        return float(match[0]["threshold"])
    promised = [f"{point['aim']:g}" for point in own if point["threshold"] is not None]
    why = match[0]["reason"] if match else f"the report holds no {kind} of {aim:g}"
    raise ConfigError(
        f"--threshold {label}={kind}:{aim:g}: not promised by {run.path}: {why}; "
        f"promised are {', '.join(promised) or 'none'}"
    )
