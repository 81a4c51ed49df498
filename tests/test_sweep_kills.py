"""SIGKILL at random moments of a sweep: no training that has ended is lost or repeated, and the table is the same.

ROOTSTOCK_KILLS says how many kills; 10 by default.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.activation_store import ActivationStore
from pipelines.config import load_config
from pipelines.sweep.plan import Plan
from pipelines.sweep.runs import RUNS
from pipelines.sweep.sweep import sweep
from tests.attempts import attempts
from tests.toys import toy_config, toy_rows, write_csv, write_yaml

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ROOTSTOCK_KILLS", "10"))
PLAN = Plan(("training.learning_rate=0.01,0.003,1e-6", "backbone.freeze=1,2"), seeds=2)


def work(config: Path, out: Path, store: Path) -> None:
    """One attempt, in a process of its own."""
    torch.set_num_threads(1)
    list(sweep(load_config(config), PLAN, out, resume=True, store=ActivationStore(store, 1 << 30)))


start = attempts(work)


def ended(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of runs.jsonl, times and how states were had left out."""
    path = folder / RUNS
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return [
        {k: v for k, v in json.loads(line).items() if k not in ("seconds", "train_seconds", "store")} for line in whole
    ]


def test_killed_again_and_again_a_sweep_ends_with_the_same_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "toy.csv", toy_rows(200))
    raw = toy_config(tmp_path, backbone={"cache": "on"}, training={"epochs": 4, "checkpoint_steps": 5})
    config = write_yaml(tmp_path / "config.yaml", raw)
    first = start(config, tmp_path / "first", tmp_path / "store")  # the forkserver and the store are warm from here on
    first.join()
    started = time.monotonic()
    whole = start(config, tmp_path / "whole", tmp_path / "store")
    whole.join()
    seconds = time.monotonic() - started
    assert whole.exitcode == 0
    expected = ended(tmp_path / "whole")
    assert expected == ended(tmp_path / "first")

    rng, out, partial = np.random.default_rng(0), tmp_path / "killed", tmp_path / "killed.partial"
    kills = in_between = 0
    while kills < KILLS:
        before = ended(partial)
        process = start(config, out, tmp_path / "store")
        process.join(timeout=rng.uniform(0.05, 1) * seconds * 0.6)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            assert ended(partial)[: len(before)] == before  # nothing is lost
            in_between += 0 < len(ended(partial)) < len(expected)
        else:  # it was through: once more from nothing
            assert process.exitcode == 0
            assert ended(out) == expected
            out.rename(tmp_path / f"done-{kills}-{time.monotonic_ns()}")
    process = start(config, out, tmp_path / "store")
    process.join()
    assert process.exitcode == 0
    assert ended(out) == expected  # and none is there twice
    assert in_between
