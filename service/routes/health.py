"""Whether the service lives, and whether it is ready."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Depends

from service.context import Context, context_of
from service.errors import ApiError
from service.rights import GuardedRoute

router = APIRouter(route_class=GuardedRoute, tags=["health"])


@router.get("/healthz")
async def alive() -> dict[str, Any]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def ready(context: Annotated[Context, Depends(context_of)]) -> dict[str, Any]:
    """The database answers too."""
    try:
        with context.database.reading() as session:
            session.execute(sa.text("select 1"))
    except sa.exc.SQLAlchemyError:
        raise ApiError(503, "The database does not answer", "not_ready", headers={"Retry-After": "1"}) from None
    return {"status": "ok"}
