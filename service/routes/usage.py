"""What the tenant uses, and how much it may."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.quotas import usage_object, usage_of
from service.rights import GuardedRoute

router = APIRouter(route_class=GuardedRoute, tags=["usage"])


@router.get("/v1/usage")
def usage(context: Annotated[Context, Depends(context_of)], caller: Calling) -> dict[str, Any]:
    """Bytes kept, jobs at once, rows and CPU seconds of today (UTC), each with its limit."""
    with context.database.reading() as session:
        return usage_object(usage_of(context.settings.limits, Scope(session, caller.tenant_id)))
