"""Jobs as pages say them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service import jobs
from service.database import Scope
from service.tables import File, Job

KINDS = {
    "fine-tune": "Classifier",
    "compare": "Comparison",
    "batch": "Batch",
    "table": "Batch",
    "columns": "Columns",
    "check": "Data check",
    "probe": "Hidden layers",
    "estimate": "Estimate",
    "explain": "Explanation",
}
STATES = {
    "queued": "Waiting",
    "validating": "Reading the data",
    "running": "Running",
    "publishing": "Finishing",
    "paused": "Paused",
    "succeeded": "Done",
    "failed": "Failed",
    "cancelled": "Cancelled",
}
IN_PLACE: tuple[jobs.Kind, ...] = ("columns", "estimate")  # shown by the form that asked for them
LIVE = (*jobs.ACTIVE, "paused")  # still to come to an end
MOVES = {  # and what their buttons say
    "cancel": "Cancel",
    "pause": "Pause",
    "resume": "Resume",
    "retry": "Try again",
}


@dataclass(frozen=True)
class ShownJob:
    """One job for a template.

    Attributes:
        share: done, 0 to 1; None where that is not known.
        note: how far it is, in words.
        moves: (name, button).
    """

    id: str
    what: str
    title: str
    status: str
    state: str
    live: bool
    share: float | None
    note: str
    error: str
    created_at: float
    seconds: float | None
    moves: tuple[tuple[str, str], ...]


def shown_jobs(scope: Scope, rows: Sequence[Job]) -> list[ShownJob]:
    """Jobs with the names of their files."""
    ids = {id for row in rows for id in [file_of(row)] if id is not None}
    named = scope.select(File).where(File.id.in_(ids)).with_only_columns(File.id, File.filename)
    names = dict(row for row in scope.session.execute(named)) if ids else {}
    return [shown(row, names) for row in rows]


def file_of(job: Job) -> str | None:
    """Id of the file that a job is about."""
    found = next(filter(None, map(job.request.get, ("training_file", "file_id", "input_file_id"))), None)
    return None if found is None else str(found)


def shown(job: Job, names: Mapping[str, str]) -> ShownJob:
    state = "Stopping" if job.stopping else STATES[job.status]
    live = job.status in LIVE or job.stopping
    ended = job.finished_at if job.status in jobs.FINAL else None
    return ShownJob(
        id=job.id,
        what=KINDS[job.kind],
        title=_title(job, names),
        status=job.status,
        state=state,
        live=live,
        share=_share(job),
        note=_note(job),
        error=(job.error or {}).get("message", ""),
        created_at=job.created_at,
        seconds=(ended or time.time()) - job.started_at if job.started_at is not None else None,
        moves=tuple((name, text) for name, text in MOVES.items() if _allowed(name, job)),
    )


def live_jobs(scope: Scope, most: int, *conditions: sa.ColumnElement[bool]) -> list[Job]:
    """Those that are still to come to an end, the newest first; not those that a form shows."""
    going = sa.or_(Job.status.in_(LIVE), Job.stopping)
    live = scope.select(Job).where(going, Job.kind.not_in(IN_PLACE), *conditions).order_by(Job.seq.desc())
    return list(scope.session.scalars(live.limit(most)))


def _title(job: Job, names: Mapping[str, str]) -> str:
    own = job.request.get("suffix")
    file = names.get(file_of(job) or "", "")
    return " · ".join(filter(None, [own, file])) or str(job.request.get("model") or job.id)


def _allowed(move: str, job: Job) -> bool:
    if move == "cancel":
        return job.status in LIVE
    if job.kind != "fine-tune":
        return False
    return job.status in {"pause": jobs.ACTIVE, "resume": ("paused",), "retry": ("failed",)}[move]


def _share(job: Job) -> float | None:
    if job.status == "succeeded":
        return 1.0
    done, total = job.progress.get("steps_completed"), job.progress.get("total_steps")
    return min(1.0, done / total) if done is not None and total else None


def _note(job: Job) -> str:
    said: list[str] = []
    progress: dict[str, Any] = job.progress
    if progress.get("total_steps"):
        said.append(f"{progress.get('steps_completed', 0):,} of {progress['total_steps']:,} steps")
    if progress.get("rows"):
        said.append(f"{progress['rows']:,} rows")
        if progress.get("row_errors"):
            said.append(f"{progress['row_errors']:,} with errors")
    finish = progress.get("finish_at")
    if finish is not None and job.status == "running" and finish > time.time():
        said.append(f"about {max(1, round((finish - time.time()) / 60))} min left")
    return ", ".join(said)
