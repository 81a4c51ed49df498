"""Batch classification: rows in, the same rows with predictions out, equal to plain transformers."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bulk import chunks
from pipelines.bulk.ledger import Ledger
from pipelines.bulk.request import Options
from pipelines.classify import classify as classification
from pipelines.config import parse_config
from pipelines.errors import ConfigError, DataError, Interrupted, RunDirectoryError
from pipelines.records import Classified, Event, Rows
from pipelines.run import finetune
from tests.toys import ANIMALS, tiny_backbone, toy_config, toy_rows, write_csv

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


@pytest.fixture(scope="module")
def plain_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, for tests that may not be given one per example."""
    folder = tmp_path_factory.mktemp("plain")
    list(finetune(parse_config(toy_config(folder, baselines=["majority"])), folder / "run"))
    return folder / "run"


@pytest.fixture
def plain(model: Path) -> Path:
    """The run without LoRA only, for tests where it makes no difference."""
    if (model / "adapter").exists():
        pytest.skip("the adapter makes no difference here")
    return model


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models on the same frozen layer, one of them with LoRA; and one on other layers, with other labels."""
    folder = tmp_path_factory.mktemp("clients")
    made = []
    for name, adapter, freeze, classes in (("a", "none", 1, 2), ("b", "lora", 2, 2), ("c", "none", 1, 3)):
        raw = toy_config(folder, rows=90, adapter={"type": adapter, "r": 2}, backbone={"freeze": freeze})
        if classes == 3:
            rows = [row | {"label": ("calm", "harsh", "odd")[n % 3]} for n, row in enumerate(toy_rows(90))]
            raw["data"]["train"] = str(write_csv(folder / "three.csv", rows))
            raw["backbone"]["name"] = str(tiny_backbone(folder / "other", seed=5))
        raw["training"]["seed"] = len(made)
        list(finetune(parse_config(raw), folder / name))
        made.append(folder / name)
    return made


def classify(models: Path | list[Path], source: Path | str, out: Path, resume: bool = False, **options: Any) -> Any:
    """Run to the end; what the manifest says."""
    events = classification(
        [models] if isinstance(models, Path) else models, str(source), out, Options(**options), resume
    )
    *_, last = events
    assert isinstance(last, Classified)
    assert last.summary == json.loads(out.with_name(out.name + ".manifest.json").read_text())
    return last.summary


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as file:  # str.splitlines would also split at U+0085 in a text
        return [json.loads(line) for line in file]


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
    assert (done["rows"], done["errors"]) == (50, 0)
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
    assert (done["rows"], done["errors"]) == (4, 2)
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


def test_a_broken_row_is_reported_and_the_rest_goes_on(plain: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [row | {"custom_id": f"r{n}"} for n, row in enumerate(toy_rows(3))])
    source.write_text(source.read_text() + "{broken\n" + json.dumps({"text": "", "custom_id": "r4"}) + "\n")
    done = classify(plain, source, tmp_path / "out.jsonl")
    assert (done["rows"], done["errors"]) == (5, 2)
    assert [row["custom_id"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["r0", "r1", "r2", "r4"]
    broken, empty = read_jsonl(tmp_path / "out.jsonl.errors.jsonl")
    assert broken["line"] == 4
    assert "not valid JSON" in broken["reason"]
    assert empty == {"line": 5, "custom_id": "r4", "reason": "expected text in column 'text', found none"}


def test_a_row_that_has_no_column_for_a_key_is_reported(plain: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"text": "the cat"}, {"text": "the dog", "more": 1}, {"text": "the owl"}])
    done = classify(plain, source, tmp_path / "out.csv")
    assert (done["rows"], done["errors"]) == (3, 1)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    (error,) = read_jsonl(tmp_path / "out.csv.errors.jsonl")
    assert error == {"line": 2, "reason": "the key 'more' is not in the first row, so there is no column; write .jsonl"}
    assert classify(plain, source, tmp_path / "out.jsonl")["errors"] == 0


def test_copies_are_computed_once(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 10)
    rows = toy_rows(8, seed=2)
    done = classify(plain, jsonl(tmp_path / "in.jsonl", rows * 5), tmp_path / "out.jsonl")
    assert (done["rows"], done["computed"], done["copies"]) == (40, 8, 32)
    found = [row["predicted_scores"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert found == found[:8] * 5


def test_what_is_remembered_is_bounded(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 4)
    monkeypatch.setattr(chunks, "REMEMBERED", 4)
    rows = toy_rows(8, seed=2)
    done = classify(plain, jsonl(tmp_path / "in.jsonl", [*rows, *rows[:4], *rows[:4]]), tmp_path / "out.jsonl")
    assert done["computed"] == 12  # the first four were forgotten once


def test_many_models_give_what_each_gives_alone(clients: list[Path], tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", toy_rows(50, seed=9))
    classify(clients, source, tmp_path / "all.jsonl", precision="fp32")
    together = read_jsonl(tmp_path / "all.jsonl")
    for path in clients:
        classify(path, source, tmp_path / f"{path.name}.jsonl", precision="fp32")
        for row, alone in zip(together, read_jsonl(tmp_path / f"{path.name}.jsonl"), strict=True):
            assert row[f"{path.name}/predicted_label"] == alone["predicted_label"]
            assert row[f"{path.name}/predicted_scores"] == pytest.approx(alone["predicted_scores"], abs=1e-5)
    assert len(together[0]["c/predicted_scores"]) == 3


def test_rows_are_routed_by_a_column(clients: list[Path], tmp_path: Path) -> None:
    names = ["a", "b", "c", "nobody"]
    rows = [row | {"client": names[n % 4]} for n, row in enumerate(toy_rows(40, seed=9))]
    source = jsonl(tmp_path / "in.jsonl", rows)
    done = classify(clients, source, tmp_path / "out.jsonl", precision="fp32", route="client")
    assert (done["rows"], done["errors"]) == (40, 10)
    classify(clients, source, tmp_path / "all.jsonl", precision="fp32")
    for row, every in zip(read_jsonl(tmp_path / "out.jsonl"), read_jsonl(tmp_path / "all.jsonl"), strict=True):
        name = row["client"]
        if name == "nobody":
            assert row["predicted_label"] is None
        else:
            assert row["predicted_by_model"] == name
            assert row["predicted_scores"] == pytest.approx(every[f"{name}/predicted_scores"], abs=1e-5)
    reasons = {row["reason"] for row in read_jsonl(tmp_path / "out.jsonl.errors.jsonl")}
    assert reasons == {"expected one of a, b, c in column 'client', found 'nobody'"}
    same = jsonl(tmp_path / "same.jsonl", [rows[0], rows[0] | {"client": "b"}])
    assert classify(clients, same, tmp_path / "same.out.jsonl", route="client")["computed"] == 2  # not copies


def test_best_scores_and_flags(plain: Path, tmp_path: Path) -> None:
    source = jsonl(tmp_path / "in.jsonl", toy_rows(30, seed=9))
    classify(plain, source, tmp_path / "out.jsonl", precision="fp32", top_k=1, thresholds=["harsh=0.6", "calm=1"])
    for row in read_jsonl(tmp_path / "out.jsonl"):
        assert row["predicted_scores"] == {row["predicted_label"]: row["predicted_score"]}
        harsh = row["predicted_score"] if row["predicted_label"] == "harsh" else 1 - row["predicted_score"]
        assert row["predicted_flags"] == (["harsh"] if harsh >= 0.6 else [])
    for wanted, message in (
        ("mild=0.5", "with a label among calm, harsh"),
        ("harsh=2", "expected a score from 0 to 1"),
        ("harsh=accuracy:0.9", "precision:0.9 or recall:0.9"),
        ("harsh=precision:0.123", "the report holds no precision of 0.123"),
    ):
        with pytest.raises(ConfigError, match=message):
            classify(plain, source, tmp_path / "no.jsonl", thresholds=[wanted])
    assert not list(tmp_path.glob("no.jsonl*"))


def test_long_texts_are_cut_or_split(plain: Path, tmp_path: Path) -> None:
    calm, harsh = ("the cat sleeps gladly softly near barn " * 2, "the dog eats rudely meanly near lake " * 2)
    source = jsonl(tmp_path / "in.jsonl", [{"text": calm + harsh}, {"text": calm}, {"text": calm + harsh * 6}])
    found = {}
    for long in ("truncate", "windows"):
        classify(plain, source, tmp_path / f"{long}.jsonl", precision="fp32", max_length=16, long=long)
        found[long] = [row["predicted_scores"]["harsh"] for row in read_jsonl(tmp_path / f"{long}.jsonl")]
    cut, split = found["truncate"], found["windows"]
    assert cut[0] == pytest.approx(cut[1], abs=1e-5)  # the end of the text is not seen
    assert split[1] == pytest.approx(cut[1], abs=1e-5)
    assert split[2] > split[0] > cut[0]
    with pytest.raises(ConfigError, match="max length: expected 3 to 512 tokens"):
        classify(plain, source, tmp_path / "no.jsonl", max_length=100_000)


def test_a_folder_of_files_is_one_input(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = toy_rows(6)
    jsonl(tmp_path / "in/1.jsonl", rows[:3])
    jsonl(tmp_path / "in/2.jsonl", [*rows[3:], {"text": None}])
    classify(plain, tmp_path / "in", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == [row["text"] for row in rows] + [""]
    (error,) = read_jsonl(tmp_path / "out.csv.errors.jsonl")
    assert (Path(error["file"]).name, error["line"]) == ("2.jsonl", 4)


@pytest.mark.slow
def test_a_cascade_says_who_answered_and_what_it_costs(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("cascade")
    raw = toy_config(folder, rows=100)
    raw["training"]["epochs"] = 12
    list(finetune(parse_config(raw), folder / "run"))
    labelled = write_csv(tmp_path / "labelled.csv", toy_rows(2600, seed=11))
    source, out = jsonl(tmp_path / "in.jsonl", toy_rows(120, seed=12)), tmp_path / "out.jsonl"
    done = classify(folder / "run", source, out, cascade=0.02, calibrate=labelled, precision="fp32")
    certificate = done["certificate"]
    assert certificate["baseline"] == "logistic-regression-tfidf"
    assert certificate["loss_upper"] <= certificate["max_loss"] == 0.02
    assert 2000 <= certificate["items"] <= 2600
    rows = read_jsonl(out)
    by_regression = [row for row in rows if row["predicted_by_stage"] == "regression"]
    assert len(by_regression) == done["answered_by_regression"] > 20
    classify(folder / "run", source, tmp_path / "alone.jsonl", precision="fp32")
    for row, alone in zip(rows, read_jsonl(tmp_path / "alone.jsonl"), strict=True):
        if row["predicted_by_stage"] == "transformer":
            assert row["predicted_scores"] == pytest.approx(alone["predicted_scores"], abs=1e-5)

    monkeypatch.setattr(chunks, "ROWS", 16)
    stopped(folder / "run", source, tmp_path / "again.jsonl", 2, cascade=0.02, calibrate=labelled, precision="fp32")
    labelled.unlink()  # what was certified is not certified again
    again = classify(folder / "run", source, tmp_path / "again.jsonl", True, cascade=0.02, precision="fp32")
    assert again["certificate"] == certificate
    with pytest.raises(ConfigError, match=r"2,000 .*labelled items"):
        classify(folder / "run", source, tmp_path / "no.jsonl", cascade=0.02)


@settings(max_examples=12, deadline=None)
@given(
    lines=st.lists(
        st.one_of(
            st.lists(st.sampled_from([*ANIMALS, "x", "\u65e5\u672c", "\U0001f600", "e\u0301"]), max_size=80).map(
                " ".join
            ),
            st.text(max_size=30),
            st.sampled_from(["the cat sleeps", "", "   "]),
            st.none(),
            st.just(b"{broken"),
        ),
        min_size=1,
        max_size=40,
    )
)
def test_any_mix_of_rows_gives_one_answer_each_in_order(plain_once: Path, lines: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "ROWS", 7)
        folder = Path(name)
        rows = [line if isinstance(line, bytes) else json.dumps({"n": n, "text": line}) for n, line in enumerate(lines)]
        raw = b"".join(
            (row if isinstance(row, bytes) else row.encode()) + b"\n"
            for row in [json.dumps({"n": -1, "text": "a"}), *rows]
        )
        (folder / "in.jsonl").write_bytes(raw)
        done = classify(plain_once, folder / "in.jsonl", folder / "out.jsonl", precision="fp32", backend="torch")
        found = read_jsonl(folder / "out.jsonl")
        path = folder / "out.jsonl.errors.jsonl"
        errors = {row["line"] for row in read_jsonl(path)} if path.exists() else set()
        assert [row["n"] for row in found] == [-1, *(n for n, line in enumerate(lines) if not isinstance(line, bytes))]
        for row in found[1:]:
            text = lines[row["n"]]
            assert row["text"] == text
            empty = text is None or not text.strip()
            assert (row["predicted_label"] is None) == empty == (row["n"] + 2 in errors)
        broken = {n + 2 for n, line in enumerate(lines) if isinstance(line, bytes)}
        assert broken <= errors
        assert done["errors"] == len(errors)


# ---- stopping and going on


def stopped(models: Path | list[Path], source: Path, out: Path, after: int, **options: Any) -> list[Event]:
    """A run that is asked to stop when `after` chunks were committed."""
    events: list[Event] = []
    paths = [models] if isinstance(models, Path) else models
    with pytest.raises(Interrupted, match="are kept"):
        events += classification(paths, str(source), out, Options(**options), stop=lambda: len(done(out)) >= after)
    return events


def done(out: Path) -> list[Path]:
    return sorted(out.with_name(out.name + ".partial").glob("[0-9]*.json"))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv.gz", ".parquet"])
def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    suffix: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    rows = toy_rows(90, seed=3)
    rows = [*rows[:60], *rows[:20], {**rows[0], "text": " "}, *rows[60:]]
    source = jsonl(tmp_path / "in.jsonl", rows)
    whole = classify(plain, source, tmp_path / f"whole{suffix}")
    out = tmp_path / f"out{suffix}"
    stopped(plain, source, out, after=3)
    assert not out.exists()
    committed = len(done(out))
    assert 3 <= committed < 7
    with pytest.raises(RunDirectoryError, match=f"unfinished work is here .{committed} chunks.; go on with --resume"):
        classify(plain, source, out)
    again = classify(plain, source, out, resume=True)
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    for name in ("rows", "errors", "computed", "copies", "labels", "drift", "sha256"):
        assert again[name] == whole[name], name
    errors = [(tmp_path / f"{name}{suffix}.errors.jsonl").read_text() for name in ("whole", "out")]
    assert errors[0] == errors[1] != ""
    assert not list(tmp_path.glob("*.partial"))


def test_going_on_with_something_else_is_refused(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    source, out = jsonl(tmp_path / "in.jsonl", toy_rows(160)), tmp_path / "out.jsonl"
    stopped(plain, source, out, after=2)
    before = {path.name: path.read_bytes() for path in out.with_name("out.jsonl.partial").iterdir()}
    with pytest.raises(RunDirectoryError, match=r"another options \(top_k\); restore that"):
        classify(plain, source, out, resume=True, top_k=1)
    jsonl(source, [*toy_rows(159), {"text": "another", "label": "x", "kind": "y"}])
    with pytest.raises(RunDirectoryError, match=r"another input \(files\)"):
        classify(plain, source, out, resume=True)
    assert {path.name: path.read_bytes() for path in out.with_name("out.jsonl.partial").iterdir()} == before
    jsonl(source, toy_rows(160))
    assert classify(plain, source, out, resume=True)["rows"] == 160


def test_going_on_with_the_models_in_another_order_is_refused(
    clients: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    source, out = jsonl(tmp_path / "in.jsonl", [*toy_rows(100), *toy_rows(60)]), tmp_path / "out.csv"
    classify(clients, source, tmp_path / "whole.csv")
    stopped(clients, source, out, after=2)
    with pytest.raises(RunDirectoryError, match="has another models; restore that"):
        classify(clients[::-1], source, out, resume=True)
    classify(clients, source, out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_standard_input_that_is_another_one_is_refused(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    raw = jsonl(tmp_path / "in.jsonl", toy_rows(160)).read_bytes()
    out = tmp_path / "out.jsonl"

    def given(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    given(raw)
    stopped(plain, Path("-"), out, after=3)
    for other in (b"".join(raw.splitlines(True)[:20]), raw.replace(b"the", b"The")):
        given(other)
        with pytest.raises(RunDirectoryError, match="the input is not the one that the unfinished run has read"):
            classify(plain, "-", out, resume=True)
    given(raw)
    assert classify(plain, "-", out, resume=True)["rows"] == 160


def test_what_is_finished_already_is_not_done_again(plain: Path, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "in.jsonl", toy_rows(5)), tmp_path / "out.jsonl"
    first = classify(plain, source, out)
    assert classify(plain, source, out, resume=True) == first
    with pytest.raises(RunDirectoryError, match=r"the finished output has another options \(top_k\)"):
        classify(plain, source, out, resume=True, top_k=1)
    with pytest.raises(DataError, match="exists already"):
        classify(plain, source, out)
    out.write_text("changed")
    with pytest.raises(DataError, match="exists already"):
        classify(plain, source, out, resume=True)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_no_rows_give_a_file_without_rows(suffix: str, plain: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("n,text\n")
    done = classify(plain, tmp_path / "in.csv", tmp_path / f"out{suffix}")
    assert (done["rows"], done["errors"]) == (0, 0)
    if suffix == ".csv":
        assert (tmp_path / "out.csv").read_text().startswith("n,text,predicted_label,")
    if suffix == ".parquet":
        assert pq.read_table(tmp_path / "out.parquet").shape == (0, 5)


def test_a_committed_chunk_that_was_damaged_is_computed_again(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    source, out = jsonl(tmp_path / "in.jsonl", toy_rows(160)), tmp_path / "out.jsonl"
    classify(plain, source, tmp_path / "whole.jsonl")
    stopped(plain, source, out, after=3)
    part = out.with_name("out.jsonl.partial") / "000001.rows"
    part.write_bytes(part.read_bytes()[:-5])
    classify(plain, source, out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_kill_between_the_last_renames_is_made_good(plain: Path, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "in.jsonl", [*toy_rows(5), {"text": None}]), tmp_path / "out.jsonl"
    summary = classify(plain, source, tmp_path / "whole.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.bulk.ledger.Ledger.rename", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            classify(plain, source, out)
    partial = out.with_name("out.jsonl.partial")
    (partial / "out.jsonl.errors.jsonl").rename(tmp_path / "out.jsonl.errors.jsonl")
    (partial / "out.jsonl").rename(out)  # and then it was killed
    again = classify(plain, source, out, resume=True)
    assert again["sha256"] == summary["sha256"]
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not partial.exists()


def test_nothing_committed_starts_afresh_and_a_failure_leaves_nothing(plain: Path, tmp_path: Path) -> None:
    source, out = jsonl(tmp_path / "in.jsonl", toy_rows(5)), tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.partial").mkdir()
    (tmp_path / "out.jsonl.partial/000000.rows").write_text("half a row")
    classify(plain, source, out, resume=True)
    assert len(read_jsonl(out)) == 5
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(source.read_bytes() * 50, mtime=0)[:-20])
    with pytest.raises(DataError, match="the gzip data is damaged or cut off"):
        classify(plain, cut, tmp_path / "no.jsonl")
    assert not list(tmp_path.glob("*no.jsonl*"))


def test_a_full_disk_is_one_line_and_what_is_committed_stays(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    source, out = jsonl(tmp_path / "in.jsonl", toy_rows(160)), tmp_path / "out.jsonl"
    classify(plain, source, tmp_path / "whole.jsonl")
    whole_disk = Ledger.commit

    def full(ledger: Ledger, number: int, record: dict[str, Any]) -> None:
        if number == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole_disk(ledger, number, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "commit", full)
        with pytest.raises(DataError, match=r"No space left on device; what is committed is kept: .*--resume"):
            classify(plain, source, out)
    assert not out.exists()
    assert [path.name for path in done(out)][:3] == ["000000.json", "000001.json", "000002.json"]
    assert not out.with_name("out.jsonl.partial").joinpath("000003.json").exists()
    classify(plain, source, out, resume=True)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_progress_says_rows_rate_and_what_is_left(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 16)
    source = jsonl(tmp_path / "in.jsonl", toy_rows(64))
    events = list(classification([plain], str(source), tmp_path / "out.jsonl"))
    rows = [event for event in events if isinstance(event, Rows)]
    assert [event.rows for event in rows] == [16, 32, 48, 64]
    assert all(event.rows_per_second > 0 and event.share and event.remaining_s is not None for event in rows)
    assert [event.share for event in rows] == [0.25, 0.5, 0.75, 1.0]
    assert rows[0].remaining_s > rows[-1].remaining_s == 0.0


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
