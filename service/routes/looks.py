"""Looks, each a job: columns of a file, data check, probe, estimate of a fine-tuning; explanation of a model."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service import jobs, moves
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, invalid, missing
from service.job_request import job_request, require_file
from service.keys import Caller
from service.kinds.look import look_dir
from service.models import the_model
from service.objects import look_object
from service.rights import GuardedRoute, require_kind
from service.routes.jobs import report_response
from service.schemas import CheckRequest, ColumnsRequest, ExplainRequest, JobRequest
from service.short_reads import short_read
from service.submit import submit
from service.tables import Job

router = APIRouter(route_class=GuardedRoute, prefix="/v1", tags=["looks"])
Here = Annotated[Context, Depends(context_of)]
KINDS: tuple[jobs.Kind, ...] = ("columns", "check", "probe", "estimate", "explain")


@router.post("/data/columns")
def columns(body: ColumnsRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Say which columns a file has, and show its first rows."""

    def make(scope: Scope) -> Job:
        require_file(scope, body.file_id, "file_id")
        return jobs.create(scope, "columns", {"file_id": body.file_id}, body.metadata or {})

    return look_object(submit(request, context, caller, body, make))


@router.post("/data/check")
def check(body: CheckRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Look for what is wrong with labelled data: duplicates, contradictions, label errors, personal data."""
    return _submitted("check", body, request, context, caller)


@router.post("/probes")
def probe(body: JobRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Probe every hidden layer, and advise how many to freeze. The body is that of a fine-tuning job."""
    return _submitted("probe", body, request, context, caller)


@router.post("/estimates")
def estimate(body: JobRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Say what a fine-tuning job would take: time, memory, disk. The body is that of the job."""
    return _submitted("estimate", body, request, context, caller)


@router.post("/explanations")
def explain(body: ExplainRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Say which words moved a model on some texts, or on the errors and disagreements that its report lists."""
    texts = [body.input] if isinstance(body.input, str) else body.input
    empty = next((number for number, text in enumerate(texts) if not text.strip()), None)
    if empty is not None:
        raise invalid("expected a text with words", f"input.{empty}")

    def make(scope: Scope) -> Job:
        asked = {"model": body.model, "model_id": the_model(scope, body.model).id, "texts": texts}
        return jobs.create(scope, "explain", asked, body.metadata or {})

    return look_object(submit(request, context, caller, body, make))


@router.get("/looks/{look_id}")
@short_read
def read(look_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """One look."""
    return look_object(_the_look(context, caller, look_id))


@router.post("/looks/{look_id}/cancel")
def cancel(look_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """End it; nothing of it is published."""
    return look_object(moves.cancel(context, caller, lambda scope: _found(scope, look_id, lock=True)))


@router.get("/looks/{look_id}/report", response_class=Response)
def report(look_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """Its page where `Accept` asks for HTML, else its figures as JSON."""
    job = _the_look(context, caller, look_id)
    if job.status != "succeeded":
        raise ApiError(404, f"There is no report yet: it is {job.status}", "report_not_found")
    return report_response(request, look_dir(context.settings, job), job.kind)


def _submitted(kind: jobs.Kind, body: JobRequest, request: Request, context: Context, caller: Caller) -> dict[str, Any]:
    def make(scope: Scope) -> Job:
        asked = job_request(scope, context.settings, body)
        return jobs.create(scope, kind, asked, body.metadata or {}, body.priority or jobs.PRIORITY)

    return look_object(submit(request, context, caller, body, make))


def _the_look(context: Context, caller: Caller, id: str) -> Job:
    with context.database.reading() as session:
        look = _found(Scope(session, caller.tenant_id), id)
    require_kind(caller, look.kind)
    return look


def _found(scope: Scope, id: str, lock: bool = False) -> Job:
    job = jobs.get(scope, id, *KINDS, lock=lock)
    if job is None:
        raise missing("look", id, "look_not_found")
    return job
