"""Fine-tuning jobs: create, list, read, stop, go on; their events, checkpoints and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import FileResponse, Response

from service import jobs, moves
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, invalid, missing
from service.job_request import job_request
from service.keys import Caller
from service.models import models_dir
from service.objects import checkpoint_object, event_object, job_object
from service.paging import listed, page
from service.rights import GuardedRoute
from service.schemas import JobRequest
from service.short_reads import short_read
from service.submit import submit
from service.tables import Job, JobCheckpoint, JobEvent
from service.verified import intact_in

router = APIRouter(route_class=GuardedRoute, prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
KIND: jobs.Kind = "fine-tune"
Here = Annotated[Context, Depends(context_of)]
Part = TypeVar("Part", JobEvent, JobCheckpoint)


@router.post("")
def create(body: JobRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Submit a fine-tuning job."""

    def make(scope: Scope) -> Job:
        asked = job_request(scope, context.settings, body)
        return jobs.create(scope, KIND, asked, body.metadata or {}, body.priority or jobs.PRIORITY)

    return job_object(submit(request, context, caller, body, make), caller.tenant_name)


@router.get("")
def list_jobs(
    request: Request,
    context: Here,
    caller: Calling,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> dict[str, Any]:
    """The tenant's jobs; `metadata[key]=value` keeps those that carry it."""
    conditions = [Job.kind == KIND, *_metadata(request)]
    with context.database.reading() as session:
        rows, more = page(Scope(session, caller.tenant_id), Job, after, limit, *conditions)
    return listed(rows, more, lambda job: job_object(job, caller.tenant_name))


@router.get("/{job_id}")
@short_read
def read(job_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """One job."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        job = the_job(scope, job_id)
        depth = jobs.ahead_of(scope, job) if job.status == "queued" else None
        return job_object(job, caller.tenant_name, depth)


@router.post("/{job_id}/cancel")
def cancel(job_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """End a job: from the answer on nothing of it is published."""
    return job_object(moves.cancel(context, caller, _locked(job_id)), caller.tenant_name)


@router.post("/{job_id}/pause")
def pause(job_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Stop a job at a checkpoint and keep that."""
    return job_object(moves.pause(context, caller, _locked(job_id)), caller.tenant_name)


@router.post("/{job_id}/resume")
def resume(job_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Let a paused job go on; while its process still saves, it is queued as soon as that has ended."""
    return job_object(moves.resume(context, caller, _locked(job_id)), caller.tenant_name)


@router.post("/{job_id}/retry")
def retry(job_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Try a failed job again, under the same id."""
    return job_object(moves.retry(context, caller, _locked(job_id)), caller.tenant_name)


@router.get("/{job_id}/events")
def events(
    job_id: str,
    context: Here,
    caller: Calling,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
) -> dict[str, Any]:
    """What happened, newest first."""
    return _of_job(context, caller, job_id, JobEvent, after, limit, lambda each, _: event_object(each))


@router.get("/{job_id}/checkpoints")
def checkpoints(
    job_id: str,
    context: Here,
    caller: Calling,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
) -> dict[str, Any]:
    """Checkpoints with their metrics, newest first."""
    return _of_job(context, caller, job_id, JobCheckpoint, after, limit, checkpoint_object)


@router.get("/{job_id}/report", response_class=Response)
def report(job_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """The compare-to-baseline report: HTML where `Accept` asks for it, else JSON."""
    with context.database.reading() as session:
        job = the_job(Scope(session, caller.tenant_id), job_id)
    if job.status != "succeeded":
        raise ApiError(404, f"There is no report yet: the job is {job.status}", "report_not_found")
    return report_response(request, models_dir(context.settings, caller.tenant_id) / job.id)


def the_job(scope: Scope, id: str, lock: bool = False) -> Job:
    """Raises ApiError 404."""
    job = jobs.get(scope, id, KIND, lock=lock)
    if job is None:
        raise missing("fine-tuning job", id, "fine_tune_not_found")
    return job


def report_response(request: Request, folder: Path, name: str = "report") -> Response:
    """The page of a folder where `Accept` names HTML, else its figures as JSON. Raises ApiError 500: damaged."""
    page = "text/html" in request.headers.get("accept", "") and (folder / f"{name}.html").is_file()
    ending, kind = ("html", "text/html") if page else ("json", "application/json")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'none'; sandbox"
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": policy, "Vary": "Accept"}
    return FileResponse(intact_in(folder, f"{name}.{ending}"), media_type=kind, headers=headers)


def _of_job(
    context: Context,
    caller: Caller,
    job_id: str,
    table: type[Part],
    after: str | None,
    limit: int,
    show: Callable[[Part, Job], dict[str, Any]],
) -> dict[str, Any]:
    """A page of what belongs to a job."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        job = the_job(scope, job_id)
        rows, more = page(scope, table, after, limit, table.job_id == job.id)
    return listed(rows, more, lambda each: show(each, job))


def _locked(job_id: str) -> moves.Find:
    return lambda scope: the_job(scope, job_id, lock=True)


def _metadata(request: Request) -> list[sa.ColumnElement[bool]]:
    """Conditions from `metadata[key]=value`."""
    found = []
    for name, value in request.query_params.items():
        if name.startswith("metadata[") and name.endswith("]"):
            found.append(Job.labels[name.removeprefix("metadata[")[:-1]].as_string() == value)
        elif name == "metadata":
            raise invalid("expected metadata[key]=value", "metadata")
    return found
