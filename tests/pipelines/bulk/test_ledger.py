"""What is committed counts, what is not does not, and nothing is visible before its time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.bulk.ledger import Ledger
from pipelines.errors import DataError, RunDirectoryError


def chunk(ledger: Ledger, number: int, rows: str = "row\n") -> None:
    ledger.path(number, "rows").write_text(rows)
    ledger.path(number, "safetensors").write_bytes(b"x")
    ledger.commit(number, {"rows": rows.count("\n")})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "out.csv"


def unfinished(out: Path, chunks: int = 2) -> None:
    ledger = Ledger(out, resume=False)
    ledger.begin({"model": "m"})
    for number in range(chunks):
        chunk(ledger, number)
    ledger.abandon()
    ledger.close()


def test_only_committed_chunks_are_gone_on_with(out: Path) -> None:
    unfinished(out)
    partial = out.with_name("out.csv.partial")
    (partial / "000002.rows").write_text("half")
    (partial / ".000002.json-77").write_text("{")
    ledger = Ledger(out, resume=True)
    assert ledger.plan == {"model": "m"}
    assert [record["rows"] for record in ledger.committed] == [1, 1]
    names = {path.name for path in partial.iterdir()}
    kept = {f"00000{n}.{kind}" for n in (0, 1) for kind in ("rows", "safetensors", "json")}
    assert names == {"plan.json"} | kept
    ledger.close()


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_chunk_ends_what_is_committed(out: Path, damage: str) -> None:
    unfinished(out, 3)
    part = out.with_name("out.csv.partial") / "000001.rows"
    part.unlink() if damage == "missing" else part.write_text("other\n")
    ledger = Ledger(out, resume=True)
    assert len(ledger.committed) == 1
    assert not ledger.path(2, "json").exists()
    ledger.close()


def test_unfinished_work_is_not_thrown_away_unasked(out: Path) -> None:
    unfinished(out)
    with pytest.raises(
        RunDirectoryError, match=r"unfinished work is here \(2 chunks\); go on with --resume, or delete"
    ):
        Ledger(out, resume=False)
    unfinished_empty = out.with_name("other.csv")
    Ledger(unfinished_empty, resume=False).close()
    ledger = Ledger(unfinished_empty, resume=True)  # nothing was committed: afresh
    assert ledger.plan is None
    ledger.abandon()
    ledger.close()
    assert not list(out.parent.glob("*other*"))


def test_one_process_at_a_time(out: Path) -> None:
    ledger = Ledger(out, resume=False)
    with pytest.raises(RunDirectoryError, match="another process is classifying into it"):
        Ledger(out, resume=True)
    ledger.close()


@pytest.mark.parametrize("name", ["out.csv", "out.csv.errors.jsonl", "out.csv.manifest.json"])
def test_nothing_is_overwritten(out: Path, name: str) -> None:
    out.parent.mkdir()
    out.with_name(name).write_text("precious")
    with pytest.raises(DataError, match="exists already; choose another --out or delete it"):
        Ledger(out, resume=True)
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_publishing_shows_everything_and_leaves_nothing(out: Path) -> None:
    ledger = Ledger(out, resume=False)
    ledger.begin({})
    chunk(ledger, 0, "a\nb\n")
    (ledger.partial / "out.csv").write_text("a\nb\n")
    assert not out.exists()
    assert ledger.ready is None
    ledger.publish({"rows": 2})
    ledger.close()
    assert {path.name for path in out.parent.iterdir()} == {"out.csv", "out.csv.manifest.json"}
    assert json.loads(out.with_name("out.csv.manifest.json").read_text()) == {"rows": 2}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"out\.csv: cannot be written: (Not a directory|File exists)"):
        Ledger(tmp_path / "file" / "out.csv", resume=False)
