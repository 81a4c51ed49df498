"""Columns and first rows of a file that is to be labelled."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.refused import UploadRefused
from service.upload_columns import CELL, COLUMNS, SHOWN, columns_of


def stored(folder: Path, content: bytes) -> Path:
    (folder / "3f9a").write_bytes(content)
    return folder / "3f9a"


def test_columns_with_the_one_that_holds_the_text(tmp_path: Path) -> None:
    source = stored(tmp_path, b"id,body text,n\n1,one,\n2,two,5\n")
    found = columns_of(source, "a.csv")
    assert found["columns"] == ["id", "body text", "n"]
    assert found["text"] == "body text"
    assert found["shown"] == ["body text", "id", "n"]
    assert found["rows"] == [["one", "1", ""], ["two", "2", "5"]]
    assert found["sentence"] == "csv with the columns 'id', 'body text', 'n'"


def test_rows_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    source = stored(tmp_path, b'{"a": [1, "x"], "b": null}\nnot json\n{"a": true}\n')
    found = columns_of(source, "a.jsonl")
    assert found["text"] is None
    assert found["rows"] == [['[1, "x"]', ""], ["true", ""]]


def test_what_is_shown_is_bounded(tmp_path: Path) -> None:
    names = ["n" * 300, *(f"c{n}" for n in range(1200)), "text"]
    source = stored(tmp_path, (",".join(names) + "\n" + ",".join(["x" * 10_000] * len(names)) + "\n").encode())
    found = columns_of(source, "a.csv")
    assert (len(found["columns"]), found["columns"][0]) == (COLUMNS, "c0")
    assert [len(value) for value in found["rows"][0]] == [CELL] * SHOWN
    assert len(json.dumps(found)) < 1 << 20  # one line of a child's output


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadRefused, match="the file is empty"):
        columns_of(stored(tmp_path, b""), "a.csv")
