"""Files of a tenant: content under its SHA-256, never under a name that a user sent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import sqlalchemy as sa
from sqlalchemy.orm import Session

from pipelines.durable import sync
from service.database import Scope
from service.errors import ApiError
from service.ids import new_id
from service.settings import ServiceSettings
from service.tables import File

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")  # that a client may upload for
RESERVE = 64 << 20  # bytes of disk that stay free
BLOCK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """Content that is durable on disk."""

    sha256: str
    bytes: int


def store(settings: ServiceSettings, tenant_id: str, content: IO[bytes]) -> Stored:
    """Copy content into the tenant's folder, durably. Raises ApiError 507 for a full disk."""
    folder = _folder(settings, tenant_id)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{new_id('upload_')}"
    try:
        with temporary.open("xb") as file:
            stored = _copy(content, file, folder)
            file.flush()
            os.fsync(file.fileno())
        with _alone(folder):
            temporary.replace(folder / stored.sha256)
        sync(folder)
        return stored
    except OSError as error:
        raise ApiError(507, f"There is no room for this file: {error.strerror}", "insufficient_storage") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def path_of(settings: ServiceSettings, file: File) -> Path:
    """Where the content lies."""
    return _folder(settings, file.tenant_id) / file.sha256


def add_file(scope: Scope, stored: Stored, filename: str, purpose: str, expires_at: float | None = None) -> File:
    """A file object for content that is stored."""
    file = File(
        id=new_id("file-"),
        filename=base_name(filename),
        purpose=purpose,
        bytes=stored.bytes,
        sha256=stored.sha256,
        expires_at=expires_at,
    )
    scope.add(file)
    scope.session.flush()
    return file


def get_file(scope: Scope, id: str) -> File | None:
    """The file, unless it was deleted or has expired."""
    file = scope.get(File, id)
    return file if file is not None and _live(file) else None


def delete_file(scope: Scope, file: File) -> None:
    """From now on it does not exist; `leftovers` removes content that no file names."""
    file.deleted_at = time.time()
    scope.session.flush()


def expired(session: Session) -> list[File]:
    """Files whose time is over and that nobody deleted yet, of all tenants: for `leftovers`."""
    over = sa.select(File).where(File.deleted_at.is_(None), File.expires_at < time.time())
    return list(session.scalars(over.limit(1000)))


def unnamed_content(settings: ServiceSettings, session: Session) -> dict[Path, int]:
    """Content that no live file names, and uploads that never ended, each with the time of its last change, in ns."""
    named = sa.select(File.tenant_id, File.sha256).where(File.deleted_at.is_(None))
    live = {(tenant, sha256) for tenant, sha256 in session.execute(named)}
    found = {}
    for path in settings.data_dir.glob("tenants/*/files/*"):
        with suppress(FileNotFoundError):  # an upload that has just ended
            if (path.parts[-3], path.name) not in live:
                found[path] = path.stat().st_mtime_ns
    return found


def remove_content(path: Path, changed: int) -> None:
    """Delete content unless it was stored anew after it was `changed`: a file may be about to name it."""
    with suppress(FileNotFoundError), _alone(path.parent):
        if path.stat().st_mtime_ns == changed:
            path.unlink()


def base_name(filename: str) -> str:
    """The last part: clients send whole paths (the 1.x command line of openai does)."""
    name = PureWindowsPath(PurePosixPath(filename).name).name
    printable = "".join(c for c in name if c.isprintable())[:255]
    return printable or "upload"


def _live(file: File) -> bool:
    return file.deleted_at is None and (file.expires_at is None or file.expires_at > time.time())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within it no other process puts content into this folder or takes it out."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _folder(settings: ServiceSettings, tenant_id: str) -> Path:
    return settings.tenant_dir(tenant_id) / "files"


def _copy(content: IO[bytes], file: IO[bytes], folder: Path) -> Stored:
    digest, size = hashlib.sha256(), 0
    while block := content.read(BLOCK):
        if size % (64 * BLOCK) == 0 and shutil.disk_usage(folder).free < RESERVE + len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        digest.update(block)
        size += file.write(block)
    return Stored(digest.hexdigest(), size)
