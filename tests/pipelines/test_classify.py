"""Batch classification: rows in, the same rows with predictions out, equal to plain transformers."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.classify import classify
from pipelines.config import parse_config
from pipelines.errors import DataError, RunDirectoryError
from pipelines.run import finetune
from tests.toys import toy_config, toy_rows

PIPELINE = """
import json, sys
sys.modules["pipelines"] = sys.modules["service"] = None  # Rootstock is not importable
from transformers import pipeline
texts = json.load(open(sys.argv[2], encoding="utf-8"))
classify = pipeline("text-classification", model=sys.argv[1], top_k=None)
json.dump([classify([text])[0] for text in texts], open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module", params=["none", "lora"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, without and with LoRA."""
    folder = tmp_path_factory.mktemp("model")
    raw = toy_config(folder, rows=100, adapter={"type": request.param, "r": 2}, baselines=["majority"])
    raw["training"]["epochs"] = 12  # clear margins, as a real model has
    list(finetune(parse_config(raw), folder / "run"))
    return folder / "run"


@pytest.fixture
def plain(model: Path) -> Path:
    """The run without LoRA only, for tests where it makes no difference."""
    if (model / "adapter").exists():
        pytest.skip("the adapter makes no difference here")
    return model


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_labels_equal_those_of_plain_transformers(model: Path, tmp_path: Path) -> None:
    rows = toy_rows(60, seed=9)
    classify(model, jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", precision="fp32")
    (tmp_path / "texts.json").write_text(json.dumps([row["text"] for row in rows]), encoding="utf-8")
    command = [sys.executable, "-c", PIPELINE, str(model / "model"), "texts.json", "scores.json"]
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    ours = read_jsonl(tmp_path / "out.jsonl")
    theirs = json.loads((tmp_path / "scores.json").read_text())
    assert [row["predicted_label"] for row in ours] == [scores[0]["label"] for scores in theirs]
    assert len({row["predicted_label"] for row in ours}) == 2
    for row, scores in zip(ours, theirs, strict=True):
        assert row["predicted_scores"] == pytest.approx({s["label"]: s["score"] for s in scores}, abs=1e-5)


def test_bf16_agrees_where_the_margin_is_clear(model: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", toy_rows(300, seed=5))
    for precision in ("fp32", "bf16"):
        classify(model, source, tmp_path / f"{precision}.jsonl", precision=precision)
    pairs = list(zip(read_jsonl(tmp_path / "fp32.jsonl"), read_jsonl(tmp_path / "bf16.jsonl"), strict=True))
    differing = [a for a, b in pairs if a["predicted_label"] != b["predicted_label"]]
    assert len(differing) <= 0.005 * len(pairs)
    for row in differing:
        first, second = sorted(row["predicted_scores"].values(), reverse=True)[:2]
        assert first - second < 0.2  # bf16 moves single logits of this toy by up to 0.4; real posts have 0.05


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".tsv", ".parquet"])
def test_columns_and_order_are_kept_in_every_format(suffix: str, plain: Path, tmp_path: Path) -> None:
    rows = [{"n": n, "text": row["text"], "note": "=SUM(A1)"} for n, row in enumerate(toy_rows(50, seed=3))]
    source = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist(rows), source)
    out = tmp_path / f"out{suffix}"
    done = classify(plain, source, out)
    assert (done.rows, done.errors) == (50, 0)
    if suffix == ".parquet":
        found = pq.read_table(out).to_pylist()
    elif "jsonl" in suffix:
        opener = gzip.open if suffix.endswith(".gz") else open
        with opener(out, "rt", encoding="utf-8") as file:
            found = [json.loads(line) for line in file]
    else:
        with out.open(encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ","))
    assert list(found[0]) == ["n", "text", "note", "predicted_label", "predicted_score", "predicted_scores"]
    assert [str(row["n"]) for row in found] == [str(n) for n in range(50)]
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    inert = "'=SUM(A1)" if suffix in (".csv", ".tsv") else "=SUM(A1)"
    assert {row["note"] for row in found} == {inert}
    assert {p.name for p in tmp_path.iterdir()} == {source.name, out.name, out.name + ".manifest.json"}


def test_rows_without_text_go_to_the_error_file(plain: Path, tmp_path: Path) -> None:
    rows = toy_rows(3)
    rows[1]["text"] = "   "
    rows.append({"text": None, "label": "x", "kind": "short"})
    done = classify(plain, jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    assert (done.rows, done.errors) == (4, 2)
    found = read_jsonl(tmp_path / "out.jsonl")
    assert [row["predicted_label"] is None for row in found] == [False, True, False, True]
    assert [e["line"] for e in read_jsonl(tmp_path / "out.jsonl.errors.jsonl")] == [2, 4]
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert (manifest["rows"], manifest["errors"]) == (4, 2)


def test_a_row_does_not_depend_on_its_neighbours(plain: Path, tmp_path: Path) -> None:
    rows = toy_rows(40, seed=7)
    classify(plain, jsonl(tmp_path / "all.jsonl", rows), tmp_path / "all.out.jsonl")
    classify(plain, jsonl(tmp_path / "one.jsonl", rows[20:21]), tmp_path / "one.out.jsonl")
    together, alone = read_jsonl(tmp_path / "all.out.jsonl")[20], read_jsonl(tmp_path / "one.out.jsonl")[0]
    assert together["predicted_scores"] == pytest.approx(alone["predicted_scores"], abs=1e-5)


def test_a_broken_row_stops_and_leaves_nothing(plain: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", toy_rows(3))
    source.write_text(source.read_text() + "{broken\n")
    with pytest.raises(DataError, match=r"in\.jsonl, line 4, column 2: not valid JSON"):
        classify(plain, source, tmp_path / "out.jsonl")
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_misuse_is_refused_with_a_reason(plain: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"body": "the cat sleeps", "predicted_label": "x"}])
    with pytest.raises(DataError, match=r"no column 'text' .*columns found: body, predicted_label.*--text body"):
        classify(plain, source, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="the column 'predicted_label' exists already"):
        classify(plain, source, tmp_path / "out.jsonl", text="body")
    with pytest.raises(DataError, match=r"unknown format '\.xlsx'"):
        classify(plain, source, tmp_path / "out.xlsx")
    with pytest.raises(DataError, match="exists already; choose another --out"):
        classify(plain, source, source)
    with pytest.raises(RunDirectoryError, match="no such directory"):
        classify(tmp_path / "nothing", source, tmp_path / "out.jsonl")


def test_an_incomplete_or_changed_model_is_refused(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain, copy)
    source = jsonl(tmp_path / "in.jsonl", toy_rows(2))
    weights = copy / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunDirectoryError, match=r"model/model\.safetensors was changed after it was written"):
        classify(copy, source, tmp_path / "out.jsonl")
    (copy / "manifest.json").unlink()
    with pytest.raises(RunDirectoryError, match="not a complete run directory"):
        classify(copy, source, tmp_path / "out.jsonl")
