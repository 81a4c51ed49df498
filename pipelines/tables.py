"""Read and write tables: CSV, TSV, JSONL and Parquet (text formats also `.gz`), and saved `datasets` folders.

Reading is strict: what cannot be read without guessing is a DataError with file, line and column.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError

FORMATS = ".csv, .tsv, .jsonl (each also .gz), .parquet, or a folder saved by datasets"
csv.field_size_limit(64 * 2**20)  # characters; the default of 131,072 refuses long articles


@dataclass(frozen=True)
class Row:
    """One record and where it stands: a 1-based line of a text file, or row of a binary one."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Columns and a stream of rows. `rows` can be read once."""

    path: Path
    columns: list[str]
    rows: Iterator[Row]
    unit: str  # what Row.line counts, "line" or "row"


def table_format(path: Path) -> str:
    """`csv`, `tsv`, `jsonl`, `parquet` or `dataset`. Raises DataError for anything else."""
    if path.is_dir():
        return "dataset"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    formats = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
    found = formats.get(last)
    if found is None or (found == "parquet" and suffixes[-1] == ".gz"):
        raise DataError(path, f"unknown format {''.join(suffixes[-2:]) or '(no suffix)'!r}; expected {FORMATS}")
    return found


def unit_of(path: Path) -> str:
    """What a Row's line counts: "line" of a text format, "row" of a binary one."""
    return "row" if table_format(path) in ("parquet", "dataset") else "line"


def read_table(path: Path) -> Table:
    """Open a table. Raises DataError when it is missing, empty, or not what its name says; rows raise later."""
    if not path.exists():
        raise DataError(path, "no such file; paths are relative to the working directory")
    readers: dict[str, Callable[[Path], Table]] = {
        "csv": lambda p: _read_delimited(p, ","),
        "tsv": lambda p: _read_delimited(p, "\t"),
        "jsonl": _read_jsonl,
        "parquet": _read_parquet,
        "dataset": _read_dataset,
    }
    return readers[table_format(path)](path)


# ---- text formats


def _open_binary(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Generator[str, None, None]:
    """Decoded lines with their line ends; the place of an undecodable byte is known."""
    number = 0
    try:
        with _open_binary(path) as file:
            for number, raw in enumerate(file, start=1):
                if number == 1:
                    raw = _without_mark(path, raw)
                yield _decode(path, raw, number)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            path, f"the gzip data is damaged or cut off ({error}); copy the file again", number + 1
        ) from None
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None


def _without_mark(path: Path, raw: bytes) -> bytes:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(path, "expected UTF-8, found UTF-16; save the file as UTF-8", 1, 1)
    return raw.removeprefix(b"\xef\xbb\xbf")


def _decode(path: Path, raw: bytes, number: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode("utf-8")) + 1
        found = f"expected UTF-8 text, found the byte 0x{raw[error.start]:02x}"
        raise DataError(path, f"{found}; save the file as UTF-8", number, column) from None
    if "\0" in text:
        raise DataError(path, "expected text, found a null byte; is this a binary file?", number, text.index("\0") + 1)
    return text


def _read_delimited(path: Path, delimiter: str) -> Table:
    lines = _lines(path)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = _header(path, reader)
    except BaseException:
        lines.close()
        raise
    return Table(path, columns, _delimited_rows(path, reader, columns, lines), "line")


def _header(path: Path, reader: Any) -> list[str]:
    header = _next_record(path, reader)
    if header is None:
        raise DataError(path, "the file is empty; expected a first line with column names")
    if not header:
        raise DataError(path, "the first line is blank; expected column names there", 1)
    columns = [name.strip() for name in header]
    if "" in columns[1:]:  # the first may be the row number that pandas and R write, without a name
        raise DataError(path, f"column {columns.index('', 1) + 1} has no name; give every column one", 1)
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise DataError(path, f"the column name {doubled[0]!r} stands twice; rename one of them", 1)
    return columns


def _delimited_rows(path: Path, reader: Any, columns: list[str], lines: Generator[str, None, None]) -> Iterator[Row]:
    with closing(lines):
        while True:
            line = reader.line_num + 1
            record = _next_record(path, reader)
            if record is None:
                return
            if not record:  # a blank line
                continue
            if len(record) != len(columns):
                raise DataError(
                    path,
                    f"expected {len(columns)} fields as in the header, found {len(record)}; "
                    "put quotes around text that holds the separator",
                    line,
                )
            yield Row(line, dict(zip(columns, record, strict=True)))


def _next_record(path: Path, reader: Any) -> list[str] | None:
    start = reader.line_num + 1
    try:
        record: list[str] = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        line, found = reader.line_num, f"{error}; quotes inside a quoted text must be doubled"
        if "end of data" in found:
            line, found = start, "a quote is opened and never closed; close it, or double it if it belongs to the text"
        elif "new-line" in found:
            found = "a carriage return outside quotes; put quotes around the text, or end lines with a line feed"
        raise DataError(path, f"not a valid record: {found}", line) from None
    return record


def _read_jsonl(path: Path) -> Table:
    rows = _jsonl_rows(path)
    first = next(rows, None)
    if first is None:
        raise DataError(path, "the file is empty; expected one JSON object per line")

    def all_rows() -> Iterator[Row]:
        yield first
        yield from rows

    return Table(path, list(first.values), all_rows(), "line")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            yield Row(number, _json_object(path, line, number))


def _json_object(path: Path, line: str, number: int) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            doubled = next(name for name in names if names.count(name) > 1)
            raise DataError(path, f"the key {doubled!r} stands twice in one object", number)
        return values

    def no_constant(name: str) -> NoReturn:
        raise DataError(path, f"{name} is not JSON; use null or a number", number)

    try:
        value = json.loads(line.rstrip(), object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise DataError(
            path, f"not valid JSON: {error.msg}; expected one object per line", number, error.colno
        ) from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise DataError(path, "a number is too long; put it in quotes", number) from None
    except RecursionError:
        raise DataError(path, "the JSON is nested too deeply; expected one flat object per line", number) from None
    if not isinstance(value, dict):
        raise DataError(path, f"expected a JSON object, found {type(value).__name__}", number, 1)
    if "\\ud" in line.lower():  # the only way to half a character, which nothing later could encode
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise DataError(path, "\\ud800 to \\udfff must come in pairs; found one alone", number) from None
    return value


# ---- binary formats


def _read_parquet(path: Path) -> Table:
    try:
        file = pq.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"not a readable Parquet file: {_first_line(error)}") from None

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, values)
        except (pa.ArrowException, OSError) as error:
            raise DataError(path, f"damaged Parquet data: {_first_line(error)}", number + 1, unit="row") from None

    return Table(path, columns, rows(), "row")


def _first_line(error: Exception) -> str:
    return f"{str(error).splitlines()[0]}; copy or write the file again"


def _read_dataset(path: Path) -> Table:
    try:
        dataset = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, pa.ArrowException) as error:
        raise DataError(path, f"not a folder saved by datasets ({error}); expected {FORMATS}") from None
    if isinstance(dataset, datasets.DatasetDict):
        parts = ", ".join(f"{path / name}" for name in dataset)
        raise DataError(path, f"holds several parts; name one of them: {parts}")
    names = {c: f.int2str for c, f in dataset.features.items() if isinstance(f, datasets.ClassLabel)}

    def as_written(values: dict[str, Any]) -> dict[str, Any]:
        # -1 is how a ClassLabel says that there is none
        return {c: v if c not in names or v is None else names[c](v) if v >= 0 else None for c, v in values.items()}

    rows = (Row(number, as_written(values)) for number, values in enumerate(dataset, start=1))
    return Table(path, list(dataset.column_names), rows, "row")


# ---- writing


def write_table(path: Path, format: str, columns: list[str], rows: Iterable[dict[str, Any]]) -> int:
    """Write rows to `path` and return how many there were.

    Args:
        path: a new file; a name that ends in .gz is compressed.
        format: `csv`, `tsv`, `jsonl` or `parquet`. CSV cells that a spreadsheet would run as a formula get a leading
            apostrophe (see `inert`); JSONL is the lossless format.
        columns: in order; a row may lack some, which are null then.
        rows: mappings; nested values are JSON text in CSV and TSV.
    """
    if format == "parquet":
        return _write_parquet(path, columns, rows)
    count = 0
    with _open_text_for_writing(path) as file:
        # Line ends as in RFC 4180; with "\n" alone, Python before 3.13 leaves "\r" in a text unquoted.
        delimited = csv.writer(file, delimiter="\t" if format == "tsv" else ",", lineterminator="\r\n")
        if format != "jsonl":
            delimited.writerow([inert(column) for column in columns])
        for row in rows:
            count += 1
            if format == "jsonl":
                file.write(json.dumps(_json_value(row), ensure_ascii=False, default=str) + "\n")
            else:
                delimited.writerow([_cell(value) for value in _record(path, columns, row)])
    return count


def _record(path: Path, columns: list[str], row: dict[str, Any]) -> list[Any]:
    """The values of a row in column order. JSONL rows may lack a key; one that is no column would be lost."""
    extra = sorted(row.keys() - set(columns))
    if extra:
        raise DataError(path, f"the key {extra[0]!r} is not in the first row, so there is no column; write .jsonl")
    return [row.get(column) for column in columns]


def _json_value(value: Any) -> Any:
    """NaN and infinity, which JSON lacks, become null at any depth."""
    if isinstance(value, dict):
        return {name: _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def inert(cell: str) -> str:
    """A cell that a spreadsheet shows instead of running (CWE-1236): numbers stay, formula starts are quoted."""
    start = cell.lstrip(" \u3000")[:1]
    if start not in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, dict | list):
        return json.dumps(_json_value(value), ensure_ascii=False, default=str)
    return str(value)


def _open_text_for_writing(path: Path) -> io.TextIOWrapper:
    raw: Any = gzip.GzipFile(path, "wb", mtime=0) if path.suffix.lower() == ".gz" else path.open("wb")
    return io.TextIOWrapper(raw, encoding="utf-8", newline="")


def _write_parquet(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> int:
    values: dict[str, list[Any]] = {column: [] for column in columns}
    for row in rows:
        for column, value in zip(columns, _record(path, columns, row), strict=True):
            values[column].append(value)
    try:
        table = pa.table({column: pa.array(items) for column, items in values.items()})
        pq.write_table(table, path)
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(path, f"Parquet cannot hold a column, as when it mixes types ({error}); write .jsonl") from None
    return int(table.num_rows)
