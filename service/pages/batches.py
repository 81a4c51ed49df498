"""Batches: a file and a model -> labels in bulk."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from service.auth import anyone, needs
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError
from service.keys import Caller
from service.pages.choices import model_choices
from service.pages.forms import form_of, kept_file, word
from service.pages.render import PageRoute, go, page
from service.pages.shown import shown_jobs
from service.paging import page as page_of
from service.routes import batches
from service.schemas import BatchRequest
from service.tables import Job

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Anyone = Annotated[Caller, Depends(anyone)]
Submitter = Annotated[Caller, Depends(needs("batches:write"))]
LISTED = 25


@router.get("/batches")
def all_batches(request: Request, context: Here, caller: Anyone, after: str | None = None) -> Response:
    """All batches, the newest first."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        rows, more = page_of(scope, Job, after, LISTED, Job.kind.in_(batches.KINDS))
        found = shown_jobs(scope, rows)
    return page(request, "batches", batches=found, older=rows[-1].id if more else None)


@router.get("/batches/new")
def ask(request: Request, context: Here, caller: Submitter, model: str = "", file: str = "") -> Response:
    """The form; `file` is one that was uploaded already."""
    with context.database.reading() as session:
        models = model_choices(Scope(session, caller.tenant_id))
    return page(request, "batch_new", models=models, chosen=model, file=file)


@router.post("/batches/new")
def submit(request: Request, context: Here, caller: Submitter, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Submit it."""
    if not word(form, "model"):
        raise ApiError(400, "Expected a model, found none; train a classifier first")
    file_id = word(form, "file_id") or kept_file(context, caller, form, "batch")
    asked = {"input_file_id": file_id, "endpoint": "/v1/classify", "model": word(form, "model")}
    body = BatchRequest.model_validate(asked | {"text": word(form, "text") or "text"})
    return go(request, f"/jobs/{batches.create(body, request, context, caller)['id']}")
