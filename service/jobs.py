"""A job's states, and the moves between them that are allowed.

::

    queued -> validating -> running -> publishing -> succeeded
      ^          |             |           |
      |          +-------------+-----------+--> failed      (retry: back to queued, under the same id)
      +- resume -+- paused <---+-----------+
                 +- cancelled: at once; its process saves a checkpoint and ends

What a worker writes names its attempt, in the same transaction: an attempt that is no longer the newest, or whose job
was stopped, writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.database import Scope
from service.errors import ApiError, invalid
from service.ids import new_id
from service.tables import Job, JobCheckpoint, JobEvent

Kind = Literal["fine-tune", "compare", "batch", "table", "columns", "check", "probe", "estimate", "explain"]
PREFIXES: dict[Kind, str] = {
    "fine-tune": "ftjob-",
    "compare": "cmp_",
    "batch": "batch_",
    "table": "batch_",
    "columns": "columns_",
    "check": "check_",
    "probe": "probe_",
    "estimate": "estimate_",
    "explain": "explain_",
}
QUICK: tuple[Kind, ...] = ("columns", "check", "estimate", "explain")  # people wait for these before they decide
ACTIVE = ("queued", "validating", "running", "publishing")  # a worker may take these
FINAL = ("succeeded", "failed", "cancelled")
IDLE_ATTEMPTS = 20  # in a row without a checkpoint, while others lived: the job itself ends its workers
PRIORITY = 1000  # of a job that asks for none; lower goes first within a tenant


class Fenced(Exception):
    """This attempt is over: a newer one exists, or the job was stopped."""


# ---- what callers do


def create(scope: Scope, kind: Kind, request: dict[str, Any], labels: dict[str, str], priority: int = PRIORITY) -> Job:
    """A queued job. The caller also hands it to the engine, in the same transaction."""
    job = Job(
        id=new_id(PREFIXES[kind]), kind=kind, status="queued", priority=priority, request=request, labels=labels,
        progress={}, attempt=0, idle_attempts=0, stopping=False,
    )  # fmt: skip
    scope.add(job)
    scope.session.flush()
    _event(scope.session, job, "Job is queued.")
    return job


def queue_of(id: str) -> str:
    """The engine's queue for a job: what people wait for has one of its own."""
    return "quick" if id.startswith(tuple(PREFIXES[kind] for kind in QUICK)) else "jobs"


def get(scope: Scope, id: str, *kinds: Kind, lock: bool = False) -> Job | None:
    """The tenant's job, if it is of one of these kinds; locked for a move, which a worker may want at the same time."""
    job = scope.get(Job, id, lock=lock)
    return job if job is not None and job.kind in kinds else None


def cancel(session: Session, job: Job) -> None:
    """From now on nothing of it can be published. Raises ApiError 400 for a job that has ended."""
    _stop(session, job, "cancelled")
    job.finished_at = time.time()
    _event(session, job, "Job was cancelled.")


def pause(session: Session, job: Job) -> None:
    """Stop at a checkpoint and keep it. Raises ApiError 400 for a job that has ended or is paused."""
    if job.status == "paused":
        raise invalid(f"Job {job.id} is paused already", code="job_already_paused")
    _stop(session, job, "paused")
    _event(session, job, "Job was paused.")


def resume(session: Session, job: Job) -> None:
    """Back to the queue; it goes on from its newest checkpoint. Raises ApiError 400 for a job that is not paused."""
    if job.status != "paused":
        raise invalid(f"Expected a paused job, found {job.id} {job.status}", code="job_not_paused")
    job.status = "queued"
    _event(session, job, "Job was resumed.")


def retry(session: Session, job: Job) -> None:
    """A failed job back to the queue, under its id. Raises ApiError 400 for any other."""
    if job.status != "failed":
        raise invalid(f"Only a failed job can be tried again; {job.id} is {job.status}", code="job_not_failed")
    job.status, job.error, job.finished_at, job.idle_attempts = "queued", None, None, 0
    _event(session, job, "Job is tried again.")


def ahead_of(scope: Scope, job: Job) -> int:
    """How many of the tenant's jobs are before this one in its queue."""
    sooner = sa.or_(Job.priority < job.priority, sa.and_(Job.priority == job.priority, Job.seq < job.seq))
    beside = Job.kind.in_(QUICK) if job.kind in QUICK else Job.kind.not_in(QUICK)
    queued = scope.select(Job).where(Job.status == "queued", sooner, beside)
    return scope.session.scalar(queued.with_only_columns(sa.func.count())) or 0


# ---- what workers do


def claim(session: Session, id: str, owner: str, status: str) -> Job | None:
    """Take a job over: a new attempt. None if it has ended or was stopped, or if it keeps ending its workers."""
    job = session.scalars(sa.select(Job).where(Job.id == id).with_for_update()).one_or_none()
    if job is None or job.status not in ACTIVE:
        return None
    job.attempt += 1
    job.idle_attempts += 1
    if job.idle_attempts > IDLE_ATTEMPTS:
        why = f"{IDLE_ATTEMPTS} attempts in a row ended without a checkpoint; retry it, or make it smaller"
        fail(session, job, "worker_lost", why)
        return None
    job.owner, job.status, job.child = owner, status, None
    job.started_at = job.started_at or time.time()
    session.flush()
    return job


def fenced(session: Session, id: str, attempt: int) -> Job:
    """The job, locked, for a write of this attempt. Raises Fenced."""
    mine = sa.select(Job).where(Job.id == id, Job.attempt == attempt, Job.status.in_(ACTIVE)).with_for_update()
    job = session.scalars(mine).one_or_none()
    if job is None:
        raise Fenced(f"{id}: attempt {attempt} is over")
    return job


def note(session: Session, job: Job, message: str, data: dict[str, Any] | None = None) -> None:
    """An event for followers."""
    _event(session, job, message, data=data)


def note_progress(session: Session, job: Job, progress: dict[str, Any], message: str | None) -> None:
    """How far it is; with a message, also an event with the metrics."""
    job.progress = job.progress | progress
    if message is not None:
        _event(session, job, message, data=progress, type="metrics")


def note_checkpoint(session: Session, job: Job, step: int, metrics: dict[str, Any]) -> None:
    """A checkpoint is complete on disk: the attempt was not in vain."""
    job.idle_attempts = 0
    known = sa.select(JobCheckpoint).where(JobCheckpoint.job_id == job.id, JobCheckpoint.step == step)
    if session.scalars(known).first() is None:
        checkpoint = JobCheckpoint(id=new_id("ftckpt_"), job_id=job.id, step=step, metrics=metrics)
        Scope(session, job.tenant_id).add(checkpoint)


def succeed(session: Session, job: Job, result: dict[str, Any], message: str) -> None:
    job.status, job.result, job.finished_at, job.owner, job.child = "succeeded", result, time.time(), None, None
    _event(session, job, message)


def fail(
    session: Session,
    job: Job,
    code: str,
    message: str,
    param: str | None = None,
    problems: Sequence[dict[str, Any]] = (),
) -> None:
    """It cannot be done; `problems` are those of single lines of an upload."""
    job.status, job.finished_at, job.owner, job.child = "failed", time.time(), None, None
    job.error = {"code": code, "message": message, "param": param} | ({"problems": list(problems)} if problems else {})
    _event(session, job, f"Job failed: {message}", "error")


def step_done(job: Job) -> None:
    """A step came to its end: the attempt was not in vain."""
    job.idle_attempts = 0


def release(session: Session, owner: str, blamed: bool = True) -> list[Job]:
    """Jobs whose worker is gone, after their children: their attempts are over, and they can be taken over.

    Args:
        blamed: whether the attempt counts against the job, which may have ended its worker.
    """
    owned = list(session.scalars(sa.select(Job).where(Job.owner == owner).with_for_update()))
    for job in owned:
        job.stopping, job.owner, job.child = False, None, None
        if job.status in ("validating", "running", "publishing"):
            job.status = "queued"
            job.attempt += 1
            if not blamed:
                job.idle_attempts = max(0, job.idle_attempts - 1)
            _event(session, job, "The worker ended; the job goes on from its newest checkpoint.", "warn")
    return owned


def child_ended(session: Session, id: str, owner: str, draining: bool = False) -> bool:
    """After a stop: nothing of the job runs any more here. Returns whether it waits to be queued again.

    A child that ended without being asked to, but kept its work, waits too; a worker that is ending gives back what it
    owns by itself.
    """
    job = session.scalars(sa.select(Job).where(Job.id == id, Job.owner == owner).with_for_update()).one_or_none()
    if job is None or (draining and job.status not in (*FINAL, "paused", "queued")):
        return False
    if job.status in ("validating", "running", "publishing"):
        job.status = "queued"
        job.attempt += 1
    job.stopping, job.owner, job.child = False, None, None
    return job.status == "queued"


def _stop(session: Session, job: Job, status: str) -> None:
    if job.status in FINAL:
        raise ApiError(400, f"Job {job.id} has already ended: it {_ended(job.status)}", "job_already_finished")
    job.stopping = job.owner is not None
    job.status = status
    job.attempt += 1  # what the old one still does is void from here on
    session.flush()


def _ended(status: str) -> str:
    return "was cancelled" if status == "cancelled" else status


def _event(
    session: Session,
    job: Job,
    message: str,
    level: str = "info",
    data: dict[str, Any] | None = None,
    type: str = "message",
) -> None:
    event = JobEvent(id=new_id("ftevent-"), job_id=job.id, level=level, type=type, message=message, data=data)
    Scope(session, job.tenant_id).add(event)
