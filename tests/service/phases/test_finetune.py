from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import auto_learning_rate, parse_config
from service.phases import finetune
from service.refused import UploadRefused
from tests.toys import LAYERS, tiny_backbone, toy_rows


def request(folder: Path, **changes: Any) -> dict[str, Any]:
    """What a worker asks of a child, with toy uploads below `folder`."""
    uploads = {}
    for seed, name in enumerate(("training", "validation")):
        path = folder / f"{name}-upload"
        path.write_text("".join(json.dumps(row) + "\n" for row in toy_rows(40, seed)), encoding="utf-8")
        uploads[name] = {"path": str(path), "filename": "a.jsonl"}
    config = {"task": "text-classification", "data": {"test": 0.25}, "training": {"seed": 3}}
    asked = {"data": {"slices": ["kind"]}, "config": config, "base": str(folder / "tiny"), "start_from": None}
    return asked | {"rate_multiplier": None} | uploads | changes


def planned(tmp_path: Path, **changes: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = tmp_path / "job" / "000001"
    folder.mkdir(parents=True)
    events = list(finetune.plan(folder, request(tmp_path, **changes), lambda: False))
    return json.loads((tmp_path / "job/plan/config.json").read_text(encoding="utf-8")), events


def test_uploads_become_a_config_with_files_of_the_servers_own(tmp_path: Path) -> None:
    config, events = planned(tmp_path)
    plan = tmp_path / "job" / "plan"
    assert config["data"] == {
        "test": 0.25,
        "train": str(plan / "train.jsonl"),
        "validation": str(plan / "validation.jsonl"),
        "text": "text",
        "label": "label",
        "slices": ["kind"],
    }
    assert config["backbone"] == {"name": str(tmp_path / "tiny")}
    assert [event["message"].split(":")[0] for event in events] == ["training file", "validation file"]
    parse_config(config)


def test_an_own_model_is_named_instead_of_a_backbone(tmp_path: Path) -> None:
    config, _ = planned(tmp_path, start_from=str(tmp_path / "run"), validation=None)
    assert config["start_from"] == str(tmp_path / "run")
    assert "backbone" not in config
    assert "validation" not in config["data"]


def test_a_refused_upload_leaves_no_plan(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(UploadRefused):
        planned(tmp_path, validation={"path": str(broken), "filename": "b.jsonl"})
    assert not (tmp_path / "job" / "plan").exists()


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
@pytest.mark.parametrize(("freeze", "share"), [(1, 1 / LAYERS), ("none", 0.0), ("all", 1.0)])
def test_a_multiplier_scales_the_default_rate_of_the_depth(
    tmp_path: Path, model_type: str, freeze: int | str, share: float
) -> None:
    raw, _ = planned(tmp_path, backbone=str(tiny_backbone(tmp_path / "tiny", model_type)))
    config = parse_config(raw | {"backbone": raw["backbone"] | {"freeze": freeze}})
    assert finetune._scaled(config, None) == config.training
    assert finetune._scaled(config, 2.0).learning_rate == pytest.approx(2 * auto_learning_rate(share, lora=False))
