"""Any upload as columns and rows: what its bytes and its name say, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from service import upload_rows
from service.refused import UploadRefused
from service.upload_rows import open_upload
from tests.written import write_table

ROWS = [{"text": 'say "hi",\tnow\nü', "label": "a"}, {"text": "more", "label": "b"}]
JSONL = b'{"text": "x", "label": "a"}\n'


def stored(folder: Path, content: bytes) -> Path:
    """As the service stores it: under a name that says nothing."""
    path = folder / "3f9a"
    path.write_bytes(content)
    return path


def read(source: Path, filename: str) -> tuple[str, list[str], list[dict[str, Any]]]:
    with open_upload(source, filename) as upload:
        return upload.format, upload.columns, [row.values for row in upload.rows()]


def refused(source: Path, filename: str = "a.jsonl") -> UploadRefused:
    with pytest.raises(UploadRefused) as caught:
        read(source, filename)
    assert str(source) not in caught.value.message
    return caught.value


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "jsonl.gz", "csv.gz", "tsv.gz", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_every_format_with_a_name_and_without(tmp_path: Path, suffix: str, named: bool) -> None:
    written = write_table(tmp_path / f"a.{suffix}", ["text", "label"], ROWS)
    source = stored(tmp_path, written.read_bytes())
    found = read(source, f"C:\\data\\my.{suffix}" if named else "upload")
    assert found == (suffix.removesuffix(".gz"), ["text", "label"], ROWS)


@pytest.mark.parametrize("filename", ["a.json", "a.ndjson", "a.JSONL", "a.jsonl.gz", "a.txt", "", "/x/a.b/upload"])
def test_a_name_is_a_hint(tmp_path: Path, filename: str) -> None:
    """Packed or not is seen in the bytes."""
    for content in (JSONL, b"\xef\xbb\xbf" + JSONL, b"\n \n" + JSONL, gzip.compress(JSONL, mtime=0)):
        assert read(stored(tmp_path, content), filename) == ("jsonl", ["text", "label"], [{"text": "x", "label": "a"}])


@pytest.mark.parametrize(
    ("content", "filename", "message"),
    [
        (b"", "a.csv", "a.csv: the file is empty; expected one example per line"),
        (gzip.compress(b"", mtime=0), "a.csv.gz", "a.csv.gz: the file is empty; expected one example per line"),
        (
            b"PK\x03\x04rest",
            "a.xlsx",
            "a.xlsx: expected .jsonl, .csv, .tsv (each also .gz) or .parquet, found a zip archive or spreadsheet; "
            "save the table as CSV",
        ),
        (
            JSONL,
            "a.parquet",
            "a.parquet: expected a Parquet file, as its name says, found other data; copy or write it again",
        ),
        (
            b'[{"text": "x"}]',
            "a.json",
            "a.json: expected one JSON object per line, found a JSON array; write its elements as lines",
        ),
        (
            b"words only\n",
            "notes",
            "notes: its format is not clear; name it .jsonl, .csv, .tsv (each also .gz) or .parquet",
        ),
        (
            "ü".encode("utf-16"),
            "/x/a.csv",
            "a.csv, line 1, column 1: expected UTF-8, found UTF-16; save the file as UTF-8",
        ),
        (
            gzip.compress(JSONL * 5, mtime=0)[:-9],
            "a.jsonl",
            "a.jsonl, line 1: the gzip data is damaged or cut off (Compressed file ended before the end-of-stream "
            "marker was reached); copy the file again",
        ),
        (
            b"a,a\n1,2\n",
            "a\x1b[31m.csv",
            "a[31m.csv, line 1: the column name 'a' stands twice; rename one of them",
        ),
    ],
)
def test_what_is_no_table(tmp_path: Path, content: bytes, filename: str, message: str) -> None:
    error = refused(stored(tmp_path, content), filename)
    assert (error.message, error.code) == (message, "invalid_training_file")


@pytest.mark.parametrize("rows", [0, 3])
def test_a_bad_row_has_its_line(tmp_path: Path, rows: int) -> None:
    error = refused(stored(tmp_path, JSONL * rows + b'{"text": NaN}\n'))
    assert error.line == rows + 1
    assert error.message == f"a.jsonl, line {rows + 1}: NaN is not JSON; use null or a number"


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    error = refused(stored(tmp_path, b"PAR1 and no more"), "a.parquet")
    assert error.message.startswith("a.parquet: not a readable Parquet file: ")


@pytest.mark.parametrize("blank", [b"\n", b"   "])
def test_what_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: bytes) -> None:
    monkeypatch.setattr(upload_rows, "MOST_BYTES", 1 << 20)
    source = stored(tmp_path, gzip.compress(JSONL + blank * (8 << 20), mtime=0))
    error = refused(source)
    assert (error.code, error.message) == (
        "file_too_large",
        "a.jsonl: more than 0.000976562 GiB when decompressed; upload less",
    )
