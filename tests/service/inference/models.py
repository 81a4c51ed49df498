"""Run directories that hold a model and nothing of how it was trained: made in a fraction of a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines import durable
from pipelines.artifacts import SEEN
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.trunk import Freeze, Trunk
from tests.toys import write_yaml

CALM = ("calm", "harsh")


def grafted(base: str | Path, seed: int, freeze: Freeze = 1, labels: Sequence[str] = CALM) -> Backbone:
    """A model whose layers above the freeze depth, and head, are its own."""
    backbone = load_text_backbone(BackboneConfig(name=str(base)), labels, 64, seed)
    Trunk(backbone, freeze)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator))
    return backbone


def saved(path: Path, backbone: Backbone) -> Path:
    """A complete run directory of a model."""
    staging = path.with_name(path.name + ".partial")
    backbone.save(staging / "model")
    data = {"train": "none.csv", "text": "text", "label": "label"}
    write_yaml(staging / "config.yaml", {"task": "text-classification", "data": data})
    report = {"labels": list(backbone.labels), "main": "fine-tuned", "systems": [], "calibration": {}}
    durable.write_json(staging / "report.json", report)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), staging / SEEN)
    durable.publish(staging, path, {"kind": "run"})
    return path
