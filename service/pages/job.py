"""One job: how far it is, its curves and events, what can be done with it, and its report in place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from service import jobs, moves, reviews
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, missing
from service.files import get_file
from service.keys import Caller
from service.kinds.compare import comparison_dir
from service.kinds.look import look_dir
from service.models import models_dir
from service.pages.curves import drawings
from service.pages.forms import form_of
from service.pages.render import PageRoute, go, page
from service.pages.review import can_be_reviewed
from service.pages.shown import file_of, shown_jobs
from service.rights import require_kind
from service.routes.batches import KINDS as BATCHES
from service.routes.jobs import report_response
from service.tables import File, Job, JobEvent, Model

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Form = Annotated[FormData, Depends(form_of)]
EVENTS, METRICS = 30, 2_000  # that a page shows, that it draws


@router.get("/jobs/{job_id}")
def read(job_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """The page."""
    return page(request, "job", **_seen(context, caller, job_id))


@router.get("/jobs/{job_id}/live")
def live(job_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """The part of it that changes."""
    return page(request, "job_live", **_seen(context, caller, job_id))


@router.post("/jobs/{job_id}/{move}")
def move(job_id: str, move: str, request: Request, context: Here, caller: Calling, _: Form) -> Response:
    """Cancel, pause, resume or try again."""
    if move not in moves.MOVES:
        raise ApiError(404, "There is no such page")

    def find(scope: Scope) -> Job:
        job = the_job(scope, job_id, lock=True)
        needed = "batches:write" if job.kind in BATCHES else "jobs:write"
        if not caller.may(needed):
            raise ApiError(403, f"The key that you signed in with may not do that: it lacks the scope {needed}")
        if job.kind != "fine-tune" and move != "cancel":
            raise ApiError(400, "Only the training of a classifier can be paused, resumed or tried again")
        return job

    moves.MOVES[move](context, caller, find)
    return go(request, f"/jobs/{job_id}")


@router.get("/jobs/{job_id}/report")
def report(job_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """Its page of figures, as it stands beside the figures."""
    with context.database.reading() as session:
        job = the_job(Scope(session, caller.tenant_id), job_id)
    require_kind(caller, job.kind)
    place = report_of(context, job)
    if place is None:
        raise ApiError(404, "There is no report of this job")
    return report_response(request, *place)


def the_job(scope: Scope, job_id: str, lock: bool = False) -> Job:
    """A job of any kind. Raises ApiError 404."""
    job = scope.get(Job, job_id, lock=lock)
    if job is None:
        raise missing("job", job_id, "job_not_found")
    return job


def report_of(context: Context, job: Job) -> tuple[Path, str] | None:
    """Folder and name of the report of a job that has one, as a page."""
    if job.status != "succeeded" or job.kind in BATCHES:
        return None
    if job.kind == "fine-tune":
        folder, name = models_dir(context.settings, job.tenant_id) / job.id, "report"
    elif job.kind == "compare":
        folder, name = comparison_dir(context.settings, job), "report"
    else:
        folder, name = look_dir(context.settings, job), job.kind
    return (folder, name) if (folder / f"{name}.html").is_file() else None


def _seen(context: Context, caller: Caller, job_id: str) -> dict[str, Any]:
    """What the templates show of a job."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        job = the_job(scope, job_id)
        require_kind(caller, job.kind)
        events = _events(scope, job)
        metrics = _metrics(scope, job)
        model = scope.session.scalars(scope.select(Model).where(Model.job_id == job.id)).one_or_none()
        (shown,) = shown_jobs(scope, [job])
        files = _files(scope, job)
        preview = reviews.preview_of(context.settings, scope, job)
        reviewable = can_be_reviewed(scope, job, preview)
        ahead = jobs.ahead_of(scope, job) if job.status == "queued" else 0
    return {
        "job": shown,
        "plan": job.progress.get("plan") or {},
        "error": job.error,
        "result": job.result or {},
        "events": events,
        "drawings": drawings(metrics),
        "model": model,
        "files": files,
        "ahead": ahead,
        "preview": preview,
        "reviewable": reviewable,
        "report": report_of(context, job) is not None,
        "sentence": (job.result or {}).get("sentence") or (job.result or {}).get("verdict"),
        "counts": (job.result or {}).get("counts"),
    }


def _events(scope: Scope, job: Job) -> list[JobEvent]:
    """The newest, single steps left out: the curves show them."""
    plain = sa.select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.type == "message")
    return list(scope.session.scalars(plain.order_by(JobEvent.seq.desc()).limit(EVENTS)))


def _metrics(scope: Scope, job: Job) -> list[dict[str, Any]]:
    if job.kind != "fine-tune":
        return []
    steps = sa.select(JobEvent.data).where(JobEvent.job_id == job.id, JobEvent.type == "metrics")
    newest = scope.session.scalars(steps.order_by(JobEvent.seq.desc()).limit(METRICS))
    return sorted(filter(None, newest), key=lambda each: each.get("step", 0))


def _files(scope: Scope, job: Job) -> list[tuple[str, File]]:
    """What can be downloaded, with what it is."""
    result = job.result or {}
    named = [("Labelled rows", result.get("output_file_id")), ("Rows with errors", result.get("errors_file_id"))]
    named += [("Results", id) for id in result.get("files", [])]
    if job.kind not in ("fine-tune", *BATCHES):
        named.append(("Figures", result.get("report_file_id")))
    named.append(("What was uploaded", file_of(job)))
    found = [(what, get_file(scope, id)) for what, id in named if id is not None]
    return [(what, file) for what, file in found if file is not None]
