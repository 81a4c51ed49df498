"""Files of the store: complete or absent, found by key, checked, bounded, shared, never in the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines import activation_store
from pipelines.activation_store import LEFTOVER_S, ActivationStore
from pipelines.errors import StoreError

D = 8
FINGERPRINT = "f" * 32


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def item(number: int, length: int | None = None) -> torch.Tensor:
    """States (T, D) that no other item has."""
    states = torch.arange((length or number + 1) * D).reshape(-1, D)
    return (states / 7 + number).to(torch.bfloat16)


def keep(store: ActivationStore, numbers: range, fingerprint: str = FINGERPRINT) -> Path:
    """Write some items; the new file."""
    before = set(store.root.glob("*/*.safetensors"))
    store.write(fingerprint, {"depth": 2}, [key(n) for n in numbers], [item(n) for n in numbers])
    (new,) = set(store.root.glob("*/*.safetensors")) - before
    return new


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "store", 1 << 20)


def found(store: ActivationStore, numbers: range, fingerprint: str = FINGERPRINT) -> list[int]:
    """Which of these items the store has, bit for bit as written."""
    states = store.read(fingerprint, [key(n) for n in numbers])
    have = [n for n in numbers if key(n) in states]
    assert all(torch.equal(states[key(n)], item(n)) for n in have)
    assert len(states) == len(have)
    return have


def test_items_come_back_bit_for_bit_from_several_files(store: ActivationStore) -> None:
    keep(store, range(5))
    keep(store, range(5, 9))
    assert found(store, range(3, 12)) == [3, 4, 5, 6, 7, 8]
    assert found(ActivationStore(store.root, 1), range(3, 12)) == [3, 4, 5, 6, 7, 8]  # another process
    assert found(store, range(9), "0" * 32) == []


def test_a_folder_says_what_its_fingerprint_is_made_of(store: ActivationStore) -> None:
    folder = keep(store, range(3)).parent
    assert json.loads((folder / "trunk.json").read_text()) == {"depth": 2}


def test_files_are_mapped_and_stay_readable_when_deleted(store: ActivationStore) -> None:
    keep(store, range(4))
    states = store.read(FINGERPRINT, [key(3)])
    shutil.rmtree(store.root)
    assert torch.equal(states[key(3)], item(3))


def test_the_disk_holds_little_more_than_the_states(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, 1 << 30)
    states = [torch.zeros(20, 384, dtype=torch.bfloat16) for _ in range(200)]
    store.write(FINGERPRINT, {}, [key(n) for n in range(200)], states)
    assert store.size() <= 1.02 * 2 * 384 * 20 * 200


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "longer", "empty", "another file's bytes"])
def test_a_damaged_file_counts_as_absent_and_is_dropped(damage: str, store: ActivationStore) -> None:
    path, other = keep(store, range(5)), keep(store, range(5, 9))
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[-3] ^= 1
    changed = {
        "flipped bit": bytes(content),
        "cut short": bytes(content[:-100]),
        "longer": bytes(content) + b"x",
        "empty": b"",
        "another file's bytes": other.read_bytes(),
    }[damage]
    path.write_bytes(changed)
    fresh = ActivationStore(store.root, 1 << 20)
    assert found(fresh, range(9)) == [5, 6, 7, 8]
    assert not path.exists()
    keep(fresh, range(5))
    assert found(fresh, range(9)) == list(range(9))


def test_two_processes_that_write_the_same_items_leave_one_file(store: ActivationStore) -> None:
    keep(store, range(5))
    other = ActivationStore(store.root, 1 << 20)
    other.write(FINGERPRINT, {}, [key(n) for n in range(5)], [item(n) for n in range(5)])
    assert len(list(store.root.glob("*/*.safetensors"))) == 1
    assert found(other, range(5)) == list(range(5))


def test_what_was_not_used_for_longest_is_dropped_first(tmp_path: Path) -> None:
    size = keep(ActivationStore(tmp_path / "probe", 1 << 20), range(20)).stat().st_size
    root = tmp_path / "store"
    for age, fingerprint in ((300, "a" * 32), (200, "b" * 32), (100, "c" * 32)):
        path = keep(ActivationStore(root, 1 << 20), range(20), fingerprint)
        os.utime(path, (time.time() - age,) * 2)
    found(ActivationStore(root, 1 << 20), range(20), "a" * 32)  # used just now
    keep(ActivationStore(root, 3 * size + 100), range(20), "d" * 32)
    have = {name for name in "abcd" if found(ActivationStore(root, 1 << 20), range(20), name * 32)}
    assert have == {"a", "c", "d"}


def test_what_this_process_uses_is_never_dropped(tmp_path: Path) -> None:
    size = keep(ActivationStore(tmp_path / "probe", 1 << 20), range(20)).stat().st_size
    store = ActivationStore(tmp_path / "store", 2 * size + 100)
    keep(store, range(20))
    keep(store, range(20, 22))
    with pytest.raises(StoreError, match=r"the store may hold .* GiB, and this data needs more"):
        keep(store, range(22, 50))
    assert found(store, range(50)) == list(range(22))


def test_what_another_process_is_writing_is_never_dropped(tmp_path: Path) -> None:
    size = keep(ActivationStore(tmp_path / "probe", 1 << 20), range(20)).stat().st_size
    root = tmp_path / "store"
    old = keep(ActivationStore(root, 1 << 20), range(20))
    unfinished = old.with_name(".unfinished-1-1")
    unfinished.write_bytes(bytes(size))
    os.utime(old, (time.time() - 100,) * 2)
    os.utime(unfinished, (time.time() - 200,) * 2)
    keep(ActivationStore(root, 2 * size + 100), range(20), "b" * 32)
    assert unfinished.exists()
    assert not old.exists()


def test_other_data_of_the_same_trunk_makes_room(tmp_path: Path) -> None:
    """Data sets come and go under one fingerprint; what this process has no use for may be dropped."""
    size = keep(ActivationStore(tmp_path / "probe", 1 << 20), range(20)).stat().st_size
    root, limit = tmp_path / "store", 2 * size + 100
    os.utime(keep(ActivationStore(root, limit), range(20)), (1, 1))
    second = ActivationStore(root, limit)
    assert found(second, range(100, 103)) == []
    keep(second, range(20, 24))
    keep(second, range(24, 36))
    assert found(ActivationStore(root, limit), range(40)) == list(range(20, 36))


def test_nothing_is_dropped_where_that_would_not_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "store"
    keep(ActivationStore(root, 1 << 20), range(20))
    with pytest.raises(StoreError, match="this data needs more"):
        keep(ActivationStore(root, 500), range(20, 40))
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=1000))
    with pytest.raises(StoreError, match="no space left on the disk but a reserve for others"):
        keep(ActivationStore(root, 1 << 20), range(20, 40))
    assert found(ActivationStore(root, 1 << 20), range(20)) == list(range(20))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_file_that_cannot_be_read_now_is_not_deleted(
    number: int, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, range(3))

    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(activation_store, "_digest", failing)
        assert found(ActivationStore(store.root, 1 << 20), range(3)) == []
    assert found(ActivationStore(store.root, 1 << 20), range(3)) == [0, 1, 2]


def test_a_path_that_no_system_takes_is_a_reason_and_no_traceback(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path / ("x" * 300), 1 << 20)
    assert found(store, range(3)) == []
    assert store.size() == 0
    assert "File name too long" in str(store.refuse(10))
    with pytest.raises(StoreError, match="File name too long"):
        store.write(FINGERPRINT, {}, [key(1)], [item(1)])


def test_the_description_is_whole_or_absent(store: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def torn(path: Path, _: object) -> None:
        path.write_text('{"de')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(activation_store, "write_json", torn)
        with pytest.raises(StoreError):
            keep(store, range(3))
    assert not [path for path in store.root.glob("*/*") if path.is_file()]
    assert json.loads((keep(store, range(3)).parent / "trunk.json").read_text()) == {"depth": 2}


def test_leftovers_of_killed_processes_are_deleted_when_they_are_old(store: ActivationStore) -> None:
    folder = keep(store, range(3)).parent
    old, new = folder / ".unfinished-1-1", folder / ".unfinished-2-2"
    for path, age in ((old, LEFTOVER_S + 10), (new, 10)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    keep(store, range(3, 5))
    assert not old.exists()
    assert new.exists()
    assert found(ActivationStore(store.root, 1 << 20), range(9)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("step", ["save_file", "sync", "rename"])
def test_a_full_disk_leaves_nothing_half_written(
    step: str, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, range(3))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((Path, "rename", full) if step == "rename" else (activation_store, step, full)))
        with pytest.raises(StoreError, match="hidden states cannot be kept: No space left on device"):
            keep(store, range(3, 6))
    assert [path.suffix for path in store.root.glob("*/*")].count(".safetensors") == 1
    assert not list(store.root.glob("*/.unfinished*"))
    assert found(ActivationStore(store.root, 1 << 20), range(9)) == [0, 1, 2]


FILL = """
import resource, sys
from pathlib import Path
from pipelines.errors import StoreError
from tests.pipelines.test_activation_store import ActivationStore, keep
store = ActivationStore(Path(sys.argv[1]), 1 << 30)
keep(store, range(3))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    keep(store, range(3, 60))
except StoreError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_halfway_leaves_nothing(tmp_path: Path) -> None:
    """A real one: files may have 4 KiB at most, the system cuts the write there."""
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "hidden states cannot be kept: " in done.stdout, done.stderr
    assert not list(tmp_path.glob("*/.unfinished*"))
    assert found(ActivationStore(tmp_path, 1 << 20), range(60)) == [0, 1, 2]


def test_a_root_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    store = ActivationStore(tmp_path / "file/store", 1 << 20)
    for attempt in (lambda: keep(store, range(3)), store.seconds_per_byte):
        with pytest.raises(StoreError, match=r"file/store.*: hidden states cannot be kept: Not a directory"):
            attempt()
    assert found(store, range(3)) == []


def test_a_store_that_is_deleted_meanwhile_is_made_anew(store: ActivationStore) -> None:
    keep(store, range(3))
    shutil.rmtree(store.root)
    assert found(store, range(3)) == []
    keep(store, range(3))
    assert found(store, range(3)) == [0, 1, 2]


def test_more_than_the_limit_is_refused_before_anything_is_computed(store: ActivationStore) -> None:
    assert store.refuse(1 << 20) is None
    assert store.refuse(3 << 30) == "they need 3.0 GiB, the store may hold 0.0"
    large = ActivationStore(store.root, 1 << 60)
    assert str(large.refuse(1 << 59)).startswith("they need 536870912.0 GiB, the disk has ")


def test_speeds_are_measured_and_leave_nothing(store: ActivationStore) -> None:
    write, read = store.seconds_per_byte()
    assert 0 < write < 1e-3
    assert 0 < read < 1e-3
    assert not list(store.root.iterdir())


def test_a_file_holds_what_its_layout_says(store: ActivationStore) -> None:
    tensors = load_file(keep(store, range(2, 5)))
    assert tensors["lengths"].tolist() == [3, 4, 5]
    assert tensors["states"].shape == (12, D)
    assert tensors["states"].dtype == torch.bfloat16
    assert tensors["keys"].shape == (3, 16)
