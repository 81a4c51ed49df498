"""Home: what runs and waits, what was done lately, and the one button."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from service import jobs
from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.pages.render import PageRoute, page
from service.pages.shown import IN_PLACE, live_jobs, shown_jobs
from service.paging import page as page_of
from service.rights import readable
from service.tables import Job

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Here = Annotated[Context, Depends(context_of)]
LIVE, RECENT = 50, 20  # jobs of a page


@router.get("/")
def home(request: Request, context: Here, caller: Calling, after: str | None = None) -> Response:
    """The jobs that the key may read, the newest first; `after` goes on with older ones."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        own = Job.kind.in_(readable(caller))
        live = shown_jobs(scope, live_jobs(scope, LIVE, own))
        ended = Job.status.in_(jobs.FINAL), ~Job.stopping, Job.kind.not_in(IN_PLACE)
        done, more = page_of(scope, Job, after, RECENT, *ended, own)
        recent = shown_jobs(scope, done)
    older = recent[-1].id if more else None
    return page(request, "home", live=live, recent=recent, older=older, first=after is None)


@router.get("/live")
def live(request: Request, context: Here, caller: Calling) -> Response:
    """The part of home that changes."""
    with context.database.reading() as session:
        scope = Scope(session, caller.tenant_id)
        found = shown_jobs(scope, live_jobs(scope, LIVE, Job.kind.in_(readable(caller))))
    return page(request, "live", live=found)
