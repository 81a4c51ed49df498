"""Batches: a file of requests, answered in bulk."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request

from service import jobs, moves
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import missing
from service.job_request import require_file
from service.models import the_model
from service.objects import batch_object
from service.paging import listed, page
from service.rights import GuardedRoute
from service.schemas import BatchRequest
from service.short_reads import short_read
from service.submit import submit
from service.tables import Job

router = APIRouter(route_class=GuardedRoute, prefix="/v1/batches", tags=["batches"])
KINDS: tuple[jobs.Kind, ...] = ("batch", "table")
Here = Annotated[Context, Depends(context_of)]


@router.post("")
def create(body: BatchRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Submit a batch: lines of requests; or with `model` a CSV, JSONL or Parquet, whose rows are classified."""

    def make(scope: Scope) -> Job:
        require_file(scope, body.input_file_id, "input_file_id")
        kind, asked = _asked(scope, body)
        return jobs.create(scope, kind, asked, body.metadata or {})

    return batch_object(submit(request, context, caller, body, make))


@router.get("")
def list_batches(
    context: Here, caller: Calling, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    """The tenant's batches."""
    with context.database.reading() as session:
        rows, more = page(Scope(session, caller.tenant_id), Job, after, limit, Job.kind.in_(KINDS))
    return listed(rows, more, batch_object)


@router.get("/{batch_id}")
@short_read
def read(batch_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """One batch."""
    with context.database.reading() as session:
        return batch_object(_the_batch(Scope(session, caller.tenant_id), batch_id))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """End a batch: from the answer on nothing of it is published."""
    return batch_object(moves.cancel(context, caller, lambda scope: _the_batch(scope, batch_id, lock=True)))


def _asked(scope: Scope, body: BatchRequest) -> tuple[jobs.Kind, dict[str, Any]]:
    """The kind of job, and what it keeps of the request."""
    asked = body.model_dump(include={"input_file_id", "endpoint", "completion_window", "text"})
    asked["output_expires_s"] = body.output_expires_after and body.output_expires_after.seconds
    if body.model is None:
        return "batch", asked
    return "table", asked | {"model": the_model(scope, body.model).id}


def _the_batch(scope: Scope, id: str, lock: bool = False) -> Job:
    job = jobs.get(scope, id, *KINDS, lock=lock)
    if job is None:
        raise missing("batch", id, "batch_not_found")
    return job
