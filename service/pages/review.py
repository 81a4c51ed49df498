"""The review queue: items nearest to a decision, one at a time; what people say of them becomes training data."""

from __future__ import annotations

import io
import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from service import reviews
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, invalid, missing
from service.files import add_file, store
from service.keys import Caller
from service.models import find_model
from service.pages.forms import form_of, may_upload, number, word
from service.pages.new import checked
from service.pages.render import HEADERS, PageRoute, go, page
from service.pages.shown import shown_jobs
from service.paging import page as page_of
from service.quotas import check_bytes
from service.reviews import preview_of
from service.sessions import is_partial
from service.tables import Job, Model

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
Form = Annotated[FormData, Depends(form_of)]
By = Annotated[int, Query(ge=0, lt=1000)]  # number of a queue
Row = Annotated[int, Query(ge=0, lt=1 << 40)]
LISTED = 25
KEYS = "123456789"  # that name a class, where there are so few


@router.get("/review")
def batches(request: Request, context: Here, caller: Calling, after: str | None = None) -> Response:
    """Batches whose items can be looked at, the newest first."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        rows, more = page_of(scope, Job, after, LISTED, Job.kind == "table", Job.status == "succeeded")
        found = shown_jobs(scope, rows)
        done = reviews.counted(scope, [row.id for row in rows])
        ready = {row.id for row in rows if can_be_reviewed(scope, row, preview_of(context.settings, scope, row))}
    older = rows[-1].id if more else None
    return page(request, "reviews", batches=found, done=done, ready=ready, older=older)


@router.get("/review/{job_id}")
def review(job_id: str, request: Request, context: Here, caller: Calling, by: By = 0, row: Row = 0) -> Response:
    """The next item of a queue, or the one that is named."""
    return page(request, "review", **_seen(context, caller, job_id, by, row))


@router.post("/review/{job_id}")
def say(job_id: str, request: Request, context: Here, caller: Calling, form: Form) -> Response:
    """Label an item or skip it; the next one follows. `label` is the number of a class of the model."""
    by, row = number(form, "by"), number(form, "row")
    with context.database.reading() as session:
        job, model, _ = _batch(context, Scope(session, caller.tenant_id), job_id)
    queue = reviews.queue_of(context.settings, job, by)
    item = reviews.item_at(context.settings, job, _place(queue, row))
    label = None if word(form, "skip") else _class(model, form)
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        locked = scope.get(Job, job_id, lock=True)
        assert locked is not None
        reviews.give(scope, locked, model, item, label, time.time())
    if is_partial(request):
        return page(request, "review_item", **_seen(context, caller, job_id, by))
    return go(request, f"/review/{job_id}?by={by}")


@router.get("/review/{job_id}/examples")
def examples(job_id: str, context: Here, caller: Calling) -> Response:
    """All that was reviewed of this model, as training data."""
    content = _lines(_examples(context, caller, job_id)[1])
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="reviewed-{job_id}.jsonl"'}
    return Response(content, media_type="application/jsonl", headers=headers)


@router.post("/review/{job_id}/train")
def train(job_id: str, request: Request, context: Here, caller: Calling, _: Form) -> Response:
    """Keep what was reviewed as a file, and lead to the settings of a job that continues the model with it."""
    may_upload(caller)
    model, rows = _examples(context, caller, job_id)
    if not rows:
        raise ApiError(400, "Expected reviewed items, found none; label some first")
    stored = store(context.settings, caller.tenant_id, io.BytesIO(_lines(rows)))
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        check_bytes(context.settings.limits, scope, stored)
        file = add_file(scope, stored, f"reviewed-{model.family}.jsonl", "fine-tune")
    return go(request, checked(request, context, caller, file.id, {"text": "text", "label": "label"}, model.id))


def can_be_reviewed(scope: Scope, job: Job, preview: dict[str, Any] | None) -> bool:
    """Whether its output and its model are still there, and some item has a prediction."""
    there = preview is not None and preview["queues"][0]["items"] > 0
    return there and find_model(scope, job.request["model"]) is not None


def _batch(context: Context, scope: Scope, job_id: str) -> tuple[Job, Model, dict[str, Any]]:
    """A labelled table, its model, and what is shown of it. Raises ApiError 404."""
    job = scope.get(Job, job_id)
    preview = None if job is None else preview_of(context.settings, scope, job)
    model = find_model(scope, job.request["model"]) if job is not None and preview is not None else None
    if job is None or preview is None or model is None:
        raise missing("batch with its output and its model", job_id, "review_not_found")
    return job, model, preview


def _examples(context: Context, caller: Caller, job_id: str) -> tuple[Model, list[dict[str, str]]]:
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        _, model, _ = _batch(context, scope, job_id)
        return model, reviews.examples(scope, model)


def _seen(context: Context, caller: Caller, job_id: str, by: int, row: int = 0) -> dict[str, Any]:
    """What the templates show of a queue."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        job, model, preview = _batch(context, scope, job_id)
        said = reviews.given(scope, job)
        counts = reviews.labels_of(scope, model)
        (shown,) = shown_jobs(scope, [job])
    queue = reviews.queue_of(context.settings, job, by)
    rows = [number for number, _ in queue["items"]]
    wanted = row or next((number for number in rows if number not in said), None)
    item = None if wanted is None else reviews.item_at(context.settings, job, _place(queue, wanted))
    return {
        "job": shown,
        "model": model,
        "queue": queue,
        "queues": preview["queues"],
        "by": by,
        "item": item,
        "said": said.get(wanted) if wanted is not None else None,
        "own": model.labels.index(item["label"]) if item else None,
        "others": _others(model, item) if item else [],
        "back": _before([number for number in said if number in set(rows)], wanted),
        "done": sum(number in said for number in rows),
        "counts": counts,
    }


def _place(queue: dict[str, Any], row: int) -> int:
    """Where the item of a row stands. Raises ApiError 404."""
    place = next((place for number, place in queue["items"] if number == row), None)
    if place is None:
        raise ApiError(404, "There is no such item in this queue")
    return int(place)


def _before(said: list[int], shown: int | None) -> int | None:
    """The row that something was said of before the one that is shown."""
    earlier = said[: said.index(shown)] if shown in said else said
    return earlier[-1] if earlier else None


def _others(model: Model, item: dict[str, Any]) -> list[tuple[int, str, str]]:
    """The classes that the model did not give, the likeliest first: number, name, the key that chooses it."""
    scores = item["scores"]
    others = [(number, name) for number, name in enumerate(model.labels) if name != item["label"]]
    others.sort(key=lambda pair: -scores.get(pair[1], 0.0))
    keys = "W" if len(others) == 1 else KEYS
    return [(number, name, keys[place] if place < len(keys) else "") for place, (number, name) in enumerate(others)]


def _class(model: Model, form: FormData) -> str:
    """The class that was chosen. Raises ApiError 400."""
    chosen = number(form, "label")
    if chosen >= len(model.labels):
        raise invalid(f"expected the number of a class of the model, found {chosen}", "label")
    return str(model.labels[chosen])


def _lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
