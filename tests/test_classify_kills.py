"""SIGKILL at random moments while a file is classified: no row missing or twice, the same bytes at the end.

ROOTSTOCK_KILLS says how many kills (default 10), ROOTSTOCK_KILL_ROWS how many rows (default 20,000).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.bulk import chunks
from pipelines.bulk.request import Options
from pipelines.classify import classify
from pipelines.config import parse_config
from pipelines.run import finetune
from tests.attempts import attempts
from tests.toys import ANIMALS, BAD, GOOD, PLACES, VERBS, toy_config

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ROOTSTOCK_KILLS", "10"))
ROWS = int(os.environ.get("ROOTSTOCK_KILL_ROWS", "20000"))
OPTIONS = Options(backend="torch", precision="fp32", top_k=1)


def work(model: Path, source: Path, out: Path) -> None:
    """One attempt, in a process of its own. Small chunks, so that kills meet many borders."""
    torch.set_num_threads(1)
    chunks.ROWS = max(500, ROWS // 100)
    list(classify([model], str(source), out, OPTIONS, resume=True))


start = attempts(work)


def finished(*arguments: Path) -> float:
    """Seconds of an attempt that nobody kills."""
    process, started = start(*arguments), time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - started


def write_rows(path: Path) -> None:
    """Sentences of one to thirty words; every 50th row is a copy, every 97th has no text, every 101st is broken."""
    rng = np.random.default_rng(0)
    words = [str(word) for word in (*ANIMALS, *BAD, *GOOD, *PLACES, *VERBS)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(ROWS):
            text = " ".join(rng.choice(words, rng.integers(1, 30))) + f" x{number}"
            if number % 50 == 49:
                text = "the cat sleeps gladly"
            row = {"custom_id": f"r{number}", "text": "" if number % 97 == 96 else text}
            file.write(json.dumps(row)[: 20 if number % 101 == 100 else None] + "\n")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_killed_again_and_again_it_ends_with_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    raw = toy_config(tmp_path, rows=60, baselines=["majority"])
    list(finetune(parse_config(raw), tmp_path / "model"))
    model, source = tmp_path / "model", tmp_path / "in.jsonl"
    write_rows(source)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    finished(model, source, tmp_path / f"warm{suffix}")  # the forkserver has its libraries from here on
    seconds = finished(model, source, whole)
    expected = hashlib.sha256(whole.read_bytes()).hexdigest()

    rng = np.random.default_rng(len(suffix))
    kills = met = 0
    while kills < KILLS // 2:
        process = start(model, source, out)
        process.join(timeout=rng.uniform(0.05, 0.7) * seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            met += any(out.with_name(out.name + ".partial").glob("*.rows"))
        else:  # it was through: once more from nothing
            assert process.exitcode == 0
            assert hashlib.sha256(out.read_bytes()).hexdigest() == expected
            for file in tmp_path.glob(f"out{suffix}*"):
                file.unlink()
    if not out.exists():
        finished(model, source, out)
    assert met
    assert hashlib.sha256(out.read_bytes()).hexdigest() == expected
    assert (tmp_path / f"out{suffix}.errors.jsonl").read_bytes() == (
        tmp_path / f"whole{suffix}.errors.jsonl"
    ).read_bytes()
    if suffix == ".jsonl":
        ids = [json.loads(line)["custom_id"] for line in out.read_text(encoding="utf-8").splitlines()]
        assert ids == [f"r{number}" for number in range(ROWS) if number % 101 != 100]
