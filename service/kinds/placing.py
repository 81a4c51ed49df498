"""Moving what an attempt made to where it stays."""

from __future__ import annotations

from pathlib import Path

from pipelines.durable import sync
from service.files import Stored, store
from service.kinds.base import Task


def place_directory(made: Path, target: Path) -> None:
    """Rename a complete directory; an earlier try may have done it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        made.rename(target)
    sync(target.parent)


def place_file(task: Task, made: Path) -> Stored:
    """Copy a file into the tenant's files."""
    with made.open("rb") as content:
        return store(task.settings, task.job.tenant_id, content)
