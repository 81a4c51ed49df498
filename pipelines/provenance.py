"""Where a run comes from: data, weights and settings that decide its result, for its manifest and its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.backbones import Backbone
from pipelines.config import RunConfig, SplitFile
from pipelines.device import Precision, device
from pipelines.records import Splits
from pipelines.saved_run import SavedRun
from pipelines.weights import sha256_file


def provenance_of(
    config: RunConfig,
    splits: Splits,
    backbone: Backbone,
    start: SavedRun | None,
    teacher: SavedRun | None,
    precision: Precision,
) -> dict[str, Any]:
    """What manifest.json says about where the run comes from."""
    parts = {n: p.path for n in ("train", "validation", "test") if isinstance(p := getattr(config.data, n), SplitFile)}
    weights = backbone.weights
    base = {"name": config.backbone.name, "revision": weights.revision, "sha256": weights.sha256}
    taught = {} if teacher is None else {"teacher": {"name": teacher.path.name, "sha256": _model_sha256(teacher)}}
    return taught | {
        "kind": "run",
        "labels": list(splits.labels),
        "seed": config.training.seed,
        "precision": precision,
        "device": str(device()),
        "processes": config.training.processes,
        "data_sha256": {name: data_sha256(path) for name, path in parts.items()},
        "backbone": base if start is None else start.manifest["backbone"],
        "start_from": None if start is None else {"name": start.path.name, "sha256": weights.sha256},
    }


def _model_sha256(run: SavedRun) -> str:
    return str(run.manifest["sha256"]["model/model.safetensors"])


def data_sha256(path: Path) -> str | dict[str, str]:
    """Digest of a data file, or of every file of a folder."""
    if path.is_file():
        return sha256_file(path)
    return {p.relative_to(path).as_posix(): sha256_file(p) for p in sorted(path.rglob("*")) if p.is_file()}
