"""Comparisons: any models on any labelled file, as a job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service import jobs
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, missing
from service.job_request import require_file
from service.keys import Caller
from service.kinds.compare import comparison_dir
from service.models import the_model
from service.objects import comparison_object
from service.rights import GuardedRoute
from service.routes.jobs import report_response
from service.schemas import CompareRequest
from service.short_reads import short_read
from service.submit import submit
from service.tables import Job

router = APIRouter(route_class=GuardedRoute, prefix="/v1/comparisons", tags=["comparisons"])
KIND: jobs.Kind = "compare"
Here = Annotated[Context, Depends(context_of)]


@router.post("")
def create(body: CompareRequest, request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Score models and their baselines on a labelled file."""

    def make(scope: Scope) -> Job:
        require_file(scope, body.file_id, "file_id")
        models = [the_model(scope, name, "models").id for name in body.models]
        asked = {"models": models, "file_id": body.file_id, "data": body.data.mapping}
        return jobs.create(scope, KIND, asked, body.metadata or {})

    return comparison_object(submit(request, context, caller, body, make))


@router.get("/{comparison_id}")
@short_read
def read(comparison_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """One comparison."""
    return comparison_object(_the_comparison(context, caller, comparison_id))


@router.get("/{comparison_id}/report", response_class=Response)
def report(comparison_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """Its report: HTML where `Accept` asks for it, else JSON."""
    job = _the_comparison(context, caller, comparison_id)
    if job.status != "succeeded":
        raise ApiError(404, f"There is no report yet: the comparison is {job.status}", "report_not_found")
    return report_response(request, comparison_dir(context.settings, job))


def _the_comparison(context: Context, caller: Caller, id: str) -> Job:
    with context.database.reading() as session:
        job = jobs.get(Scope(session, caller.tenant_id), id, KIND)
    if job is None:
        raise missing("comparison", id, "comparison_not_found")
    return job
