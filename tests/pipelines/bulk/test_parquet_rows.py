"""Parquet through a child process: what a file may decode to is bounded, and a child that fails says why."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.bulk import parquet_rows
from pipelines.bulk.parquet_rows import BATCH, MAX_BATCH, read_batches, read_schemas
from pipelines.errors import DataError

MIB = 2**20
LIMITED = pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to the limit of address space")


def save(folder: Path, table: pa.Table, **options: Any) -> Path:
    path = folder / "a.parquet"
    pq.write_table(table, path, compression="zstd", **options)
    return path


def error(path: Path) -> str:
    """The message, without the folder."""
    with pytest.raises(DataError) as caught:
        for _ in read_batches(path):
            pass
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{path.parent}/", "")


def repeated(text: str, times: int) -> pa.Array:
    return pa.array([text]).take(pa.array([0] * times))


# ---- what comes through


def test_batches_are_small_and_whole(tmp_path: Path) -> None:
    table = pa.table({"text": [f"é{n}" for n in range(1000)], "list": [[n, None] for n in range(1000)]})
    path = save(tmp_path, table, row_group_size=300)
    batches = list(read_batches(path))
    assert max(batch.num_rows for batch in batches) == BATCH
    assert pa.Table.from_batches(batches).to_pylist() == table.to_pylist()


def test_schemas_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_FILES", 2)
    paths = [tmp_path / f"{n}.parquet" for n in range(5)]
    for n, path in enumerate(paths):
        pq.write_table(pa.table({f"column {n}": [n]}), path)
    assert [schema.names for schema in read_schemas(paths)] == [[f"column {n}"] for n in range(5)]
    paths[3].write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"3.parquet: not a readable Parquet file: .*; copy or write the file again$"):
        read_schemas(paths)


def test_types_are_plain(tmp_path: Path) -> None:
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(range(16))] * 2, pa.binary(16)))
    table = pa.table(
        {"d": pa.array(["a", "b"]).dictionary_encode(), "v": pa.array(["x", None], pa.string_view()), "u": uuids}
    )
    path = save(tmp_path, table)
    assert table.schema.field("u").type == pa.uuid()
    [schema] = read_schemas([path])
    assert schema.types[0] == pa.string()
    assert schema.types[1] in (pa.string(), pa.large_string())
    assert schema.types[2] == pa.binary(16)
    [batch] = read_batches(path)
    assert batch.schema == schema
    assert batch.to_pylist()[1] == {"d": "b", "v": None, "u": bytes(range(16))}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"]), "the column name 'x' stands twice"),
        (
            pa.table({"x": pa.ListArray.from_arrays([0, 1], pa.array(["a"]).dictionary_encode())}),
            "column 'x' holds the type dictionary<values=string, indices=int32, ordered=0> in a list or struct",
        ),
    ],
)
def test_what_would_not_be_plain_is_refused(tmp_path: Path, table: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=f"a.parquet: not a readable Parquet file: {message}"):
        read_schemas([save(tmp_path, table)])


# ---- what a file may decode to


@LIMITED
def test_200_kb_that_decode_to_2_gb_are_read_in_bounded_memory(tmp_path: Path) -> None:
    table = pa.table({"text": repeated("x" * 20_000, 1000)})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(100):
            writer.write_table(table)
    assert path.stat().st_size < 250_000
    before = psutil.Process().memory_info().rss
    rows = most = child = 0
    for batch in read_batches(path):
        rows += batch.num_rows
        most = max(most, psutil.Process().memory_info().rss - before)
        child = max(child, *(p.memory_info().rss for p in psutil.Process().children()), 0)
    assert rows == 100_000
    assert most < 200 * MIB
    assert child < 600 * MIB


def test_a_batch_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, pa.table({"text": repeated("x" * 2 * MIB, BATCH)}))
    assert path.stat().st_size < MIB
    assert error(path) == (
        "a.parquet, row 1: damaged or too large when decoded: 256 rows take 512 MiB, more than 256; "
        "split or shorten the texts"
    )


def test_a_cell_that_is_too_large_is_refused_where_it_stands(tmp_path: Path) -> None:
    path = save(tmp_path, pa.table({"ok": ["a"] * 600, "text": ["b"] * 599 + ["x" * (16 * MIB + 1)]}))
    assert error(path) == (
        "a.parquet, row 513: damaged or too large when decoded: a value in column 'text' takes more than 16 MiB; "
        "split or shorten the text"
    )


@LIMITED
@pytest.mark.parametrize("dictionary", [False, True])
def test_what_the_child_cannot_hold_ends_it(tmp_path: Path, dictionary: bool) -> None:
    text = "x" * 15 * MIB
    indices = pa.array([0] * BATCH)
    column = pa.DictionaryArray.from_arrays(indices, [text]) if dictionary else repeated(text, 120)
    message = error(save(tmp_path, pa.table({"text": column})))
    assert message.startswith("a.parquet, row 1: damaged or too large when decoded: ")
    assert "it needs more than 1.5 GiB of memory" in message


def test_a_list_of_many_small_values_counts_what_they_become(tmp_path: Path) -> None:
    values = pa.array([True]).take(pa.array([0] * 9_000_000))
    path = save(tmp_path, pa.table({"x": pa.ListArray.from_arrays([0, 9_000_000], values)}))
    assert values.nbytes < 2 * MIB
    assert MAX_BATCH < 9_000_000 * 32
    assert "1 rows take 275 MiB, more than 256" in error(path)


# ---- damaged files, children that die, parents that leave


def test_a_file_damaged_inside(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text {n}" for n in range(3000)]})
    path = save(tmp_path, table, row_group_size=2048)
    raw = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    raw[start : start + 64] = b"\xff" * 64
    path.write_bytes(raw)
    assert len(read_schemas([path])) == 1
    message = error(path)
    assert message.startswith("a.parquet, row 2049: damaged or too large when decoded: ")
    assert message.endswith("; copy or write the file again")


def long_file(folder: Path) -> Path:
    return save(folder, pa.table({"text": repeated("x" * 20_000, 20_000)}))


@pytest.mark.parametrize("when", [signal.SIGKILL, signal.SIGABRT])
def test_a_child_that_is_killed_is_an_error_and_no_end(tmp_path: Path, when: signal.Signals) -> None:
    batches = read_batches(long_file(tmp_path))
    next(batches)
    [child] = psutil.Process().children()
    child.send_signal(when)
    with pytest.raises(DataError, match=rf"damaged or too large when decoded: its reader was ended by signal {when:d}"):
        for _ in batches:
            pass


def test_a_child_ends_when_its_rows_are_wanted_no_more(tmp_path: Path) -> None:
    batches = read_batches(long_file(tmp_path))
    next(batches)
    [child] = psutil.Process().children()
    batches.close()
    assert not child.is_running()


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time, psutil\nfrom pathlib import Path\nfrom pipelines.bulk.parquet_rows import read_batches\n"
        "batches = read_batches(Path(sys.argv[1]))\nnext(batches)\n"
        "print(psutil.Process().children()[0].pid, flush=True)\ntime.sleep(60)"
    )
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", script, str(long_file(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_the_child_is_light_and_the_package_imports_nothing() -> None:
    script = (
        "import sys, pipelines.bulk; assert 'pyarrow' not in sys.modules; import pipelines.bulk.parquet_rows; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'datasets', 'pandas', 'transformers'}))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "[]\n"


@LIMITED
def test_the_limit_is_set_in_the_child_alone(tmp_path: Path) -> None:
    batches = read_batches(long_file(tmp_path))
    next(batches)
    [child] = psutil.Process().children()
    assert child.rlimit(psutil.RLIMIT_AS)[0] == parquet_rows.MEMORY == int(1.5 * 2**30)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != parquet_rows.MEMORY
    batches.close()
