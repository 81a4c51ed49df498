"""SIGKILL at random moments while the store is built and the model trained: no repair by hand, the same final weights.

ROOTSTOCK_KILLS says how many kills; 10 by default.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xxhash

from pipelines import activations
from pipelines.activation_store import ActivationStore
from pipelines.config import load_config
from pipelines.run import finetune
from tests.runs import system
from tests.toys import toy_config, toy_rows, write_csv, write_yaml

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ROOTSTOCK_KILLS", "10"))


def work(config: Path, out: Path, store: Path) -> None:
    """One attempt, in a process of its own. Many small files, so that kills meet them half-written."""
    torch.set_num_threads(1)
    activations.FILE_BYTES = 20_000
    list(finetune(load_config(config), out, resume=True, store=ActivationStore(store, 1 << 30)))


def start(*arguments: Path) -> Any:
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.test_kills"])


def weights_of(out: Path) -> str:
    return hashlib.sha256((out / "model/model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("lora", [False, True])
def test_killed_again_and_again_it_ends_with_the_same_weights(lora: bool, tmp_path: Path) -> None:
    write_csv(tmp_path / "toy.csv", toy_rows(600))
    raw = toy_config(
        tmp_path,
        backbone={"freeze": 1, "cache": "on"},
        training={"epochs": 3, "checkpoint_steps": 5},
        adapter={"type": "lora" if lora else "none"},
        baselines=["majority"],
    )
    config = write_yaml(tmp_path / "config.yaml", raw)
    first = start(config, tmp_path / "first", tmp_path / "store1")  # the forkserver is warm from here on
    first.join()
    started = time.monotonic()
    whole = start(config, tmp_path / "whole", tmp_path / "store2")
    whole.join()
    seconds = time.monotonic() - started
    assert whole.exitcode == 0
    assert system(tmp_path / "whole", "fine-tuned")["store"] == "cold"
    assert weights_of(tmp_path / "first") == weights_of(tmp_path / "whole")

    rng, out, store = np.random.default_rng(int(lora)), tmp_path / "killed", tmp_path / "store3"
    kills = steps_seen = files_seen = 0
    while kills < KILLS // 2 + lora * (KILLS % 2):
        process = start(config, out, store)
        process.join(timeout=rng.uniform(0.05, 1) * seconds * 0.6)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        else:  # it was through: once more from nothing
            assert process.exitcode == 0
            assert weights_of(out) == weights_of(tmp_path / "whole")
            out.rename(tmp_path / f"done-{kills}-{time.monotonic_ns()}")
            store.rename(tmp_path / f"store-{time.monotonic_ns()}")
        files = list(store.glob("*/*.safetensors"))
        assert all(xxhash.xxh3_128(path.read_bytes()).hexdigest() == path.stem for path in files)  # complete or absent
        files_seen += bool(files)
        steps_seen += any(out.with_name("killed.partial").glob("checkpoints/step-*"))
    process = start(config, out, store)
    process.join()
    assert process.exitcode == 0
    assert weights_of(out) == weights_of(tmp_path / "whole")
    assert files_seen
    assert steps_seen
