"""Batches: a file of requests, answered in bulk."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from service import jobs
from service.auth import caller_of, needs
from service.context import Context, context_of
from service.database import Scope
from service.errors import missing
from service.idempotency import create_of
from service.job_request import require_file
from service.keys import Caller
from service.objects import batch_object
from service.paging import listed, page
from service.schemas import BatchRequest
from service.tables import Job

router = APIRouter(prefix="/v1/batches", tags=["batches"])
KIND: jobs.Kind = "batch"
Here = Annotated[Context, Depends(context_of)]
Anyone = Annotated[Caller, Depends(caller_of)]
Submitter = Annotated[Caller, Depends(needs("batches:write"))]


@router.post("")
def create(body: BatchRequest, request: Request, context: Here, caller: Submitter) -> dict[str, Any]:
    """Submit a batch."""
    call = create_of(request, body.model_dump())
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        job = jobs.get(scope, KIND, call.earlier(scope) or "")
        if job is None:
            require_file(scope, body.input_file_id, "input_file_id")
            asked = body.model_dump(include={"input_file_id", "endpoint", "completion_window"})
            job = jobs.create(scope, KIND, asked, body.metadata or {})
            context.engine.submit(session, job.id, caller.tenant_id, job.priority)
            call.answer(scope, job.id)
        return batch_object(job)


@router.get("")
def list_batches(
    context: Here, caller: Anyone, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """The tenant's batches."""
    with context.database.reading() as session:
        rows, more = page(Scope(session, caller.tenant_id), Job, after, limit, Job.kind == KIND)
    return listed(rows, more, batch_object)


@router.get("/{batch_id}")
def read(batch_id: str, context: Here, caller: Anyone) -> dict[str, Any]:
    """One batch."""
    with context.database.reading() as session:
        return batch_object(_the_batch(Scope(session, caller.tenant_id), batch_id))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, context: Here, caller: Submitter) -> dict[str, Any]:
    """End a batch: from the answer on nothing of it is published."""
    with context.database.writing() as session:
        job = _the_batch(Scope(session, caller.tenant_id), batch_id)
        jobs.cancel(session, job)
    context.engine.stop(job.id)
    return batch_object(job)


def _the_batch(scope: Scope, id: str) -> Job:
    job = jobs.get(scope, KIND, id)
    if job is None:
        raise missing("batch", id, "batch_not_found")
    return job
