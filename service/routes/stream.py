"""Progress of a job as server-sent events, for pages and `--follow`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import sqlalchemy as sa
from anyio import to_thread
from fastapi import APIRouter, Depends, Header
from starlette.responses import Response, StreamingResponse

from service import jobs
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError
from service.keys import Caller, find_caller_by_id
from service.objects import event_object, job_object
from service.rights import GuardedRoute
from service.routes.jobs import the_job
from service.tables import Job, JobEvent

router = APIRouter(route_class=GuardedRoute, prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"])
POLL_S = 1.0
QUIET_S = 15.0  # a comment is sent after this long without an event, so that proxies keep the connection
MOST = 500  # events of one look


@router.get("/{job_id}/stream", response_class=Response)
async def stream(
    job_id: str,
    context: Annotated[Context, Depends(context_of)],
    caller: Calling,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Events `job` (the object, when it changed) and `event`, oldest first, until the job ends.

    `Last-Event-ID` goes on after that event. It ends when the key does.
    """
    await to_thread.run_sync(_look, context, caller, job_id, 0)  # 404 before the stream begins
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else 0
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(context, caller, job_id, after), media_type="text/event-stream", headers=headers)


async def _events(context: Context, caller: Caller, job_id: str, after: int) -> AsyncIterator[str]:
    shown, quiet = None, 0.0
    while True:
        try:
            job, events = await to_thread.run_sync(_look, context, caller, job_id, after)
        except ApiError:  # the key was revoked meanwhile
            return
        state = job_object(job, caller.tenant_name)
        for event in events:
            after = event.seq
            yield _message("event", event_object(event), event.seq)
        if state != shown:
            shown, quiet = state, 0.0
            yield _message("job", state)
        if len(events) == MOST:
            continue
        if job.status in jobs.FINAL and not job.stopping:
            return
        if quiet >= QUIET_S:
            quiet = 0.0
            yield ": waiting\n\n"
        await asyncio.sleep(POLL_S)
        quiet += POLL_S


def _look(context: Context, caller: Caller, job_id: str, after: int) -> tuple[Job, list[JobEvent]]:
    with context.database.reading() as session:
        if find_caller_by_id(session, caller.key_id) is None:
            raise ApiError(401, "This key was revoked, or has expired", "invalid_api_key")
        job = the_job(Scope(session, caller.tenant_id), job_id)
        newer = sa.select(JobEvent).where(JobEvent.job_id == job.id, JobEvent.seq > after)
        return job, list(session.scalars(newer.order_by(JobEvent.seq).limit(MOST)))


def _message(name: str, value: dict[str, Any], id: int | None = None) -> str:
    number = "" if id is None else f"id: {id}\n"
    return f"{number}event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
