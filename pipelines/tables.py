"""Read tables: CSV, TSV, JSONL and Parquet (text formats also `.gz`), and saved `datasets` folders.

Reading is strict: what cannot be read without guessing is a DataError with file, line and column. The readers below
`read_table` yield a record that cannot be read as a RowError between the rows, for callers who go on with the next.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError

EMPTY_JSONL = "the file is empty; expected one JSON object per line"
FORMATS = ".csv, .tsv, .jsonl (each also .gz), .parquet, or a folder saved by datasets"
# Words in the names of columns, the likeliest first.
USUAL_COLUMNS = {
    "text": ("text", "tweet", "content", "sentence", "body", "message", "caption", "description", "review"),
    "label": ("label", "class", "category", "target", "intent", "y"),
}
# Characters. The default of 131,072 refuses long articles; a quote that is never closed is held up to here.
MAX_FIELD = 16 * 2**20
csv.field_size_limit(MAX_FIELD)
_BUFFER = 2**16  # bytes; of a line that is too long so much is skipped at once
_NO_PYTHON_VALUE = (ValueError, OverflowError, LookupError, pa.ArrowException)  # bad UTF-8, a year 10,000, a time zone
_WHOLE_BATCH = 16 * 2**20  # bytes; a larger batch becomes Python values row by row


@dataclass(frozen=True)
class Row:
    """One record and where it stands: a 1-based line of a text file, or row of a binary one."""

    line: int
    values: dict[str, Any]


class RowError(DataError):
    """One record that cannot be read. Those after it can.

    Attributes:
        problem: the message without the place.
        line: 1-based line (or row) where the record begins; the message names the line where reading failed.
    """

    def __init__(
        self,
        path: Path | str,
        problem: str,
        line: int,
        column: int | None = None,
        unit: str = "line",
        start: int | None = None,
    ) -> None:
        super().__init__(path, problem, line, column, unit)
        self.problem = problem
        self.line = line if start is None else start


Records = Generator[Row | RowError, None, None]


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


def _strict(records: Records) -> Iterator[Row]:
    """Rows up to the first record that cannot be read, which is raised."""
    with closing(records):
        for record in records:
            if isinstance(record, RowError):
                raise record
            yield record


# ---- text formats


def _open_binary(path: Path) -> BinaryIO:
    """Unbuffered, as Lines has a buffer."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb", buffering=0)  # type: ignore[return-value]


class Lines:
    """Decoded lines with their line ends, one at a time. Raises RowError for one that is no text; the next can follow.

    Args:
        path: for messages.
        file: what to read; `close` closes it.
        max_bytes: of a record and so of a line; more is never held in memory but skipped and a RowError. -1: any.
    """

    def __init__(self, path: Path | str, file: BinaryIO, max_bytes: int = -1) -> None:
        self.path = path
        self.number = 0  # of the line that was read last
        self.start = 1  # of the record that is being read
        self._file = io.BufferedReader(file, _BUFFER)  # type: ignore[type-var]
        self._close = weakref.finalize(self, self._file.close)  # also where nobody asks for the rows of a table
        self._max_bytes = max_bytes
        self._held = 0  # bytes of that record

    def __iter__(self) -> Iterator[str]:
        return self

    def head(self) -> bytes:
        """The next bytes, which stay to be read: up to 64 KiB, and of a file at least one where there is one."""
        try:
            return self._file.peek(_BUFFER)
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from None

    def begin_record(self) -> None:
        """Say that the next line begins a record."""
        self.start, self._held = self.number + 1, 0

    def __next__(self) -> str:
        raw = self._read(self._max_bytes + 1 if self._max_bytes >= 0 else -1)
        if not raw:
            raise StopIteration
        self.number += 1
        if self.number == 1:
            raw = _without_mark(self.path, raw)
        if self._max_bytes >= 0:
            self._check_size(raw)
        return self._decode(raw)

    def close(self) -> None:
        self._close()

    def _read(self, most: int) -> bytes:
        """The next line, or its first `most` bytes."""
        try:
            return self._file.readline(most)
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError | EOFError | zlib.error) -> DataError:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            return DataError(self.path, f"cannot be read: {error.strerror or error}")
        message = f"the gzip data is damaged or cut off ({error}); copy the file again"
        return DataError(self.path, message, self.number + 1)

    def _check_size(self, raw: bytes) -> None:
        size = f"more than {self._max_bytes / 2**20:g} MiB"
        if len(raw) > self._max_bytes:
            while raw and not raw.endswith(b"\n"):
                raw = self._read(_BUFFER)
            raise self._error(f"a line of {size}; split or shorten the text")
        self._held += len(raw)
        if self._held > self._max_bytes:
            raise self._error(f"a record of {size}; close its quote, or split or shorten the text")

    def _decode(self, raw: bytes) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            column = len(raw[: error.start].decode("utf-8")) + 1
            found = f"expected UTF-8 text, found the byte 0x{raw[error.start]:02x}"
            raise self._error(f"{found}; save the file as UTF-8", column) from None
        if "\0" in text:
            problem = "expected text, found a null byte; is this a binary file?"
            raise self._error(problem, text.index("\0") + 1)
        return text

    def _error(self, problem: str, column: int | None = None) -> RowError:
        return RowError(self.path, problem, self.number, column, start=self.start)


def open_lines(path: Path, max_bytes: int = -1) -> Lines:
    """The lines of a file, decompressed where its name ends in .gz. Raises DataError when it cannot be opened."""
    try:
        return Lines(path, _open_binary(path), max_bytes)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None


def _without_mark(path: Path | str, raw: bytes) -> bytes:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(path, "expected UTF-8, found UTF-16; save the file as UTF-8", 1, 1)
    return raw.removeprefix(b"\xef\xbb\xbf")


def _read_delimited(path: Path, delimiter: str) -> Table:
    columns, records = read_delimited(open_lines(path), delimiter)
    return Table(path, columns, _strict(records), "line")


def read_delimited(lines: Lines, delimiter: str) -> tuple[list[str], Records]:
    """Column names and records; they close `lines`. Raises DataError when the header cannot be used."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = _header(lines, reader)
    except BaseException:
        lines.close()
        raise
    return columns, _delimited_records(lines, reader, columns)


def _header(lines: Lines, reader: Any) -> list[str]:
    path, header = lines.path, _next_record(lines, reader)
    if header is None:
        raise DataError(path, "the file is empty; expected a first line with column names")
    if not header:
        raise DataError(path, "the first line is blank; expected column names there", 1)
    columns = [name.strip() for name in header]
    if "" in columns[1:]:  # the first may be the row number that pandas and R write, without a name
        raise DataError(path, f"column {columns.index('', 1) + 1} has no name; give every column one", 1)
    doubled = sorted(name for name, number in Counter(columns).items() if number > 1)
    if doubled:
        raise DataError(path, f"the column name {doubled[0]!r} stands twice; rename one of them", 1)
    return columns


def _delimited_records(lines: Lines, reader: Any, columns: list[str]) -> Records:
    with closing(lines):
        while True:
            try:
                record = _next_record(lines, reader)
                if record is None:
                    return
                if not record:  # a blank line
                    continue
                found: Row | RowError = _delimited_row(lines, record, columns)
            except RowError as error:
                found = error
            yield found


def _delimited_row(lines: Lines, record: list[str], columns: list[str]) -> Row:
    if len(record) != len(columns):
        raise RowError(
            lines.path,
            f"expected {len(columns)} fields as in the header, found {len(record)}; "
            "put quotes around text that holds the separator",
            lines.start,
        )
    return Row(lines.start, dict(zip(columns, record, strict=True)))


def _next_record(lines: Lines, reader: Any) -> list[str] | None:
    lines.begin_record()
    try:
        record: list[str] = next(reader)
    except StopIteration:
        return None
    except csv.Error as error:
        line, found = lines.number, f"{error}; quotes inside a quoted text must be doubled"
        if "end of data" in found:
            line = lines.start
            found = "a quote is opened and never closed; close it, or double it if it belongs to the text"
        elif "new-line" in found:
            found = "a carriage return outside quotes; put quotes around the text, or end lines with a line feed"
        elif "field limit" in found:
            found = f"a field of more than {MAX_FIELD:,} characters; close its quote, or shorten the text"
        raise RowError(lines.path, f"not a valid record: {found}", line, start=lines.start) from None
    return record


def _read_jsonl(path: Path) -> Table:
    rows = _strict(read_jsonl(open_lines(path)))
    first = next(rows, None)
    if first is None:
        raise DataError(path, EMPTY_JSONL)

    def all_rows() -> Iterator[Row]:
        yield first
        yield from rows

    return Table(path, list(first.values), all_rows(), "line")


def read_jsonl(lines: Lines) -> Records:
    """A record for every line that is not blank; they close `lines`."""
    with closing(lines):
        while True:
            lines.begin_record()
            try:
                line = next(lines, None)
                if line is None:
                    return
                if not line.strip():
                    continue
                found: Row | RowError = Row(lines.number, _json_object(lines.path, line, lines.number))
            except RowError as error:
                found = error
            yield found


def _json_object(path: Path | str, line: str, number: int) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            doubled = next(name for name, number in Counter(name for name, _ in pairs).items() if number > 1)
            raise RowError(path, f"the key {doubled!r} stands twice in one object", number)
        return values

    def no_constant(name: str) -> NoReturn:
        raise RowError(path, f"{name} is not JSON; use null or a number", number)

    try:
        value = json.loads(line.rstrip(), object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise RowError(
            path, f"not valid JSON: {error.msg}; expected one object per line", number, error.colno
        ) from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise RowError(path, "a number is too long; put it in quotes", number) from None
    except RecursionError:
        raise RowError(path, "the JSON is nested too deeply; expected one flat object per line", number) from None
    if not isinstance(value, dict):
        raise RowError(path, f"expected a JSON object, found {type(value).__name__}", number, 1)
    if "\\ud" in line.lower():  # the only way to half a character, which nothing later could encode
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RowError(path, "\\ud800 to \\udfff must come in pairs; found one alone", number) from None
    return value


# ---- binary formats


def _read_parquet(path: Path) -> Table:
    try:
        file = pq.ParquetFile(path)
        columns = list(file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(path, f"not a readable Parquet file: {_first_line(error)}") from None

    def records() -> Records:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=1024):
                yield from read_batch(path, batch, number)
                number += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(path, f"damaged Parquet data: {_first_line(error)}", number + 1, unit="row") from None

    return Table(path, columns, _strict(records()), "row")


def read_batch(path: Path, batch: pa.RecordBatch, before: int) -> Records:
    """A record for every row of a batch that follows `before` others; large batches are never Python values at once."""
    values: list[dict[str, Any]] = []
    if batch.num_rows == 1 or batch.nbytes <= _WHOLE_BATCH:
        try:
            values = batch.to_pylist()
        except _NO_PYTHON_VALUE as error:
            if batch.num_rows == 1:
                yield RowError(path, f"a value cannot be read: {_first_line(error)}", before + 1, unit="row")
                return
    if values:
        yield from (Row(number, row) for number, row in enumerate(values, start=before + 1))
    else:
        for n in range(batch.num_rows):
            yield from read_batch(path, batch.slice(n, 1), before + n)


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
