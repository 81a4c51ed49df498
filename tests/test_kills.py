"""SIGKILL at random moments while the store is built and the model trained: no repair by hand, the same final weights.

ROOTSTOCK_KILLS says how many kills; 10 by default.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash

from pipelines import activations
from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.config import load_config
from pipelines.run import finetune
from tests.attempts import attempts
from tests.runs import system
from tests.toys import toy_config, toy_rows, write_csv, write_yaml

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ROOTSTOCK_KILLS", "10"))


def work(config: Path, out: Path, store: Path) -> None:
    """One attempt, in a process of its own. Many small files, so that kills meet them half-written."""
    torch.set_num_threads(1)
    activations.FILE_BYTES = 20_000
    list(finetune(load_config(config), out, resume=True, store=ActivationStore(store, 1 << 30)))


start = attempts(work)


def weights_of(out: Path) -> str:
    return hashlib.sha256((out / "model/model.safetensors").read_bytes()).hexdigest()


def progress_of(out: Path) -> int:
    """Steps in the newest complete checkpoint of the run itself."""
    saved = Checkpoints(out.with_name(f"{out.name}.partial") / "checkpoints").newest()
    return 0 if saved is None else int(saved.progress["step"])


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
    kills = steps_seen = building_seen = 0
    every = len(list((tmp_path / "store2").glob("*/*.safetensors")))
    while kills < KILLS // 2 + lora * (KILLS % 2):
        building = kills % 2 == 1
        if building and store.exists():
            store.rename(tmp_path / f"store-{time.monotonic_ns()}")
        before = progress_of(out)
        process = start(config, out, store)
        if building:  # at its second file, if it has not ended before
            while process.is_alive() and len(list(store.glob("*/*.safetensors"))) < 2:
                time.sleep(0.0005)
        else:
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
        building_seen += building and 0 < len(files) < every
        steps_seen += progress_of(out) > 0
        assert progress_of(out) >= before or not out.with_name("killed.partial").exists()  # nothing is lost
    process = start(config, out, store)
    process.join()
    assert process.exitcode == 0
    assert weights_of(out) == weights_of(tmp_path / "whole")
    assert building_seen
    assert steps_seen
