"""Output in chunks: what is written can be read, formulas are inert, and chunks together are one file."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.bulk.outputs import Output, inert
from pipelines.errors import DataError
from tests.pipelines.test_tables import FORMATS, ROWS, read
from tests.written import write_table


@pytest.mark.parametrize("format", FORMATS)
def test_chunks_together_are_one_file(tmp_path: Path, format: str) -> None:
    output = Output(tmp_path / f"o.{format}", ["text", "label"])
    parts = [tmp_path / f"{n}.part" for n in range(4)]
    for n, (part, rows) in enumerate(zip(parts, (ROWS[:2], [], ROWS[2:], ROWS[:1]), strict=True)):
        output.write_chunk(part, rows, first=n == 0)
    output.assemble(parts, output.path)
    assert read(output.path) == [*ROWS, ROWS[0]]


def test_parquet_keeps_the_types_of_its_input(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int8()), ("day", pa.date32()), ("gone", pa.float32())])
    output = Output(tmp_path / "o.parquet", ["n", "day", "gone", "new"], schema)
    row = {"n": 7, "day": datetime.date(2026, 1, 2), "gone": None}
    parts = [tmp_path / "0.part", tmp_path / "1.part"]
    output.write_chunk(parts[0], [row | {"new": None}], first=True)
    output.write_chunk(parts[1], [row | {"new": 0.5}], first=False)
    output.assemble(parts, output.path)
    found = pq.read_schema(output.path)
    assert [found.field(name).type for name in found.names] == [pa.int8(), pa.date32(), pa.float32(), pa.float64()]
    assert pq.read_table(output.path).to_pylist() == [row | {"new": None}, row | {"new": 0.5}]


def test_chunks_that_no_schema_holds_are_said(tmp_path: Path) -> None:
    output = Output(tmp_path / "o.parquet", ["a"])
    parts = [tmp_path / "0.part", tmp_path / "1.part"]
    output.write_chunk(parts[0], [{"a": "text"}], first=True)
    output.write_chunk(parts[1], [{"a": {"x": 1}}], first=False)
    with pytest.raises(DataError, match=r"Parquet cannot hold a column.*write \.jsonl"):
        output.assemble(parts, output.path)


@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"o.{format}"
    write_table(path, ["text", "label"], iter(ROWS))
    assert read(path) == ROWS
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == format.endswith(".gz")


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl"])
@settings(max_examples=25, deadline=None)
@given(cells=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1, max_size=4))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, format: str, cells: list[str]) -> None:
    path = tmp_path_factory.mktemp("o") / f"o.{format}"
    expected = [cell if format == "jsonl" else inert(cell) for cell in cells]
    write_table(path, ["a", "b"], [{"a": cell, "b": "x"} for cell in cells])
    assert [values["a"] for values in read(path)] == expected


@pytest.mark.parametrize(
    "cell",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-", "\xa0=1", "\ufeff\u200b@A1"],
)
@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_formulas_are_inert(tmp_path: Path, cell: str, format: str) -> None:
    path = tmp_path / f"o.{format}"
    write_table(path, [cell, "b"], [{cell: cell, "b": "-1.5"}])
    with path.open(newline="") as file:
        records = list(csv.reader(file, delimiter="\t" if format == "tsv" else ","))
    assert records == [["'" + cell, "b"], ["'" + cell, "-1.5"]]


def test_only_jsonl_and_parquet_keep_formulas_and_types(tmp_path: Path) -> None:
    row = {"a": "=1", "b": None, "c": -1.5, "d": {"x": 0.5}, "e": True}
    for format in ("jsonl", "parquet"):
        write_table(tmp_path / f"o.{format}", list(row), [row])
        assert read(tmp_path / f"o.{format}") == [row]
    write_table(tmp_path / "o.csv", list(row), [row])
    assert list(read(tmp_path / "o.csv")[0].values()) == ["'=1", "", "-1.5", '{"x": 0.5}', "True"]


def test_what_json_cannot_hold_is_null(tmp_path: Path) -> None:
    rows = [{"a": float("nan"), "b": 1.0}, {"a": float("-inf"), "b": 2.0}]
    write_table(tmp_path / "o.jsonl", ["a", "b"], rows)
    assert read(tmp_path / "o.jsonl") == [{"a": None, "b": 1.0}, {"a": None, "b": 2.0}]


@pytest.mark.parametrize("values", [[1, "x"], [2**70], [{}]])
def test_what_parquet_cannot_hold_is_said(tmp_path: Path, values: list[Any]) -> None:
    with pytest.raises(DataError, match=r"Parquet cannot hold a column.*write \.jsonl"):
        write_table(tmp_path / "o.parquet", ["a"], [{"a": value} for value in values])


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_rows_may_lack_a_column_but_not_add_one(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"o.{format}"
    write_table(path, ["a", "b"], [{"a": "1"}])
    assert read(path)[0]["b"] in ("", None)
    with pytest.raises(DataError, match="the key 'z' is not in the first row"):
        write_table(path, ["a"], [{"a": "1", "z": "2"}])


def test_compressed_output_is_the_same_every_time(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        write_table(tmp_path / "o.csv.gz", ["text", "label"], ROWS)
        contents.append((tmp_path / "o.csv.gz").read_bytes())
    assert contents[0] == contents[1]
