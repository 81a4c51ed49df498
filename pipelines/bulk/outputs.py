"""Output in chunks: each is written alone, and all of them together make the file.

Text formats are concatenated (gzip allows that too); Parquet chunks become row groups under one schema.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.tables import table_format

Values = dict[str, Any]
UNSEEN = " \xa0\u3000\u200b\u200c\u200d\u2060\ufeff"  # a spreadsheet may look past them at a cell's start


class Output:
    """One file to be made.

    Args:
        path: its name says the format.
        columns: in order; ignored by JSONL, whose rows name their own.
        schema: types of some columns, as in an input that is Parquet; the others follow from their values.

    Raises:
        DataError: a format that cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], schema: pa.Schema | None = None) -> None:
        self.path = path
        self.format = output_format(path)
        self.columns = list(columns)
        self.schema = schema

    def write_chunk(self, part: Path, rows: Iterable[Values], first: bool) -> None:
        """Write some rows. CSV cells that a spreadsheet would run as a formula get a leading apostrophe (`inert`).

        Args:
            part: a new file.
            rows: mappings; nested values are JSON text in CSV and TSV.
            first: of the chunks, which has the column names.
        """
        if self.format == "parquet":
            self._write_parquet(part, list(rows))
            return
        with text_file(part, self.path.suffix.lower() == ".gz") as file:
            if self.format == "jsonl":
                file.writelines(json_line(row) for row in rows)
                return
            # Line ends as in RFC 4180; with "\n" alone, Python before 3.13 leaves "\r" in a text unquoted.
            writer = csv.writer(file, delimiter="\t" if self.format == "tsv" else ",", lineterminator="\r\n")
            if first:
                writer.writerow([inert(column) for column in self.columns])
            writer.writerows([cell(value) for value in self._record(row)] for row in rows)

    def assemble(self, parts: Sequence[Path], target: Path) -> None:
        """All chunks, in order, as one file. Raises DataError where Parquet cannot hold them under one schema."""
        if self.format == "parquet":
            self._assemble_parquet(parts, target)
            return
        concatenate(parts, target)

    def _record(self, row: Values) -> list[Any]:
        """The values of a row in column order. JSONL rows may lack a key; one that is no column would be lost."""
        if reason := without_column(row, self.columns):
            raise DataError(self.path, reason)
        return [row.get(column) for column in self.columns]

    def _write_parquet(self, part: Path, rows: list[Values]) -> None:
        records = [self._record(row) for row in rows]
        arrays = {}
        try:
            for place, column in enumerate(self.columns):
                known = None if self.schema is None or column not in self.schema.names else self.schema.field(column)
                values = [record[place] for record in records]
                arrays[column] = pa.array(values, type=known.type if known is not None else None)
            pq.write_table(pa.table(arrays), part)
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(self.path, _no_parquet(error)) from None

    def _assemble_parquet(self, parts: Sequence[Path], target: Path) -> None:
        try:
            schema = pa.unify_schemas([pq.read_schema(part) for part in parts], promote_options="permissive")
            schema = pa.schema([_stored(schema.field(column)) for column in self.columns])
            with pq.ParquetWriter(target, schema) as writer:
                for part in parts:
                    writer.write_table(pq.read_table(part).select(self.columns).cast(schema))
        except pa.ArrowException as error:
            raise DataError(self.path, _no_parquet(error)) from None


def output_format(path: Path) -> str:
    """csv, tsv, jsonl or parquet. Raises DataError for a name that says none of them."""
    format = table_format(path)
    if format == "dataset":
        raise DataError(path, "is a folder; name a file")
    return format


def without_column(row: Values, columns: Sequence[str]) -> str | None:
    """What to say of a row with a key that is no column, and would be lost; None if there is none."""
    extra = sorted(row.keys() - set(columns))
    return f"the key {extra[0]!r} is not in the first row, so there is no column; write .jsonl" if extra else None


def concatenate(parts: Sequence[Path], target: Path) -> None:
    """The bytes of all files, in order, as one."""
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)


def json_line(row: Values) -> str:
    """A row as one line of JSON; what JSON lacks, such as dates, becomes text, NaN becomes null."""
    return json.dumps(json_value(row), ensure_ascii=False, default=str) + "\n"


def json_value(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, become null at any depth."""
    if isinstance(value, dict):
        return {name: json_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inert(text: str) -> str:
    """A cell that a spreadsheet shows instead of running (CWE-1236): numbers stay, formula starts are quoted."""
    start = text.lstrip(UNSEEN)[:1]
    if start not in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"):
        return text
    try:
        float(text)
    except ValueError:
        return "'" + text
    return text


def cell(value: Any) -> str:
    """A value as a cell of CSV or TSV."""
    if value is None:
        return ""
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, dict | list):
        return json.dumps(json_value(value), ensure_ascii=False, default=str)
    return str(value)


def _no_parquet(error: Exception) -> str:
    return f"Parquet cannot hold a column, as when it mixes types ({str(error).splitlines()[0]}); write .jsonl"


def _stored(field: pa.Field) -> pa.Field:
    """A column that is null everywhere has no type; text serves."""
    return pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field


@contextmanager
def text_file(path: Path, compressed: bool) -> Iterator[IO[str]]:
    """A new text file. A compressed one names neither itself nor a time, so that equal rows give equal bytes."""
    with path.open("wb") as raw:
        binary: Any = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if compressed else raw
        text = io.TextIOWrapper(binary, encoding="utf-8", newline="")
        try:
            yield text
        finally:
            text.close()
