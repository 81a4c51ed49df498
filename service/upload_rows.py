"""An upload -> its columns and rows, whatever its format. Its first bytes decide, then the client's name for it.

Text is read as it is decompressed, Parquet by a child process under a memory limit; nothing is held but the row.
"""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO

from pipelines.bulk.parquet_rows import read_batches, read_schemas
from pipelines.bulk.sources import MAX_LINE_BYTES
from pipelines.errors import DataError
from pipelines.tables import EMPTY_JSONL, Lines, Row, RowError, read_batch, read_delimited, read_jsonl
from service.refused import INVALID_FILE, TOO_LARGE, UploadRefused

if TYPE_CHECKING:
    import pyarrow as pa

MOST_BYTES = 2 * 2**30  # decompressed: four times the largest upload, where gzip makes a text a fourth
FORMATS = ".jsonl, .csv, .tsv (each also .gz) or .parquet"
_HINTS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}
_PARQUET, _ZIP, _GZIP = b"PAR1", b"PK\x03\x04", b"\x1f\x8b"
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class Upload:
    """A file that a client sent.

    Attributes:
        name: the client's, without folders.
        format: jsonl, csv, tsv or parquet.
        columns: of JSONL the keys of the first row.
        records: can be iterated once, while the upload is open.
    """

    name: str
    format: str
    columns: list[str]
    records: Iterable[Row | RowError]

    def rows(self) -> Iterator[Row]:
        """Every row, up to the first that cannot be read, which is raised."""
        for record in self.records:
            if isinstance(record, RowError):
                raise record
            yield record

    def place(self, line: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.name}, {'row' if self.format == 'parquet' else 'line'} {line}"


@contextmanager
def open_upload(source: Path, filename: str) -> Iterator[Upload]:
    """Open a stored upload; what its readers refuse is UploadRefused with the client's name for the file.

    Args:
        source: where it is stored; its name says nothing.
        filename: the client's, which may be a path, or say nothing.
    """
    name = _shown(filename)
    with source.open("rb") as file:
        start = file.read(4)
    with _refusing(source, name):
        if start == _PARQUET:
            with closing(read_batches(source)) as batches:
                yield Upload(name, "parquet", read_schemas([source])[0].names, _parquet_records(source, batches))
            return
        if start == _ZIP:
            raise _unusable(name, f"expected {FORMATS}, found a zip archive or spreadsheet; save the table as CSV")
        with closing(Lines(name, _opened(source, name, start.startswith(_GZIP)), MAX_LINE_BYTES)) as lines:
            yield _text_upload(lines, name)


def listed(columns: Sequence[str]) -> str:
    """Names of columns for a message: not all of a thousand, no long one whole."""
    shown = ", ".join(repr(name[:60]) for name in columns[:20])
    return shown + (f" and {len(columns) - 20} more" if len(columns) > 20 else "")


@contextmanager
def _refusing(source: Path, name: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        line = error.line if isinstance(error, RowError) else None
        raise UploadRefused(str(error).replace(str(source), name), INVALID_FILE, None, line) from None


def _unusable(name: str, problem: str) -> UploadRefused:
    return UploadRefused(f"{name}: {problem}", INVALID_FILE)


def _shown(filename: str) -> str:
    """The client's name without its folders, in either system's spelling, and without what a terminal obeys."""
    name = "".join(c for c in PureWindowsPath(filename).name if c.isprintable())
    return name[-_NAME_CHARACTERS:] or "upload"


# ---- Parquet


def _parquet_records(source: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[Row | RowError]:
    rows = 0
    for batch in batches:
        yield from read_batch(source, batch, rows)
        rows += batch.num_rows


# ---- text


class _Bounded(io.RawIOBase):
    """A file of at most MOST_BYTES; a gzip file of half a megabyte can hold half a gigabyte of blank lines."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self._name = name
        self._file = file
        self._left = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            size = f"{MOST_BYTES / 2**30:g} GiB"
            raise UploadRefused(f"{self._name}: more than {size} when decompressed; upload less", TOO_LARGE)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(source: Path, name: str, packed: bool) -> BinaryIO:
    return _Bounded(name, _raw(source, packed))  # type: ignore[return-value]


def _raw(source: Path, packed: bool) -> BinaryIO:
    return gzip.open(source, "rb") if packed else source.open("rb", buffering=0)  # type: ignore[return-value]


def _text_upload(lines: Lines, name: str) -> Upload:
    head = lines.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        raise _unusable(name, "the file is empty; expected one example per line")
    format = _hint(name) or _sniffed(head)
    if format is None:
        raise _unusable(name, f"its format is not clear; name it {FORMATS}")
    if format == "parquet":
        raise _unusable(name, "expected a Parquet file, as its name says, found other data; copy or write it again")
    if format in _DELIMITERS:
        return Upload(name, format, *read_delimited(lines, _DELIMITERS[format]))
    if head.startswith(b"["):
        raise _unusable(name, "expected one JSON object per line, found a JSON array; write its elements as lines")
    return _jsonl_upload(lines, name)


def _jsonl_upload(lines: Lines, name: str) -> Upload:
    records = read_jsonl(lines)
    first = next(records, None)
    if first is None:
        raise _unusable(name, EMPTY_JSONL)
    if isinstance(first, RowError):
        raise first
    return Upload(name, "jsonl", list(first.values), itertools.chain([first], records))


def _hint(name: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PureWindowsPath(name).suffixes]
    while suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return _HINTS.get(suffixes[-1]) if suffixes else None


def _sniffed(head: bytes) -> str | None:
    first = head.split(b"\n", 1)[0]
    if first.startswith((b"{", b"[")):
        return "jsonl"
    tabs, commas = first.count(b"\t"), first.count(b",")
    if not tabs and not commas:
        return None
    return "tsv" if tabs > commas else "csv"
