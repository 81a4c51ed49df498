"""Cancel, pause, resume, retry: commit the move, then tell the engine.

If this process dies between the two, or the engine cannot be reached, a worker's reconciler tells it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.orm import Session

from service import jobs
from service.context import Context
from service.database import Scope
from service.keys import Caller
from service.quotas import check_job
from service.tables import Job

Find = Callable[[Scope], Job]  # the job, locked. Raises ApiError 404
log = logging.getLogger(__name__)


def cancel(context: Context, caller: Caller, find: Find) -> Job:
    """End a job: from the answer on nothing of it is published."""
    return _moved(context, caller, find, jobs.cancel, lambda job: context.engine.stop(job.id))


def pause(context: Context, caller: Caller, find: Find) -> Job:
    """Stop a job at a checkpoint and keep that."""
    return _moved(context, caller, find, jobs.pause, lambda job: context.engine.stop(job.id))


def resume(context: Context, caller: Caller, find: Find) -> Job:
    """Let a paused job go on; while its process still saves, it is queued as soon as that has ended."""

    def queue(job: Job) -> None:
        if not job.stopping:
            context.engine.resume(job.id, jobs.queue_of(job.id))

    return _moved(context, caller, find, jobs.resume, queue, asks=True)


def retry(context: Context, caller: Caller, find: Find) -> Job:
    """Try a failed job again, under the same id."""

    def queue(job: Job) -> None:
        context.engine.retry(job.id, job.tenant_id, jobs.queue_of(job.id))

    return _moved(context, caller, find, jobs.retry, queue, asks=True)


MOVES = {"cancel": cancel, "pause": pause, "resume": resume, "retry": retry}


def _moved(
    context: Context,
    caller: Caller,
    find: Find,
    move: Callable[[Session, Job], None],
    then: Callable[[Job], None],
    asks: bool = False,
) -> Job:
    """`asks`: for what a quota may refuse."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        if asks:
            check_job(context.settings.limits, scope)
        job = find(scope)
        move(session, job)
    try:
        then(job)
    except Exception:  # the move is committed: an error would make the client repeat it, and be refused
        log.exception("%s: the engine was not told yet that it is %s", job.id, job.status)
    return job
