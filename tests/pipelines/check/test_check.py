"""The whole check: what it says, what it writes, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipelines.check import check
from pipelines.config import RunConfig, data_config, parse_config
from pipelines.errors import ConfigError, DataError, Interrupted, RunDirectoryError
from pipelines.records import Checked
from service.cli import app
from tests.runs import client_config, first_run
from tests.toys import tiny_backbone, toy_rows

RUN = CliRunner()
BASE = toy_rows(120)
# Lines 122 to 124: line 2 again, line 3 again under the other label, line 4 that the test part has too.
ROWS = [*BASE, BASE[0], BASE[1] | {"label": "calm"}, BASE[2] | {"text": BASE[2]["text"] + " sings"}]


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return tiny_backbone(tmp_path / "tiny")


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if ".jsonl" in path.name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def config_of(train: Path, backbone: Path, test: Path | None = None, **columns: str) -> RunConfig:
    return data_config(train, {"test": test}, columns, [f"backbone.name={backbone}", "training.precision=fp32"])


def checked(config: RunConfig, **options: Any) -> Checked:
    *_, last = check(config, **options)
    assert isinstance(last, Checked)
    return last


def test_every_check_reports_once(tmp_path: Path, backbone: Path) -> None:
    train, test = (
        written(tmp_path / "train.csv", ROWS),
        written(tmp_path / "test.csv", [BASE[2], *toy_rows(20, seed=9)]),
    )
    found = checked(config_of(train, backbone, test))
    levels = {finding["name"]: finding["level"] for finding in found.checks}
    assert list(levels) == [
        "classes", "duplicates", "leaks", "contradictions", "languages", "personal data", "lengths", "label errors",
    ]  # fmt: skip
    assert (levels["leaks"], levels["contradictions"], levels["duplicates"]) == ("problem", "problem", "note")
    assert found.items == {"train": len(ROWS), "test": 21}
    assert found.path is None


def test_the_page_and_the_figures_are_written(tmp_path: Path, backbone: Path) -> None:
    hostile = BASE[5] | {"text": "<script>alert(1)</script> " + BASE[5]["text"]}
    train = written(tmp_path / "train.csv", [*ROWS, hostile, hostile])
    found = checked(config_of(train, backbone), out=tmp_path / "checked")
    saved = json.loads((tmp_path / "checked" / "check.json").read_text())
    assert saved.pop("sentence").startswith("Problems: contradictions; notes: duplicates")
    assert saved == {"items": found.items, "checks": found.checks}
    page = (tmp_path / "checked" / "check.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert all(finding["sentence"].split(":")[0] in page for finding in found.checks if "'" not in finding["sentence"])
    assert sorted(path.name for path in tmp_path.iterdir() if "checked" in path.name) == ["checked"]
    with pytest.raises(RunDirectoryError, match="choose another --out"):
        checked(config_of(train, backbone), out=tmp_path / "checked")


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.parquet"])
def test_a_clean_copy_has_all_but_what_is_listed(name: str, tmp_path: Path, backbone: Path) -> None:
    train = written(tmp_path / name, ROWS)
    test = written(tmp_path / "test.csv", [BASE[2]])
    clean = tmp_path / f"clean-{name}"
    found = checked(config_of(train, backbone, test), clean=clean)
    removed = [json.loads(line) for line in (tmp_path / f"clean-{name}.removed.jsonl").read_text().splitlines()]
    first = 1 if name in ("t.jsonl", "t.parquet") else 2
    why = {entry["line"] - first: entry["why"].split(":")[0] for entry in removed}
    assert why == {2: "leaks", 120: "duplicates", 122: "leaks"}
    assert all(entry["row"] == {k: str(v) for k, v in ROWS[entry["line"] - first].items()} for entry in removed)
    again = checked(config_of(clean, backbone, test))
    assert again.items["train"] == len(ROWS) - 3
    left = {f["name"]: f["values"] for f in again.checks}
    assert (left["leaks"], left["duplicates"]["exact"]) == ({}, 1)
    assert left["contradictions"]["same_text"] == 2  # for people to decide
    assert found.checks[-1]["values"] == {"kept": len(ROWS) - 3, "removed": 3}


def test_a_clean_parquet_file_has_the_types_that_it_had(tmp_path: Path, backbone: Path) -> None:
    table = pa.Table.from_pylist(ROWS).append_column("weight", pa.array([0.5] * len(ROWS), type=pa.float32()))
    pq.write_table(table.append_column("none", pa.array([None] * len(ROWS), type=pa.string())), tmp_path / "t.parquet")
    checked(config_of(tmp_path / "t.parquet", backbone), clean=tmp_path / "clean.parquet")
    kept = [i for i in range(len(ROWS)) if i != 120]
    assert pq.read_table(tmp_path / "clean.parquet").equals(pq.read_table(tmp_path / "t.parquet").take(kept))


def test_only_rows_of_the_training_part_are_copied_line_ends_and_quotes_kept(tmp_path: Path, backbone: Path) -> None:
    rows = [row | {"part": "train", "text": row["text"].replace(" near", '\n"near"')} for row in ROWS]
    rows += [row | {"part": "other"} for row in toy_rows(10, seed=5)]
    train = written(tmp_path / "t.csv", rows)
    config = data_config(train, {}, {}, [f"backbone.name={backbone}", "data.train.where={part: train}"])
    checked(config, clean=tmp_path / "clean.csv")
    with (tmp_path / "clean.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert [row["text"] for row in kept] == [rows[i]["text"] for i in range(len(ROWS)) if i != 120]


def test_personal_data_is_not_repeated_anywhere(tmp_path: Path, backbone: Path) -> None:
    secret = BASE[7] | {"text": "write to jane.doe@mail.example about " + BASE[7]["text"]}
    train = written(tmp_path / "t.csv", [*ROWS, secret, secret])
    found = checked(config_of(train, backbone), out=tmp_path / "out")
    assert "personal data" in [f["name"] for f in found.checks if f["level"] == "note"]
    assert "mail.example" not in json.dumps(found.checks) + (tmp_path / "out/check.html").read_text()


def test_a_copy_inside_the_new_directory_is_refused(tmp_path: Path, backbone: Path) -> None:
    train = written(tmp_path / "t.csv", ROWS)
    with pytest.raises(ConfigError, match=r"expected a file outside of --out"):
        checked(config_of(train, backbone), out=tmp_path / "out", clean=tmp_path / "out" / "clean.csv")


def test_a_copy_that_exists_or_has_another_format_is_refused_before_anything_is_read(
    tmp_path: Path, backbone: Path
) -> None:
    train = written(tmp_path / "train.csv", ROWS)
    with pytest.raises(ConfigError, match=r"expected the format of train.csv, a name that ends in \.csv"):
        checked(config_of(train, backbone), clean=tmp_path / "clean.jsonl")
    (tmp_path / "clean.csv.removed.jsonl").write_text("")
    with pytest.raises(ConfigError, match="exists already; name another file for --clean"):
        checked(config_of(train, backbone), clean=tmp_path / "clean.csv")
    assert not (tmp_path / "clean.csv").exists()


@pytest.mark.parametrize("asked", range(1, 7))
def test_asked_to_stop_it_keeps_nothing(asked: int, tmp_path: Path, backbone: Path) -> None:
    train = written(tmp_path / "train.csv", ROWS)
    calls: list[int] = []
    with pytest.raises(Interrupted):
        checked(
            config_of(train, backbone),
            out=tmp_path / "out",
            clean=tmp_path / "clean.csv",
            stop=lambda: bool(calls.append(1)) or len(calls) >= asked,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "train.csv"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,label\n", "expected rows below the header, found none"),
        ("text,label\na,x\nb,x\n", "expected at least two classes in column 'label', found only 'x'"),
        ("text\na\nb\n", "no column 'label'"),
        ("text,label\na,x\nb,\n", "the label in column 'label' is empty"),
        ("tweet,label\na,x\n", "Did you mean `data.text: tweet`?"),
    ],
)
def test_bad_data_is_one_helpful_line(content: str, said: str, tmp_path: Path, backbone: Path) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError) as error:
        checked(config_of(tmp_path / "bad.csv", backbone))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# ---- the command


def test_the_command_shows_every_check_in_a_line(tmp_path: Path, backbone: Path) -> None:
    renamed = [{"tweet": row["text"], "class": row["label"]} for row in ROWS]
    train = written(tmp_path / "train.csv", renamed)
    done = RUN.invoke(app, [
        "check", str(train), "--text", "tweet", "--label", "class", "--set", f"backbone.name={backbone}",
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "!! contradictions: " in done.output
    assert "ok leaks: one part was given" in done.output
    assert "train line 122 (calm): same text as train line 2" in done.output


def test_the_command_takes_a_config_too(tmp_path: Path, backbone: Path) -> None:
    train = written(tmp_path / "train.csv", ROWS)
    config = {"task": "text-classification", "data": {"train": str(train), "text": "text", "label": "label"}}
    (tmp_path / "c.yaml").write_text(json.dumps(config | {"backbone": {"name": str(backbone)}}))
    done = RUN.invoke(app, ["check", str(tmp_path / "c.yaml"), "--json"])
    assert done.exit_code == 0, done.output
    last = json.loads([line for line in done.output.splitlines() if line.startswith("{")][-1])
    assert last["event"] == "checked"
    assert last["items"] == {"train": len(ROWS)}


def test_a_config_that_continues_a_run_is_checked_as_training_reads_it(tmp_path: Path) -> None:
    """Its items may be of one class, and the labels of that run need no example here."""
    raw = client_config(tmp_path, first_run(tmp_path))
    rows = [row for row in toy_rows(40, 5) if row["label"] == "harsh"]
    written(tmp_path / "client1.csv", rows)
    found = checked(parse_config(raw))
    classes = found.checks[0]
    assert (classes["level"], classes["values"]) == ("note", {"counts": {"harsh": 20}})
    alone = dict(raw)
    del alone["start_from"]
    with pytest.raises(DataError, match="expected at least two classes"):
        checked(parse_config(alone | {"backbone": raw["backbone"] | {"name": str(tmp_path / "tiny")}}))
