"""Batches: a file -> its columns and first rows -> labels in bulk.

The address of the second page names the look that reads the columns, so that a reader can come back to it.
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError
from service.files import get_file
from service.keys import Caller
from service.pages.choices import Choice, model_choices
from service.pages.forms import form_of, kept_file, raw, word
from service.pages.looks import look_and_figures
from service.pages.render import PageRoute, go, page
from service.pages.shown import shown_jobs
from service.paging import page as page_of
from service.routes import batches, looks
from service.schemas import BatchRequest, ColumnsRequest
from service.tables import Job

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Form = Annotated[FormData, Depends(form_of)]
LISTED = 25


@router.get("/batches")
def all_batches(request: Request, context: Here, caller: Calling, after: str | None = None) -> Response:
    """All batches, the newest first."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        rows, more = page_of(scope, Job, after, LISTED, Job.kind.in_(batches.KINDS))
        found = shown_jobs(scope, rows)
    return page(request, "batches", batches=found, older=rows[-1].id if more else None)


@router.get("/batches/new")
def choose_file(request: Request, context: Here, caller: Calling, model: str = "") -> Response:
    """The first page."""
    return page(request, "batch_new", models=_models(context, caller), chosen=model)


@router.post("/batches/new")
def upload(request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Keep the file and have its columns read."""
    file_id = kept_file(context, caller, form, "batch")
    look = looks.columns(ColumnsRequest(file_id=file_id), request, context, caller)
    chosen = word(form, "model")
    return go(request, f"/batches/new/{look['id']}" + (f"?{urlencode({'model': chosen})}" if chosen else ""))


@router.get("/batches/new/{look_id}")
def choose_column(look_id: str, request: Request, context: Here, caller: Calling, model: str = "") -> Response:
    """The second page."""
    seen = _seen(context, caller, look_id)
    return page(request, "batch_settings", **seen, models=_models(context, caller), chosen=model)


@router.get("/batches/new/{look_id}/columns")
def columns(look_id: str, request: Request, context: Here, caller: Calling) -> Response:
    """The part of it that says what the file holds."""
    return page(request, "batch_columns", **_seen(context, caller, look_id))


@router.post("/batches/new/{look_id}")
def submit(look_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Submit the batch."""
    look, _, _ = look_and_figures(context, caller, look_id, "columns")
    if not word(form, "model"):
        raise ApiError(400, "Expected a model, found none; train a classifier first")
    asked = {"input_file_id": look.request["file_id"], "endpoint": "/v1/classify", "model": word(form, "model")}
    if not raw(form, "text"):
        raise ApiError(400, "Expected the column with the text, found none; choose one")
    body = BatchRequest.model_validate(asked | {"text": raw(form, "text")})
    return go(request, f"/jobs/{batches.create(body, request, context, caller)['id']}")


def _models(context: Context, caller: Caller) -> list[Choice]:
    with context.database.reading() as session:
        return model_choices(Scope(session, caller.tenant_id))


def _seen(context: Context, caller: Caller, look_id: str) -> dict[str, Any]:
    """What is known of the file by now."""
    job, shown, _ = look_and_figures(context, caller, look_id, "columns")
    with context.database.reading() as session:
        file = get_file(Scope(session, caller.tenant_id), job.request["file_id"])
    return {"look": shown, "file": file, "plan": job.progress.get("plan") or {}, "error": job.error}
