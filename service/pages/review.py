"""The review queue: items nearest to a decision, one at a time; what people say of them becomes training data."""

from __future__ import annotations

import io
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from service import reviews
from service.auth import anyone, needs
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, missing
from service.files import add_file, store
from service.keys import Caller
from service.models import find_model
from service.pages.forms import form_of, word
from service.pages.new import checked
from service.pages.render import HEADERS, PageRoute, go, page
from service.pages.shown import shown_jobs
from service.paging import page as page_of
from service.sessions import is_partial
from service.tables import Job, Model

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Anyone = Annotated[Caller, Depends(anyone)]
Reviewer = Annotated[Caller, Depends(needs("batches:write"))]
Submitter = Annotated[Caller, Depends(needs("jobs:write"))]
Form = Annotated[FormData, Depends(form_of)]
LISTED = 25
KEYS = "123456789"  # that name a class, where there are so few


@router.get("/review")
def batches(request: Request, context: Here, caller: Anyone, after: str | None = None) -> Response:
    """Batches whose items can be looked at, the newest first."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        rows, more = page_of(scope, Job, after, LISTED, Job.kind == "table", Job.status == "succeeded")
        found = shown_jobs(scope, rows)
        done = reviews.counted(scope, [row.id for row in rows])
    return page(request, "reviews", batches=found, done=done, older=rows[-1].id if more else None)


@router.get("/review/{job_id}")
def review(job_id: str, request: Request, context: Here, caller: Anyone, by: int = 0, row: int = 0) -> Response:
    """The next item of a queue, or the one that is named."""
    return page(request, "review", **_seen(context, caller, job_id, by, row))


@router.post("/review/{job_id}")
def say(job_id: str, request: Request, context: Here, caller: Reviewer, form: Form) -> Response:
    """Label an item or skip it; the next one follows."""
    by, row = _number(form, "by"), _number(form, "row")
    label = None if word(form, "skip") else word(form, "label")
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        job, model = _batch(scope, job_id)
        queue = reviews.queue_of(context.settings, scope, job, by)
        item = next((item for item in queue["items"] if item["row"] == row), None)
        if item is None:
            raise ApiError(404, "There is no such item in this queue")
        reviews.give(scope, job, model, item, label, time.time())
    if is_partial(request):
        return page(request, "review_item", **_seen(context, caller, job_id, by))
    return go(request, f"/review/{job_id}?by={by}")


@router.get("/review/{job_id}/examples")
def examples(job_id: str, context: Here, caller: Anyone) -> Response:
    """All that was reviewed of this model, as training data."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        _, model = _batch(scope, job_id)
        content = _lines(reviews.examples(context.settings, scope, model))
    name = f"reviewed-{model.family}.jsonl"
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type="application/jsonl", headers=headers)


@router.post("/review/{job_id}/train")
def train(job_id: str, request: Request, context: Here, caller: Submitter, _: Form) -> Response:
    """Keep what was reviewed as a file, and lead to the settings of a job that continues the model with it."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        model = _batch(scope, job_id)[1]
        rows = reviews.examples(context.settings, scope, model)
    if not rows:
        raise ApiError(400, "Expected reviewed items, found none; label some first")
    stored = store(context.settings, caller.tenant_id, io.BytesIO(_lines(rows)))
    with context.database.writing() as session:
        file = add_file(Scope(session, caller.tenant_id), stored, f"reviewed-{model.family}.jsonl", "fine-tune")
    return go(request, checked(request, context, caller, file.id, {"text": "text", "label": "label"}, model.id))


def _batch(scope: Scope, job_id: str) -> tuple[Job, Model]:
    """A labelled table and its model. Raises ApiError 404."""
    job = scope.get(Job, job_id)
    model = None if job is None or job.kind != "table" else find_model(scope, job.request["model"])
    if job is None or model is None:
        raise missing("batch with a model", job_id, "review_not_found")
    return job, model


def _seen(context: Context, caller: Caller, job_id: str, by: int, row: int = 0) -> dict[str, Any]:
    """What the templates show of a queue."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        job, model = _batch(scope, job_id)
        queue = reviews.queue_of(context.settings, scope, job, by)
        preview = reviews.preview_of(context.settings, scope, job)
        said = reviews.given(scope, job)
        rows = reviews.examples(context.settings, scope, model)
        (shown,) = shown_jobs(scope, [job])
    items = queue["items"]
    item = next((each for each in items if (each["row"] == row if row else each["row"] not in said)), None)
    own = {each["row"] for each in items}
    last = [number for number in said if number in own and (item is None or number != item["row"])]
    return {
        "job": shown,
        "model": model,
        "queue": queue,
        "queues": preview["queues"] if preview else [],
        "by": by,
        "item": item,
        "said": said.get(item["row"]) if item else None,
        "others": _others(model, item) if item else [],
        "back": last[-1] if last else None,
        "done": sum(each["row"] in said for each in items),
        "counts": reviews.labels_of(rows),
    }


def _others(model: Model, item: dict[str, Any]) -> list[tuple[str, str]]:
    """The classes that the model did not give, the likeliest first, each with the key that names it."""
    ranked = sorted(
        (name for name in model.labels if name != item["label"]), key=lambda name: -item["scores"].get(name, 0)
    )
    keys = "W" if len(ranked) == 1 else KEYS
    return [(name, keys[place] if place < len(keys) else "") for place, name in enumerate(ranked)]


def _number(form: FormData, name: str) -> int:
    value = word(form, name)
    if not value.isdecimal() or len(value) > 9:
        raise ApiError(400, f"{name}: expected a whole number, found {value[:40]!r}")
    return int(value)


def _lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
