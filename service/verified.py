"""Bytes are served only if they are still those that were written: a disk, or a half-restored backup, may differ."""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from pathlib import Path

from pipelines.durable import read_manifest
from pipelines.errors import RunDirectoryError
from pipelines.weights import sha256_file
from service.errors import ApiError

KNOWN = 4096  # files whose digest is remembered until they change
KNOWN_S = 3600.0  # or for so long: a disk changes bits without a trace
log = logging.getLogger(__name__)


def is_intact(path: Path, sha256: str) -> bool:
    """Whether a file is there and its content has this digest."""
    try:
        status = path.stat()
        since = int(time.monotonic() // KNOWN_S)
        return _digest(path, status.st_ino, status.st_size, status.st_mtime_ns, since) == sha256
    except OSError:
        return False


def intact(path: Path, sha256: str, name: str) -> Path:
    """The same path. Raises ApiError 500, which calls the file `name`, where its content is not that of the digest."""
    if not is_intact(path, sha256):
        raise _damaged(name, f"the sha256 of {path} is not {sha256}")
    return path


def intact_in(folder: Path, name: str) -> Path:
    """A file of a published directory. Raises ApiError 500 where it is not as its manifest says."""
    try:
        sha256 = read_manifest(folder)["sha256"].get(name)
    except RunDirectoryError as error:
        raise _damaged(name, str(error)) from None
    return intact(folder / name, str(sha256), name)


def _damaged(name: str, why: str) -> ApiError:
    """Only the operator, who can repair it, learns why."""
    log.error("%s is damaged or gone: %s", name, why)
    message = f"{name[:64]} is damaged on the server's disk, so it is not served; restore it, or make it anew"
    return ApiError(500, message, "artifact_damaged", headers={"x-should-retry": "false"})


@lru_cache(KNOWN)
def _digest(path: Path, inode: int, size: int, changed: int, since: int) -> str:  # noqa: ARG001  # is it the same?
    return sha256_file(path)
