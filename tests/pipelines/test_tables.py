"""Reading strictly and writing back: every format, every way a file can be broken."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.tables import inert, read_table, table_format, write_table

ROWS = [
    {"text": 'say "hi", please', "label": "01"},
    {"text": "two\nlines, \r\n three\rfour\ttab", "label": " no "},
    {"text": "naïve 日本 😀", "label": "ü"},
]
FORMATS = ["csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz", "parquet"]


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
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
    write_table(out, format, table.columns, (row.values for row in table.rows))
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
    whole = gzip.compress(b"text,label\n" + b"".join(f"text {n},x\n".encode() for n in range(20_000)))
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


# ---- writing


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"o.{format}"
    assert write_table(path, table_format(path), ["text", "label"], iter(ROWS)) == 3
    assert read(path) == ROWS
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == format.endswith(".gz")


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@settings(max_examples=25, deadline=None)
@given(cells=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=4))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, format: str, cells: list[str]) -> None:
    path = tmp_path_factory.mktemp("o") / f"o.{format}"
    expected = [cell if format == "jsonl" else inert(cell) for cell in cells]
    write_table(path, format, ["a", "b"], [{"a": cell, "b": "x"} for cell in cells])
    assert [values["a"] for values in read(path)] == expected


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-"])
@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_formulas_are_inert(tmp_path: Path, cell: str, format: str) -> None:
    path = tmp_path / f"o.{format}"
    write_table(path, format, [cell, "b"], [{cell: cell, "b": "-1.5"}])
    with path.open(newline="") as file:
        records = list(csv.reader(file, delimiter="\t" if format == "tsv" else ","))
    assert records == [["'" + cell, "b"], ["'" + cell, "-1.5"]]


def test_only_jsonl_and_parquet_keep_formulas_and_types(tmp_path: Path) -> None:
    row = {"a": "=1", "b": None, "c": -1.5, "d": {"x": 0.5}, "e": True}
    for format in ("jsonl", "parquet"):
        write_table(tmp_path / f"o.{format}", format, list(row), [row])
        assert read(tmp_path / f"o.{format}") == [row]
    write_table(tmp_path / "o.csv", "csv", list(row), [row])
    assert list(read(tmp_path / "o.csv")[0].values()) == ["'=1", "", "-1.5", '{"x": 0.5}', "True"]


def test_what_json_cannot_hold_is_null(tmp_path: Path) -> None:
    rows = [{"a": float("nan"), "b": 1.0}, {"a": float("-inf"), "b": 2.0}]
    write_table(tmp_path / "o.jsonl", "jsonl", ["a", "b"], rows)
    assert read(tmp_path / "o.jsonl") == [{"a": None, "b": 1.0}, {"a": None, "b": 2.0}]


@pytest.mark.parametrize("values", [[1, "x"], [2**70], [{}]])
def test_what_parquet_cannot_hold_is_said(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"Parquet cannot hold a column.*write \.jsonl"):
        write_table(tmp_path / "o.parquet", "parquet", ["a"], [{"a": value} for value in values])


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_may_lack_a_column_but_not_add_one(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"o.{format}"
    assert write_table(path, format, ["a", "b"], [{"a": "1"}]) == 1
    assert read(path)[0]["b"] in ("", None)
    with pytest.raises(DataError, match="the key 'z' is not in the first row"):
        write_table(path, format, ["a"], [{"a": "1", "z": "2"}])


def test_compressed_output_is_the_same_every_time(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        write_table(tmp_path / "o.csv.gz", "csv", ["text", "label"], ROWS)
        contents.append((tmp_path / "o.csv.gz").read_bytes())
    assert contents[0] == contents[1]
