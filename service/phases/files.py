"""The layout of a job's folder, as its child sees it: `FOLDER/../plan` and `FOLDER/work`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.durable import discard, sync


@contextmanager
def planning(folder: Path) -> Iterator[Path]:
    """A directory that becomes the job's plan when it is complete; an earlier attempt's plan is as good."""
    staging = folder / "plan"
    discard(staging)
    staging.mkdir()
    yield staging
    for path in staging.iterdir():
        sync(path)
    sync(staging)
    target = plan_of(folder)
    if target.exists():
        discard(staging)
    else:
        staging.rename(target)
    sync(folder.parent)


def plan_of(folder: Path) -> Path:
    """The job's plan."""
    return folder.parent / "plan"


def work_of(folder: Path) -> Path:
    """Where this attempt works; it begins with a copy of what the attempt before it kept."""
    return folder / "work"
