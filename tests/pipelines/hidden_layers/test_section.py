"""The report's section: all classes are looked at, also of sorted files, and only what is clear is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from pipelines.backbones import Backbone, load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.hidden_layers.ablation import ablation
from pipelines.hidden_layers.map import representation_map
from pipelines.hidden_layers.section import _sentence
from pipelines.records import Splits
from tests.toys import tiny_backbone, toy_rows

CLASSES = ("calm", "harsh")


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return load_text_backbone(BackboneConfig(name=str(tiny_backbone(tmp_path / "b"))), CLASSES, 32, seed=0)


@pytest.fixture
def splits() -> Splits:
    """Sorted by class, as exports of data bases are."""
    rows = sorted(toy_rows(60), key=lambda row: row["label"])
    columns = {name: [row[name] for row in rows] for name in ("text", "label")}
    part = Dataset.from_dict(columns | {"group": list(range(len(rows)))})
    return Splits(part, part, part, CLASSES, {})


def test_the_map_shows_every_class_of_a_sorted_file(backbone: Backbone, splits: Splits) -> None:
    found = representation_map(backbone, backbone, splits, "fp32", 20, 0)
    assert (found["items"], sorted(set(found["targets"]))) == (20, [0, 1])
    assert found["before"] == found["after"]
    assert found["after"]["silhouette"] is not None


def test_layers_are_left_out_on_items_of_every_class(backbone: Backbone, splits: Splits) -> None:
    found = ablation(backbone, splits, "fp32", 20, 100, 0)
    assert found["items"] == 20
    assert [row["layer"] for row in found["without"]] == list(range(1, backbone.depth + 1))
    low, high = found["macro_f1_ci"]
    assert low <= found["macro_f1"] <= high < 1


def without(layer: int, difference: float, low: float, high: float) -> dict[str, Any]:
    return {"layer": layer, "difference": difference, "difference_ci": [low, high]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([without(1, -0.02, -0.05, 0.01), without(2, 0.01, -0.01, 0.03)], "No single layer is clearly needed"),
        (
            [without(1, -0.5, -0.6, -0.4), without(2, -0.1, -0.2, -0.01), without(3, -0.7, -1.0, 0.0)],
            "most on layer 1: without it, macro-F1 changes by -50.0 points (95% interval -60.0 to -40.0)",
        ),
    ],
)
def test_a_layer_is_named_only_where_its_interval_is_below_zero(rows: list[dict[str, Any]], said: str) -> None:
    advice = {"layers": [{}, {}, {}], "best": 1, "short_runs": []}
    assert said in _sentence(advice, {"without": rows})
