"""Reading strictly: every format, every way a file can be broken."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.tables import (
    Row,
    RowError,
    open_lines,
    read_delimited,
    read_jsonl,
    read_table,
    table_format,
)
from tests.written import write_table

ROWS = [
    {"text": 'say "hi", please', "label": "01"},
    {"text": "two\nlines, \r\n three\rfour\ttab", "label": " no "},
    {"text": "naïve 日本 😀", "label": "ü"},
]
FORMATS = ["csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "parquet"]


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [row.values for row in read_table(path).rows]


def error(path: Path) -> str:
    """The message, without the folder."""
    with pytest.raises(DataError) as caught:
        read(path)
    return str(caught.value).replace(f"{path.parent}/", "")


# ---- what a file is


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.csv", "csv"),
        ("a.b.CSV.GZ", "csv"),
        ("a.tsv.gz", "tsv"),
        ("a.ndjson", "jsonl"),
        ("a.jsonl.gz", "jsonl"),
        ("a.parquet", "parquet"),
    ],
)
def test_the_name_says_the_format(name: str, found: str) -> None:
    assert table_format(Path(name)) == found


@pytest.mark.parametrize("name", ["a.xlsx", "a.json", "a", "a.gz", "a.parquet.gz", "a.csv.zip", ".csv"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    message = error(save(tmp_path, name, "text"))
    assert message.startswith(f"{name}: unknown format ")
    assert "expected .csv, .tsv, .jsonl (each also .gz), .parquet, or a folder saved by datasets" in message


def test_missing_file(tmp_path: Path) -> None:
    assert error(tmp_path / "a.csv") == "a.csv: no such file; paths are relative to the working directory"


# ---- delimited text


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_the_nameless_row_number_of_pandas_is_read_and_written_back(tmp_path: Path, format: str) -> None:
    table = read_table(save(tmp_path, "a.csv", ",text\n0,a\n1,b\n"))
    assert table.columns == ["", "text"]
    out = tmp_path / f"b.{format}"
    write_table(out, table.columns, (row.values for row in table.rows))
    assert read(out) == [{"": "0", "text": "a"}, {"": "1", "text": "b"}]


def test_lines_are_counted_over_blank_lines_and_texts_of_several(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", '\ufefftext , label\r\n"a\nb",x\r\n\r\nc,y\r\n')
    table = read_table(path)
    assert table.columns == ["text", "label"]
    assert [(row.line, row.values) for row in table.rows] == [
        (2, {"text": "a\nb", "label": "x"}),
        (5, {"text": "c", "label": "y"}),
    ]


def test_cells_stay_as_written(tmp_path: Path) -> None:
    path = save(tmp_path, "a.tsv", "text\tlabel\n a,b \t01\nNA\tno\n\t1e3\n")
    assert [list(values.values()) for values in read(path)] == [[" a,b ", "01"], ["NA", "no"], ["", "1e3"]]


def test_a_long_article_is_one_cell(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert read(save(tmp_path, "a.csv", f"text,label\n{text},x\n"))[0]["text"] == text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: the file is empty; expected a first line with column names"),
        ("a.csv.gz", "", "a.csv.gz: the file is empty; expected a first line with column names"),
        ("a.csv", "\ntext,label\n", "a.csv, line 1: the first line is blank; expected column names there"),
        ("a.csv", "text,,x\n", "a.csv, line 1: column 2 has no name; give every column one"),
        ("a.csv", ",text,\n", "a.csv, line 1: column 3 has no name; give every column one"),
        ("a.csv", "x,y,x\n", "a.csv, line 1: the column name 'x' stands twice; rename one of them"),
        (
            "a.csv",
            "text,label\na,b\nc,d,e\n",
            "a.csv, line 3: expected 2 fields as in the header, found 3; put quotes around text that holds the "
            "separator",
        ),
        (
            "a.tsv",
            'text\tlabel\n"a\nb"\n',
            "a.tsv, line 2: expected 2 fields as in the header, found 1; put quotes around text that holds the "
            "separator",
        ),
        (
            "a.csv",
            'text,label\na,b\n"he said "no" twice",c\n',
            "a.csv, line 3: not a valid record: ',' expected after '\"'; quotes inside a quoted text must be doubled",
        ),
        (
            "a.csv",
            'text,label\na,b\n"open,c\nd,e\n',
            "a.csv, line 3: not a valid record: a quote is opened and never closed; close it, or double it if it "
            "belongs to the text",
        ),
        (
            "a.csv",
            "text,label\ra,b\r",
            "a.csv, line 1: not a valid record: a carriage return outside quotes; put quotes around the text, or end "
            "lines with a line feed",
        ),
        (
            "a.csv",
            "text,label\na,é\nab".encode() + b"\xe9,c\n",
            "a.csv, line 3, column 3: expected UTF-8 text, found the byte 0xe9; save the file as UTF-8",
        ),
        (
            "a.csv",
            "é".encode() + b"\xff",
            "a.csv, line 1, column 2: expected UTF-8 text, found the byte 0xff; save the file as UTF-8",
        ),
        (
            "a.csv",
            "text,label\n".encode("utf-16"),
            "a.csv, line 1, column 1: expected UTF-8, found UTF-16; save the file as UTF-8",
        ),
        (
            "a.tsv",
            "text\tlabel\na\0\tb\n",
            "a.tsv, line 2, column 2: expected text, found a null byte; is this a binary file?",
        ),
    ],
)
def test_broken_delimited_text(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    assert error(save(tmp_path, name, content)) == message


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\n" + b"".join(f"text {n},x\n".encode() for n in range(20_000)), mtime=0)
    path = tmp_path / "a.csv.gz"
    for damaged in (whole[: len(whole) // 2], whole[:-8] + b"\0" * 8):
        path.write_bytes(damaged)
        message = error(path)
        assert message.startswith("a.csv.gz, line ")
        assert 1 < int(message.split("line ")[1].split(":")[0]) <= 20_002
        assert "the gzip data is damaged or cut off" in message
        assert message.endswith("copy the file again")
    path.write_text("text,label\n")
    assert error(path).startswith("a.csv.gz, line 1: the gzip data is damaged or cut off (Not a gzipped file")


# ---- JSONL


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'a': 1}", ", column 2: not valid JSON: Expecting property name enclosed in double quotes"),
        ('{"text": "a"', ", column 13: not valid JSON: Expecting ',' delimiter; expected one object per line"),
        ('{"text": 1, "b": 2, "text": 3}', ": the key 'text' stands twice in one object"),
        ('{"text": NaN}', ": NaN is not JSON; use null or a number"),
        ('{"text": -Infinity}', ": -Infinity is not JSON; use null or a number"),
        ('{"text": %s}' % ("[" * 100_000), ": the JSON is nested too deeply; expected one flat object per line"),
        ('{"text": %s}' % ("1" * 5000), ": a number is too long; put it in quotes"),
        ('{"text": "\\uD83D"}', ": \\ud800 to \\udfff must come in pairs; found one alone"),
        ('["a", "b"]', ", column 1: expected a JSON object, found list"),
    ],
)
def test_broken_json(tmp_path: Path, line: str, message: str) -> None:
    path = save(tmp_path, "a.jsonl", '{"text": "fine"}\n\n' + line + "\n")
    assert error(path).startswith(f"a.jsonl, line 3{message}")


def test_json_keeps_types_and_escapes(tmp_path: Path) -> None:
    path = save(tmp_path, "a.jsonl", '{"text": "\\ud83d\\ude00 \\\\ud800", "n": 1, "b": false, "z": null}\n')
    assert read(path) == [{"text": "😀 \\ud800", "n": 1, "b": False, "z": None}]
    assert read_table(path).columns == ["text", "n", "b", "z"]


def test_empty_jsonl(tmp_path: Path) -> None:
    expected = "a.jsonl: the file is empty; expected one JSON object per line"
    assert error(save(tmp_path, "a.jsonl", "\n \n")) == expected


# ---- binary formats


@pytest.mark.parametrize("keep", [0, 3, -1])
def test_broken_parquet(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a"] * 100}), path)
    path.write_bytes(path.read_bytes()[:keep])
    assert error(path).startswith("a.parquet: not a readable Parquet file: ")


def test_parquet_damaged_inside(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(3000)]}), path, row_group_size=2048)
    raw = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    raw[start : start + 64] = b"\xff" * 64
    path.write_bytes(raw)
    assert error(path).startswith("a.parquet, row 2049: damaged Parquet data: ")
    assert error(path).endswith("; copy or write the file again")


@pytest.fixture
def labelled() -> datasets.Dataset:
    labels = datasets.ClassLabel(names=["01", "no"])
    features = datasets.Features({"text": datasets.Value("string"), "label": labels})
    return datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)


def test_a_saved_folder_gives_the_words_of_its_class_labels(tmp_path: Path, labelled: datasets.Dataset) -> None:
    labelled.save_to_disk(str(tmp_path / "d"))
    table = read_table(tmp_path / "d")
    assert (table.columns, table.unit) == (["text", "label"], "row")
    assert [(row.line, row.values["label"]) for row in table.rows] == [(1, "no"), (2, "01"), (3, None)]


def test_folders_that_are_no_table(tmp_path: Path, labelled: datasets.Dataset) -> None:
    datasets.DatasetDict(train=labelled, test=labelled).save_to_disk(str(tmp_path / "d"))
    assert error(tmp_path / "d") == "d: holds several parts; name one of them: d/train, d/test"
    assert len(read(tmp_path / "d" / "train")) == 3
    (tmp_path / "e").mkdir()
    assert error(tmp_path / "e").startswith("e: not a folder saved by datasets (")


# ---- reading on behind what cannot be read


def test_the_readers_yield_broken_records_between_the_rows(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", 'text,label\na,b\nc\n"d\ne"f,g\nh,i\n')
    columns, records = read_delimited(open_lines(path), ",")
    assert columns == ["text", "label"]
    found = list(records)
    assert [type(record) for record in found] == [Row, RowError, RowError, Row]
    assert [record.line for record in found] == [2, 3, 4, 6]
    assert str(found[2]).startswith(f"{path}, line 5: not a valid record: ")  # where reading failed
    rows = read_table(path).rows
    assert next(rows).values == {"text": "a", "label": "b"}
    with pytest.raises(RowError) as caught:
        next(rows)
    assert str(caught.value) == str(found[1])


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_limit_of_bytes_is_for_a_line_with_its_end(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, name, '{"a": 1}\n{"a": 12}\n' + " " * 200_000 + '\n{"a": 2}')
    found = list(read_jsonl(open_lines(path, max_bytes=9)))
    assert [(record.line, isinstance(record, Row)) for record in found] == [
        (1, True),
        (2, False),
        (3, False),
        (4, True),
    ]
    assert len(list(read_jsonl(open_lines(path)))) == 3


def test_a_field_that_is_never_closed_is_not_read_for_ever(tmp_path: Path) -> None:
    before = csv.field_size_limit(100)
    try:
        message = error(save(tmp_path, "a.csv", 'text,label\n"open,x\n' + "more,x\n" * 99))
    finally:
        csv.field_size_limit(before)
    assert before == 16 * 2**20
    assert message.startswith(
        "a.csv, line 16: not a valid record: a field of more than 16,777,216 characters; close its"
    )


def test_a_table_that_nobody_reads_closes_its_file(tmp_path: Path) -> None:
    lines = open_lines(save(tmp_path, "a.csv", "text,label\na,b\n"))
    file = lines._file
    _, records = read_delimited(lines, ",")
    assert not file.closed
    del lines, records
    assert file.closed
