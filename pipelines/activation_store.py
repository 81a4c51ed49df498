"""Hidden states on disk, by (fingerprint of the layers, content of the item).

::

    ROOT/                            one tenant's
        FINGERPRINT/                 one trunk, depth and numeric backend
            trunk.json               what the fingerprint is made of, for a reader
            DIGEST.safetensors       some items: states (tokens, D) in bf16, lengths (N,), keys (N, 16)

A file is complete or absent: it is written under another name, synced and renamed. Its name is its digest, checked
before it is used, so a torn or changed file is found and dropped, and two processes that compute the same items write
the same file. Files are memory-mapped and never changed; one that is deleted while in use stays readable.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pipelines.durable import sync, write_json
from pipelines.errors import StoreError

KEY_BYTES = 16
LEFTOVER_S = 3600  # age from which an unfinished file belongs to a process that is gone
PROBE_BYTES = 8 << 20
RESERVE_BYTES = 1 << 30  # of the disk, left to others
_UNFINISHED = ".unfinished-"


class States:
    """Hidden states of some items: (T, D) in bf16 for every key, as views of mapped files."""

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}  # part, first row, rows

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def __getitem__(self, key: bytes) -> torch.Tensor:
        part, first, rows = self._places[key]
        return self._parts[part][first : first + rows]

    def __len__(self) -> int:
        return len(self._places)

    def add(self, keys: Sequence[bytes], lengths: Sequence[int], states: torch.Tensor, wanted: set[bytes]) -> None:
        first, part = 0, len(self._parts)
        own = {}
        for key, length in zip(keys, lengths, strict=True):
            if key in wanted:
                own[key] = (part, first, length)
            first += length
        if own:
            self._parts.append(states)
            self._places |= own


class ActivationStore:
    """The files below one root.

    Args:
        root: one tenant's; made when something is written.
        most_bytes: of all files together; those that were not used for longest are dropped first.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self.root = root
        self.most_bytes = most_bytes
        self._used: set[Path] = set()  # files that this process has written or read

    def read(self, fingerprint: str, keys: Iterable[bytes]) -> States:
        """Whatever of these items is kept. A damaged file is dropped and counts as absent; files without any of the
        items are not looked at further, so that they may be dropped when room is needed.
        """
        wanted, states = set(keys), States()
        for path in _listed(self.root / fingerprint, "*.safetensors"):
            try:
                with safe_open(path, framework="pt") as file:
                    names = file.get_tensor("keys").numpy().tobytes()
                    found = [names[i : i + KEY_BYTES] for i in range(0, len(names), KEY_BYTES)]
                    if wanted.isdisjoint(found):
                        continue
                    self._check(path)
                    lengths, rows = file.get_tensor("lengths").tolist(), file.get_tensor("states")
                states.add(found, lengths, rows, wanted)
            except OSError:
                continue  # dropped by another process, or out of reach: absent, but not for us to delete
            except (SafetensorError, KeyError, ValueError):
                _delete(path)
        return states

    def write(
        self, fingerprint: str, ingredients: dict[str, Any], keys: Sequence[bytes], states: Sequence[torch.Tensor]
    ) -> None:
        """Keep N items: a key and states (T, D) each.

        Raises:
            StoreError: they cannot be kept. Nothing half-written stays.
        """
        folder = self.root / fingerprint
        unfinished = folder / f"{_UNFINISHED}{os.getpid()}-{time.monotonic_ns()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._make_room(sum(item.nbytes for item in states), folder)
            if not (folder / "trunk.json").exists():
                write_json(unfinished, ingredients)
                unfinished.rename(folder / "trunk.json")
            lengths = torch.tensor([len(item) for item in states], dtype=torch.int32)
            names = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(-1, KEY_BYTES)
            save_file({"states": torch.cat(list(states)), "lengths": lengths, "keys": names}, unfinished)
            sync(unfinished)
            path = folder / f"{_digest(unfinished)}.safetensors"
            unfinished.rename(path)
            sync(folder)
        except (OSError, SafetensorError) as error:
            _delete(unfinished)
            raise StoreError(f"{folder}: hidden states cannot be kept: {_reason(error)}") from None
        self._used.add(path)

    def refuse(self, size: int) -> str | None:
        """Why files of this size, in bytes, cannot be kept; None if they can."""
        if size > self.most_bytes:
            return f"they need {size / 2**30:.1f} GiB, the store may hold {self.most_bytes / 2**30:.1f}"
        try:
            existing = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
            free = shutil.disk_usage(existing).free
        except OSError as error:
            return f"{self.root}: {_reason(error)}"
        if size + RESERVE_BYTES > free + self.size():
            return f"they need {size / 2**30:.1f} GiB, the disk has {free / 2**30:.1f} free"
        return None

    def seconds_per_byte(self) -> tuple[float, float]:
        """How long writing and reading take on this disk, measured with a small file. Raises StoreError."""
        path = self.root / f"{_UNFINISHED}{os.getpid()}-{time.monotonic_ns()}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = os.urandom(PROBE_BYTES)
            started = time.perf_counter()
            path.write_bytes(probe)
            sync(path)
            written = time.perf_counter()
            _forget(path)
            again = time.perf_counter()
            path.read_bytes()
            return (written - started) / PROBE_BYTES, (time.perf_counter() - again) / PROBE_BYTES
        except OSError as error:
            raise StoreError(f"{self.root}: hidden states cannot be kept: {_reason(error)}") from None
        finally:
            _delete(path)

    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size, _ in self._all())

    def _check(self, path: Path) -> None:
        """Compare a file with its digest, once in this process, and note its use. Raises ValueError."""
        if path not in self._used and _digest(path) != path.stem:
            raise ValueError("its bytes are not those that were written")
        self._used.add(path)
        _touch(path)

    def _make_room(self, size: int, own: Path) -> None:
        """Drop what was not used for longest, but nothing that this process uses, and nothing if it would not do."""
        files = sorted(self._all(), key=lambda file: file[2])
        over_limit = sum(file[1] for file in files) + size - self.most_bytes
        over_disk = size + RESERVE_BYTES - shutil.disk_usage(own).free
        free = [
            (path, bytes_)
            for path, bytes_, _ in files
            if path not in self._used and not path.name.startswith(_UNFINISHED)  # another process is writing that
        ]
        if max(over_limit, over_disk) > sum(bytes_ for _, bytes_ in free):
            why = f"the store may hold {self.most_bytes / 2**30:.1f} GiB, and this data needs more"
            raise OSError(why if over_limit >= over_disk else "no space left on the disk but a reserve for others")
        dropped = 0
        for path, bytes_ in free:
            if dropped >= max(over_limit, over_disk):
                return
            _delete(path)
            dropped += bytes_
            if path.parent != own and not _listed(path.parent, "*.safetensors"):
                _delete(path.parent / "trunk.json")

    def _all(self) -> Iterator[tuple[Path, int, float]]:
        """Path, bytes and time of last use of every file; leftovers of killed processes are deleted on the way."""
        for path in [*_listed(self.root, "*/*"), *_listed(self.root, f"{_UNFINISHED}*")]:
            try:
                status = path.stat()
            except OSError:
                continue
            if path.name.startswith(_UNFINISHED) and time.time() - status.st_mtime > LEFTOVER_S:
                _delete(path)
            elif path.suffix == ".safetensors" or path.name.startswith(_UNFINISHED):
                yield path, status.st_size, status.st_mtime


def _listed(folder: Path, pattern: str) -> list[Path]:
    """Files that fit a pattern; none where the folder is out of reach."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _forget(path: Path) -> None:
    """Ask the system to drop a file from its cache, so that reading it is reading the disk."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _touch(path: Path) -> None:
    """Note the use; a store that may only be read is used all the same."""
    try:
        os.utime(path)
    except OSError:
        return


def _delete(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        return


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
