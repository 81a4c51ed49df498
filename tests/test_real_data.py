"""The embedded backbone on real texts: what `classify` says is what plain transformers says, and what the data check
finds. Skips without the data.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.check import check
from pipelines.config import data_config, parse_config
from pipelines.records import Checked
from pipelines.run import finetune
from tests.pipelines.test_classify import PIPELINE, classify, read_jsonl

pytestmark = pytest.mark.slow
TRAIN, TEST = 320, 400


@pytest.fixture(scope="module", params=["none", "lora"])
def run(request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on EDOS, whole upper layers or LoRA; `posts.csv` beside it."""
    folder = tmp_path_factory.mktemp("edos")
    source = shared_data / "edos/edos_labelled_aggregated.csv.gz"
    with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [[r for r in rows if r["split"] == s][:n] for s, n in (("train", TRAIN), ("test", TEST))]
    with (folder / "posts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen[0] + chosen[1])
    path = str(folder / "posts.csv")
    raw = {
        "task": "text-classification",
        "data": {"text": "text", "label": "label_sexist", "id": "rewire_id"}
        | {part: {"path": path, "where": {"split": part}} for part in ("train", "test")},
        "backbone": {"freeze": 4},
        "adapter": {"type": request.param},
        "training": {"epochs": 2, "precision": "fp32"},
        "baselines": ["majority"],
    }
    list(finetune(parse_config(raw), folder / "run"))
    return folder / "run"


def test_classify_equals_plain_transformers_in_fp32_and_nearly_in_bf16(run: Path, tmp_path: Path) -> None:
    posts = run.parent / "posts.csv"
    for precision in ("fp32", "bf16"):
        classify(run, posts, tmp_path / f"{precision}.jsonl", precision=precision)
    ours, half = read_jsonl(tmp_path / "fp32.jsonl"), read_jsonl(tmp_path / "bf16.jsonl")
    (tmp_path / "texts.json").write_text(json.dumps([row["text"] for row in ours]), encoding="utf-8")
    command = [sys.executable, "-c", PIPELINE, str(run / "model"), "texts.json", "scores.json"]
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    theirs = json.loads((tmp_path / "scores.json").read_text())
    assert len(ours) == TRAIN + TEST
    assert [row["predicted_label"] for row in ours] == [scores[0]["label"] for scores in theirs]

    differing = [a for a, b in zip(ours, half, strict=True) if a["predicted_label"] != b["predicted_label"]]
    assert len(differing) <= 0.005 * len(ours)
    for row in differing:
        first, second = sorted(row["predicted_scores"].values(), reverse=True)[:2]
        assert first - second < 0.05


def test_the_data_check_finds_labels_that_were_flipped_on_purpose(shared_data: Path, tmp_path: Path) -> None:
    """5% of Banking77's training labels, another class at random: most are among as many suspects twice over."""
    with gzip.open(shared_data / "banking77/train.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rng = np.random.default_rng(0)
    classes = sorted({row["category"] for row in rows})
    flipped = rng.choice(len(rows), len(rows) // 20, replace=False)
    for number in flipped.tolist():
        rows[number]["category"] = rng.choice([name for name in classes if name != rows[number]["category"]])
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    *_, checked = check(data_config(tmp_path / "train.csv", {}, {"label": "category"}, []))
    assert isinstance(checked, Checked)
    suspects = next(found for found in checked.checks if found["name"] == "label errors")
    top = {place["number"] for place in suspects["places"][: 2 * len(flipped)]}
    found = len(top & set(flipped.tolist())) / len(flipped)
    print(f"{found:.1%} of {len(flipped)} flipped labels among {len(top)} suspects")
    assert found >= 0.7
