"""Files for a browser: the bytes as an attachment."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from service.auth import Calling
from service.context import Context, context_of
from service.pages.render import PageRoute
from service.routes.files import download

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/files/{file_id}")
def read(
    file_id: str,
    context: Annotated[Context, Depends(context_of)],
    caller: Calling,
) -> Response:
    """An upload, or what a job has written."""
    return download(file_id, context, caller)
