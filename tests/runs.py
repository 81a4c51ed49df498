"""Finished runs on toy data: a first one, and those that continue another on a client's items."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.config import parse_config
from pipelines.records import Event
from pipelines.run import finetune
from tests.toys import planted_rows, tiny_backbone, toy_config, toy_rows, write_csv

TFIDF = "logistic-regression-tfidf"
TIMES = ("train_seconds", "items_per_second", "peak_memory_bytes", "remaining_s", "size_bytes")  # saved times are in it


def run(raw: dict[str, Any], out: Path, **options: Any) -> list[Event]:
    """One whole run of a raw config."""
    return list(finetune(parse_config(raw), out, **options))


def first_run(folder: Path, **sections: Any) -> Path:
    """A run on 60 toy items below `folder`."""
    run(toy_config(folder, **sections), folder / "first")
    return folder / "first"


def planted_run(folder: Path, model_type: str = "bert", **sections: Any) -> Path:
    """A run on 160 items whose class is told by one word, which half of them have; 64 of them are the test part."""
    backbone, train, test = folder / model_type, folder / "planted.csv", folder / "planted-test.csv"
    if not backbone.exists():
        tiny_backbone(backbone, model_type)
    write_csv(train, planted_rows(160))
    write_csv(test, planted_rows(64, seed=1))
    own = {"train": str(train), "test": str(test)}
    training = {"epochs": 8, "learning_rate": 0.005}
    base = {"data": own, "backbone": {"name": str(backbone), "freeze": "none"}, "training": training}
    run(toy_config(folder, **base | sections), folder / f"planted-{model_type}")
    return folder / f"planted-{model_type}"


def client_config(folder: Path, start: Path, seed: int = 1, **sections: Any) -> dict[str, Any]:
    """A raw config that continues a run on 40 new toy items, with a test file of 40 more; both written here."""
    files = {"train": f"client{seed}.csv", "test": f"client{seed}-test.csv"}
    for number, name in enumerate(files.values()):
        write_csv(folder / name, toy_rows(40, seed + 100 * number))
    raw = toy_config(folder, **sections)
    raw["data"] = {name: str(folder / file) for name, file in files.items()} | {
        name: value for name, value in raw["data"].items() if name not in files or name in sections.get("data", {})
    }
    if "name" not in sections.get("backbone", {}):
        del raw["backbone"]["name"]
    return raw | {"start_from": str(start)}


def report(path: Path) -> dict[str, Any]:
    """report.json of a run directory."""
    found: dict[str, Any] = json.loads((path / "report.json").read_text(encoding="utf-8"))
    return found


def system(path: Path, name: str) -> dict[str, Any]:
    """What report.json of a run directory says of one system."""
    found: dict[str, Any] = {s["name"]: s for s in report(path)["systems"]}[name]
    return found


def table(path: Path, name: str = "predictions") -> dict[str, list[Any]]:
    """The columns of one of a run directory's tables."""
    columns: dict[str, list[Any]] = pq.read_table(path / f"{name}.parquet").to_pydict()
    return columns


def without_times(value: Any) -> Any:
    """A report less what no two runs share."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value
