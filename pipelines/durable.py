"""Directories that are complete or absent, whatever is killed when.

A directory is staged under another name; its files are synced; `manifest.json`, with the sha256 of every file, is
written last; then one rename makes it visible. Readers accept only directories with a manifest.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.errors import RunDirectoryError
from pipelines.weights import sha256_file

MANIFEST = "manifest.json"


def publish(staging: Path, target: Path, details: dict[str, Any]) -> None:
    """Complete `staging` with a manifest that also holds `details`, and rename it to `target`, which must not exist."""
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    digests = {path.relative_to(staging).as_posix(): sha256_file(path) for path in files}
    write_json(staging / MANIFEST, details | {"sha256": digests})
    for path in [*files, staging / MANIFEST]:
        sync(path)
    for path in sorted((p for p in staging.rglob("*") if p.is_dir()), reverse=True):
        sync(path)
    sync(staging)
    staging.rename(target)
    sync(target.parent)


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a published directory against its manifest, and return the manifest.

    Raises:
        RunDirectoryError: no manifest, or a file that is missing or changed.
    """
    manifest = read_manifest(path)
    for name, digest in manifest["sha256"].items():
        file = path / name
        if not file.is_file():
            raise RunDirectoryError(f"{path}: the file {name} is missing")
        if sha256_file(file) != digest:
            raise RunDirectoryError(f"{path}: the file {name} was changed after it was written (sha256 differs)")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a directory. Raises RunDirectoryError where there is none: the directory is not complete."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "no such directory" if not path.is_dir() else f"not a complete run directory ({MANIFEST} is missing)"
        raise RunDirectoryError(f"{path}: {what}") from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}/{MANIFEST}: cannot be read: {error}") from None
    if not (isinstance(manifest, dict) and isinstance(manifest.get("sha256"), dict)):
        raise RunDirectoryError(f"{path}/{MANIFEST}: not a run's manifest: it lacks the sha256 of the files")
    return manifest


def discard(path: Path) -> None:
    """Delete a directory so that it is never seen half-deleted under its own name."""
    for leftover in path.parent.glob(f".trash-{glob.escape(path.name)}-*"):  # of a process that was killed at it
        shutil.rmtree(leftover, ignore_errors=True)
    trash = path.with_name(f".trash-{path.name}-{os.getpid()}")
    try:
        path.rename(trash)
    except FileNotFoundError:
        return
    shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A hidden directory beside `target`, this process's own; what is not published from it is discarded.

    Raises:
        RunDirectoryError: another process is at it, or nothing can be written there.
    """
    work = target.with_name(f".{target.name}.unfinished")
    lock = FileLock(f"{work}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        discard(work)  # of a process that was killed
        work.mkdir()
    except Timeout:
        raise RunDirectoryError(f"{target}: another process is writing this directory") from None
    except OSError as error:
        raise RunDirectoryError(f"{target}: cannot be written: {error.strerror}") from None
    try:
        yield work
    finally:
        discard(work)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def write_json(path: Path, value: Any) -> None:
    """Readable JSON without NaN, ending in a line end."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def sync(path: Path) -> None:
    """Flush a file or directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
