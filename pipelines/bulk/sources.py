"""Batch input: a file, several, a folder or standard input, as one stream of items in constant memory.

A row that cannot be read is an item that says why, and reading goes on with the next line; what concerns a whole file
is a DataError. An unclosed quote of a CSV file swallows the lines up to the next quote, or to MAX_LINE_BYTES.
"""

from __future__ import annotations

import glob
import gzip
import itertools
import os
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from pipelines.bulk.parquet_rows import read_batches, read_schemas
from pipelines.errors import ConfigError, DataError
from pipelines.tables import (
    EMPTY_JSONL,
    FORMATS,
    Lines,
    Records,
    Row,
    RowError,
    open_lines,
    read_batch,
    read_delimited,
    read_jsonl,
    read_table,
    table_format,
)

STANDARD_INPUT = "-"
MAX_LINE_BYTES = 16 * 2**20  # of one record: what a row costs in memory is a small multiple of it
LOOK_AHEAD = 1000  # rows of JSONL among which the first readable one names the columns
_BLOCK = 2**20  # bytes read at once for a digest
_BINARY_SHARE = 0.1  # of a head with null bytes, what is no text; a stray null byte in a text is a broken row

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_MAGIC = (b"PAR1", b"PK\x03\x04", b"\x1f\x8b")  # Parquet, zip (so .xlsx), gzip

_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Item:
    """One input row. `values` is None where the row could not be read, and `problem` then says why.

    Attributes:
        number: 0-based over the whole input.
        path: the file that it stands in, "-" for standard input.
        line: 1-based line of a text file where the row begins, or row of Parquet.
    """

    number: int
    path: str
    line: int
    values: dict[str, Any] | None
    problem: str | None


@dataclass(frozen=True)
class _Part:
    """One file: its columns, and its records when they are asked for."""

    path: str
    columns: list[str]
    records: Callable[[], Generator[Row | RowError, None, None]]


class Source:
    """The whole input.

    Attributes:
        argument: as the user gave it.
        files: in name order; empty for standard input.
        columns: of the first file; of JSONL the keys of its first readable row (none in LOOK_AHEAD rows: no columns).
        unit: what Item.line counts, "line" or "row".
        schema: what all files have in common where all are Parquet, in the first one's order; otherwise None.
    """

    def __init__(self, argument: str, files: list[Path], parts: list[_Part], unit: str, schema: pa.Schema | None):
        self.argument = argument
        self.files = files
        self.columns = parts[0].columns
        self.unit = unit
        self.schema = schema
        self._parts = parts
        self._lines: dict[str, int] = {}  # of every file whose lines were counted

    def share(self, item: Item) -> float | None:
        """How much of the input ends with this row, 0 to 1; None where its size is not known, as of standard input."""
        total = sum(self._lines.values())
        if not total:
            return None
        before = itertools.takewhile(lambda part: part.path != item.path, self._parts)
        return min(1.0, (sum(self._lines[part.path] for part in before) + item.line) / total)

    def name(self, item: Item) -> str:
        """Of a row's file, however the input was spelled: relative to what all files have in common."""
        return os.path.relpath(item.path, self._base) if self.files else item.path

    @property
    def _base(self) -> str:
        return os.path.commonpath([file.parent.absolute() for file in self.files]) if self.files else ""

    def items(self) -> Iterator[Item]:
        """Every row of every file. Can be iterated once. Raises DataError where a file cannot be read further."""
        number = 0
        for part in self._parts:
            with closing(part.records()) as records:
                for record in records:
                    yield _item(number, part.path, record)
                    number += 1

    def digests(self) -> dict[str, str]:
        """File name -> xxh3_128 of its bytes. Where files of several folders go together, their folders are named."""
        found = {}
        for file in (file for path in self.files for file in _files_of(path)):
            found[os.path.relpath(file, self._base)], lines = _digest(file)
            if self.unit == "line":
                self._lines[str(file)] = _unpacked_lines(file) if file.suffix.lower() == ".gz" else lines
        return found


def _item(number: int, path: str, record: Row | RowError) -> Item:
    if isinstance(record, RowError):
        return Item(number, path, record.line, None, record.problem)
    return Item(number, path, record.line, record.values, None)


def _files_of(path: Path) -> list[Path]:
    """A file, or the files of a folder saved by datasets."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _digest(path: Path) -> tuple[str, int]:
    """Digest of a file's bytes, and how many line ends are among them."""
    digest, lines = xxhash.xxh3_128(), 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                lines += block.count(b"\n")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    return digest.hexdigest(), lines


def _unpacked_lines(path: Path) -> int:
    """Line ends of a gzip file's text; of a damaged one those that can be read."""
    lines = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                lines += block.count(b"\n")
    except (OSError, EOFError, zlib.error):
        return lines
    return lines


def open_source(argument: str, format: str | None = None) -> Source:
    """Find the files of an input and check what can be checked before the first row.

    Args:
        argument: a file (.csv, .tsv, .jsonl, .ndjson, each also .gz; .parquet), a folder of them or one saved by
            `datasets`, a pattern with * ? [ ], or "-" for standard input. Names that begin with . or _ are no input
            in a folder or a pattern, and folders in it are not entered.
        format: csv, tsv, jsonl or parquet, whatever the names say; for standard input csv, tsv or jsonl (default).

    Raises:
        DataError: nothing there, an unknown or wrong format, an unusable header, or files that do not fit together.
        ConfigError: an unknown `format`.
    """
    known = ("csv", "tsv", "jsonl") if argument == STANDARD_INPUT else ("csv", "tsv", "jsonl", "parquet")
    if format not in (None, *known):
        raise ConfigError(f"unknown input format {format!r}; expected one of {', '.join(known)}")
    if argument == STANDARD_INPUT:
        return Source(argument, [], [_standard_input(format or "jsonl")], "line", None)
    files = _find(argument)
    formats = [format or table_format(file) for file in files]
    if formats == ["dataset"]:
        table = read_table(files[0])
        return Source(
            argument, files, [_Part(argument, table.columns, lambda: (row for row in table.rows))], "row", None
        )
    binary = [file for file, kind in zip(files, formats, strict=True) if kind == "parquet"]
    if len(binary) == len(files):
        return _parquet_source(argument, files)
    if binary:
        raise DataError(binary[0], "Parquet and text files cannot be one input; classify them one after the other")
    parts = [_text_part(file, kind) for file, kind in zip(files, formats, strict=True)]
    _check_same_columns([part for part, kind in zip(parts, formats, strict=True) if kind in _DELIMITERS])
    return Source(argument, files, parts, "line", None)


# ---- which files


def _find(argument: str) -> list[Path]:
    path = Path(argument)
    if os.path.isdir(argument) and not _saved_by_datasets(path):
        found = _input_files(_listing(path))
        if not found:
            raise DataError(path, f"the folder holds no input file (its folders are not entered); expected {FORMATS}")
        return found
    if os.path.exists(argument) and not (os.path.isfile(argument) or os.path.isdir(argument)):
        raise DataError(path, "is neither a file nor a folder; give a pipe on standard input, as -")
    if os.path.exists(argument):  # unlike Path's, false for a name that no file can have
        return [path]
    if not glob.has_magic(argument):
        raise DataError(path, "no such file; paths are relative to the working directory")
    found = _input_files([Path(name) for name in glob.glob(argument)])
    if not found:
        raise DataError(path, "no file has such a name; paths are relative to the working directory")
    return found


def _listing(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(folder, f"cannot be read: {error.strerror or error}") from None


def _saved_by_datasets(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("state.json", "dataset_info.json", "dataset_dict.json"))


def _input_files(paths: list[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file() and not path.name.startswith((".", "_")))


# ---- text


def _text_part(path: Path, format: str) -> _Part:
    with closing(open_lines(path, MAX_LINE_BYTES)) as lines:
        columns, _ = _open(lines, format)
    return _Part(str(path), columns, lambda: _open(open_lines(path, MAX_LINE_BYTES), format)[1])


def _standard_input(format: str) -> _Part:
    columns, records = _open(Lines(STANDARD_INPUT, sys.stdin.buffer, MAX_LINE_BYTES), format)
    return _Part(STANDARD_INPUT, columns, lambda: records)


def _open(lines: Lines, format: str) -> tuple[list[str], Records]:
    """Column names and records."""
    _check_is_text(lines)
    if format in _DELIMITERS:
        return read_delimited(lines, _DELIMITERS[format])
    records, head = read_jsonl(lines), list[Row | RowError]()
    while len(head) < LOOK_AHEAD and not (head and isinstance(head[-1], Row)) and (record := next(records, None)):
        head.append(record)
    if not head:
        raise DataError(lines.path, EMPTY_JSONL)
    return list(head[-1].values) if isinstance(head[-1], Row) else [], _with_head(head, records)


def _with_head(head: list[Row | RowError], records: Records) -> Records:
    with closing(records):
        yield from head
        yield from records


def _check_is_text(lines: Lines) -> None:
    """Refuse binary data at once instead of line by line. (UTF-16 with its mark is refused by the reader.)"""
    head = lines.head()
    if b"\0" not in head or head.startswith(_UTF_16):
        return
    text = head.decode("utf-8", "replace")
    strange = sum(c == "\ufffd" or (c < " " and c not in "\t\n\r\f") for c in text)
    if head.startswith(_MAGIC) or strange > _BINARY_SHARE * len(text):
        raise DataError(
            lines.path, "expected UTF-8 text, found binary data; is it the right file, with the right name?"
        )


# ---- Parquet


def _parquet_source(argument: str, files: list[Path]) -> Source:
    schemas = read_schemas(files)
    parts = [_parquet_part(file, schema.names) for file, schema in zip(files, schemas, strict=True)]
    _check_same_columns(parts)
    return Source(argument, files, parts, "row", _common_schema(files, schemas))


def _parquet_part(path: Path, columns: list[str]) -> _Part:
    return _Part(str(path), columns, lambda: _parquet_records(path))


def _parquet_records(path: Path) -> Records:
    rows = 0
    with closing(read_batches(path)) as batches:
        for batch in batches:
            yield from read_batch(path, batch, rows)
            rows += batch.num_rows


def _common_schema(files: list[Path], schemas: list[pa.Schema]) -> pa.Schema:
    common = schemas[0]
    for file, schema in zip(files, schemas, strict=True):
        try:
            common = pa.unify_schemas([common, schema], promote_options="permissive")
        except pa.ArrowException as error:
            found = str(error).splitlines()[0]
            raise DataError(file, f"its types and those of {files[0]} do not fit together: {found}") from None
    return common


def _check_same_columns(parts: list[_Part]) -> None:
    """Files whose columns stand in another order are fine."""
    for part in parts[1:]:
        if sorted(part.columns) != sorted(parts[0].columns):
            raise DataError(
                part.path,
                f"expected the columns of {parts[0].path}, {_listed(parts[0].columns)}; found {_listed(part.columns)}",
            )


def _listed(columns: list[str]) -> str:
    return ", ".join(map(repr, columns[:20])) + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")
