"""Estimates of five runs of the embedded backbone on real texts, and those runs: each in a process of its own.

Memory must be foretold within 30%. Times depend on what else a machine does, so that only gross errors fail here; they
are printed (`pytest -s`) for whoever has a quiet machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.toys import write_yaml

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
IN_CI = ("upper layers", "LoRA")  # all five with ROOTSTOCK_ESTIMATES=all, minutes each on two slow cores
MOST = {"peak_memory_mib": 1.3, "train_seconds": 3.0, "whole_seconds": 3.0}  # times too large or too small
CONFIGS: dict[str, dict[str, Any]] = {
    "upper layers": {"backbone": {"freeze": 4}},
    "everything": {"backbone": {"freeze": "none"}},
    "head alone": {"backbone": {"freeze": "all"}},
    "LoRA": {"backbone": {"freeze": 2}, "adapter": {"type": "lora"}},
    "last layer, divided batches, longer texts": {
        "backbone": {"freeze": 5},
        "training": {"epochs": 2, "accumulation": 2},
        "data": {"max_length": 128},
    },
}


def rootstock(folder: Path, *arguments: str) -> tuple[dict[str, Any], float]:
    """The command's last event, and the seconds since its first."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ROOTSTOCK_STORE": str(folder / "store")}
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-m", "service.cli", *arguments, "--json"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = process.stdout.readline()
        began = time.perf_counter()
        for line in process.stdout:
            last, ended = line, time.perf_counter()
    assert process.returncode == 0
    event: dict[str, Any] = json.loads(last)
    return event, ended - began


@pytest.mark.parametrize("name", CONFIGS if os.environ.get("ROOTSTOCK_ESTIMATES") == "all" else IN_CI)
def test_the_run_takes_what_was_estimated(name: str, tmp_path: Path) -> None:
    examples = ROOT / "pipelines/examples/brand_safety/general.jsonl"
    data = {"train": str(examples), "text": "text", "label": "label", "max_train_items": 300, "max_length": 64}
    raw: dict[str, Any] = {"task": "text-classification", "data": data, "training": {"epochs": 2}}
    for section, values in CONFIGS[name].items():
        raw[section] = raw.get(section, {}) | values
    write_yaml(tmp_path / "c.yaml", raw)

    estimated, took = rootstock(tmp_path, "estimate", "c.yaml")
    _, whole = rootstock(tmp_path, "finetune", "c.yaml", "--out", "run")

    figures = estimated["figures"]
    report = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    tuned = next(system for system in report["systems"] if system["name"] == report["main"])
    real = {
        "train_seconds": tuned["train_seconds"],
        "whole_seconds": whole,
        "peak_memory_mib": tuned["peak_memory_bytes"] / 2**20,
    }
    found = {key: figures[key]["value"] / value for key, value in real.items()}
    shares = ", ".join(f"{key} {real[key]:,.1f} x {share:.2f}" for key, share in found.items())
    print(f"{name}: {shares}; estimating took {took:.0f} s")
    assert figures["steps"] == report["training"]["steps"]
    assert all(1 / MOST[key] <= share <= MOST[key] for key, share in found.items()), shares
