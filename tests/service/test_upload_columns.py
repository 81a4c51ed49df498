"""Columns and first rows of a file that is to be labelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.refused import UploadRefused
from service.upload_columns import CELL, COLUMNS, columns_of


def stored(folder: Path, content: bytes) -> Path:
    (folder / "3f9a").write_bytes(content)
    return folder / "3f9a"


def test_columns_with_the_one_that_holds_the_text(tmp_path: Path) -> None:
    source = stored(tmp_path, b"id,body text,n\n1,one,\n2,two,5\n")
    found = columns_of(source, "a.csv")
    assert found["columns"] == ["id", "body text", "n"]
    assert found["text"] == "body text"
    assert found["rows"] == [{"id": "1", "body text": "one", "n": ""}, {"id": "2", "body text": "two", "n": "5"}]
    assert found["sentence"] == "csv with the columns 'id', 'body text', 'n'"


def test_rows_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    source = stored(tmp_path, b'{"a": [1, "x"], "b": null}\nnot json\n{"a": true}\n')
    found = columns_of(source, "a.jsonl")
    assert found["text"] is None
    assert found["rows"] == [{"a": '[1, "x"]', "b": ""}, {"a": "true", "b": ""}]


def test_what_is_shown_is_bounded(tmp_path: Path) -> None:
    names = ",".join(f"c{n}" for n in range(300))
    source = stored(tmp_path, (names + "\n" + "x" * 10_000 + "," * 299 + "\n").encode())
    found = columns_of(source, "a.csv")
    assert len(found["columns"]) == COLUMNS
    assert len(found["rows"][0]["c0"]) == CELL


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UploadRefused, match="the file is empty"):
        columns_of(stored(tmp_path, b""), "a.csv")
