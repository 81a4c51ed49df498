"""A create call -> a job: the same call again gives the same job; our row and the engine's are one transaction."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request
from pydantic import BaseModel

from service.context import Context
from service.database import Scope
from service.idempotency import create_of
from service.jobs import queue_of
from service.keys import Caller
from service.quotas import check_job
from service.tables import Job


def submit(request: Request, context: Context, caller: Caller, body: BaseModel, make: Callable[[Scope], Job]) -> Job:
    """The job of this call.

    Args:
        body: what is asked for; the same again may be a repetition.
        make: adds the job's row, after checking what it needs. Raises ApiError.

    Raises:
        ApiError: of `make`, and 403 where a quota is used up.
    """
    call = create_of(request, body.model_dump())
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        earlier = call.earlier(scope)
        job = None if earlier is None else scope.get(Job, earlier)
        if job is None:
            check_job(context.settings.limits, scope)
            job = make(scope)
            context.engine.submit(session, job.id, caller.tenant_id, job.priority, queue_of(job.id))
            call.answer(scope, job.id)
        return job
