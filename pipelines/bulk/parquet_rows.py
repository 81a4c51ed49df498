"""Parquet read by a child process under a memory limit, because a footer can lie: 200 kB may decode to gigabytes.

`python -m pipelines.bulk.parquet_rows [--schema] FILE...` writes one Arrow IPC stream for each file to standard output:
small batches of plain types, or none with `--schema`. What it refuses is one line on standard error and exit code 1.
The other end, `read_schemas` and `read_batches`, turns that into DataError. The child ends with the pipe.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError

BATCH = 256  # rows
MEMORY = 3 * 2**29  # bytes of address space of the child, 0.3 GiB of which are its libraries
MAX_BATCH = 256 * 2**20  # bytes decoded
MAX_CELL = 16 * 2**20  # bytes decoded
_VALUE = (
    32  # bytes that a number takes as a Python value, counted for every element of a list: null ones take none here
)
_FILES = 1000  # for one child, whose command line has a limit
_AGAIN = "copy or write the file again"
_EXTENSION = b"ARROW:extension:name"


# ---- the child


class _Refused(Exception):
    """What this file holds is not passed on; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """Write the streams. Returns the exit code."""
    schema_only = arguments[0] == "--schema"
    _limit_memory()
    try:
        for path in arguments[schema_only:]:
            _write_stream(path, schema_only)
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the parent wants no more; Python's own flush at exit would fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        print(f"it needs more than {MEMORY / 2**30:g} GiB of memory; write it with smaller pages", file=sys.stderr)
        return 1
    except _Refused as error:
        print(error, file=sys.stderr)
        return 1
    except (pa.ArrowException, OSError) as error:
        print(f"{(str(error) or type(error).__name__).splitlines()[0]}; {_AGAIN}", file=sys.stderr)
        return 1
    return 0


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    except (ValueError, OSError):  # macOS has the name but may refuse it
        return


def _write_stream(path: str, schema_only: bool) -> None:
    # A buffer, so that a column of a large row group is never read whole.
    with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False, arrow_extensions_enabled=False) as file:
        schema = _plain_schema(file.schema_arrow)
        with pa.ipc.new_stream(sys.stdout.buffer, schema) as stream:
            if schema_only:
                return
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                plain = pa.RecordBatch.from_arrays([_plain(column) for column in batch.columns], schema=schema)
                _check_size(plain)
                stream.write_batch(plain)


def _plain_schema(schema: pa.Schema) -> pa.Schema:
    doubled = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if doubled:
        raise _Refused(f"the column name {doubled[0]!r} stands twice; rename one of them")
    for field in schema:
        _check_nested(field.name, _plain_type(field.type))
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in schema])


def _plain_type(kind: Any) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    views = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return views.get(kind, kind)


def _plain(column: Any) -> Any:
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(_plain_type(column.type))


def _check_nested(name: str, kind: Any) -> None:
    """Refuse what cannot be made plain inside a list, map or struct, as it would reach the parent."""
    fields = [kind.field(n) for n in range(kind.num_fields)]
    if fields and not (pa.types.is_struct(kind) or _is_list(kind)):
        raise _Refused(f"column {name!r} has the type {kind}; write it as text, numbers, lists or structs")
    for field in fields:
        special = isinstance(field.type, pa.BaseExtensionType) or pa.types.is_dictionary(field.type)
        if special or _EXTENSION in (field.metadata or {}):
            raise _Refused(f"column {name!r} holds the type {field.type} in a list or struct; write plain values")
        _check_nested(name, field.type)


def _is_list(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind) or types.is_map(kind)
    )


def _check_size(batch: pa.RecordBatch) -> None:
    size = batch.nbytes + _VALUE * sum(_values(column) for column in batch.columns)
    if size > MAX_BATCH:
        rows, limit = batch.num_rows, MAX_BATCH // 2**20
        raise _Refused(f"{rows} rows take {size // 2**20:,} MiB, more than {limit}; split or shorten the texts")
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.nbytes > MAX_CELL and any(column.slice(n, 1).nbytes > MAX_CELL for n in range(len(column))):
            raise _Refused(
                f"a value in column {name!r} takes more than {MAX_CELL // 2**20} MiB; split or shorten the text"
            )


def _values(column: Any) -> int:
    """How many Python values a column becomes, those inside its lists and structs among them."""
    if pa.types.is_struct(column.type):
        return len(column) + sum(_values(part) for part in column.flatten())
    return len(column) + (_values(column.flatten()) if _is_list(column.type) else 0)


# ---- the parent


class _Child:
    """A running child: its streams, and why it failed."""

    def __init__(self, process: subprocess.Popen[bytes], messages: IO[bytes]) -> None:
        self._process = process
        self._messages = messages
        self._output = pa.PythonFile(process.stdout, mode="r")

    def stream(self) -> Any:
        """The next stream. Raises ArrowException or OSError when the child did not write one."""
        return pa.ipc.open_stream(self._output)

    def succeeded(self) -> bool:
        return self._process.wait() == 0

    def reason(self) -> str:
        """The last line that the child wrote, once it has ended; of one that was killed, by what."""
        code = self._process.wait()
        self._messages.seek(max(0, self._messages.seek(0, os.SEEK_END) - 2000))
        lines = self._messages.read().decode("utf-8", "replace").strip().splitlines()
        ended = f"its reader was ended by signal {-code}" if code < 0 else f"its reader stopped with exit code {code}"
        return lines[-1] if lines else f"{ended}; {_AGAIN}"


@contextmanager
def _child(*arguments: str) -> Iterator[_Child]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])),
        # Other pools and threads reserve address space, which the limit counts.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-P", "-m", __spec__.name, *arguments]
    with (
        tempfile.TemporaryFile() as messages,
        # A session of its own: Ctrl-C is for the parent, which may want to finish its chunk.
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=messages,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield _Child(process, messages)
        finally:
            process.kill()


def read_schemas(paths: Sequence[Path]) -> list[pa.Schema]:
    """The columns of Parquet files as `read_batches` gives them. Raises DataError for one that cannot be read."""
    starts = range(0, len(paths), _FILES)
    return [schema for start in starts for schema in _read_schemas(paths[start : start + _FILES])]


def _read_schemas(paths: Sequence[Path]) -> Iterator[pa.Schema]:
    with _child("--schema", *map(str, paths)) as child:
        for path in paths:
            try:
                stream = child.stream()
                stream.read_all()  # up to its end, where the next one begins
            except (pa.ArrowException, OSError):
                raise DataError(path, f"not a readable Parquet file: {child.reason()}") from None
            yield stream.schema


def read_batches(path: Path) -> Generator[pa.RecordBatch, None, None]:
    """Batches of at most BATCH rows and MAX_BATCH bytes. Raises DataError where the file cannot be read further."""
    rows = 0
    with _child(str(path)) as child:
        try:
            for batch in child.stream():
                yield batch
                rows += batch.num_rows
            failed = not child.succeeded()  # one that is killed between two batches leaves a stream that looks whole
        except (pa.ArrowException, OSError):
            failed = True
        if failed:
            message = f"damaged or too large when decoded: {child.reason()}"
            raise DataError(path, message, rows + 1, unit="row")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
