"""Files: upload, list, read, download, delete."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import FileResponse, Response

from service.auth import Calling
from service.context import Context, context_of
from service.database import Scope
from service.errors import ApiError, invalid, missing
from service.files import PURPOSES, add_file, delete_file, get_file, path_of, store
from service.idempotency import create_of
from service.keys import Caller
from service.objects import file_object
from service.paging import listed, page
from service.quotas import check_bytes, check_upload
from service.rights import GuardedRoute
from service.short_reads import short_read
from service.tables import File
from service.verified import intact

router = APIRouter(route_class=GuardedRoute, prefix="/v1/files", tags=["files"])
Here = Annotated[Context, Depends(context_of)]
LONGEST_S, SHORTEST_S = 2_592_000, 3600
FORM = {  # FastAPI would read the whole form before the handler is asked
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S},
                    },
                }
            }
        },
    }
}


@router.post("", openapi_extra=FORM)
async def upload(request: Request, context: Here, caller: Calling) -> dict[str, Any]:
    """Upload a file."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise invalid("expected multipart/form-data with the fields file and purpose")
    async with request.form(max_files=1, max_fields=8) as form:
        file, purpose, lifetime = _fields(form)
        return await to_thread.run_sync(_keep, request, context, caller, file, purpose, lifetime)


def _keep(
    request: Request, context: Context, caller: Caller, upload: UploadFile, purpose: str, lifetime: int | None
) -> dict[str, Any]:
    check_upload(context.settings.limits, context.database, caller.tenant_id, upload.file)
    stored = store(context.settings, caller.tenant_id, upload.file)
    name = upload.filename or "upload"
    create = create_of(request, [name, purpose, lifetime, stored.sha256])
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        file = get_file(scope, create.earlier(scope) or "")
        if file is None:
            check_bytes(context.settings.limits, scope, stored)
            file = add_file(scope, stored, name, purpose, None if lifetime is None else time.time() + lifetime)
            create.answer(scope, file.id)
        return file_object(file)


def _fields(form: FormData) -> tuple[UploadFile, str, int | None]:
    """File, purpose, seconds until it expires. Raises ApiError 400."""
    known = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
    unknown = [name for name in form if name not in known]
    if unknown:
        raise invalid(f"unknown field; expected {', '.join(known)}", unknown[0][:100])
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise invalid("a required field is missing, or it is no file", "file")
    if purpose not in PURPOSES:
        raise invalid(f"expected one of {', '.join(PURPOSES)}; found {str(purpose)[:100]!r}", "purpose")
    return file, str(purpose), _lifetime(form)


def _lifetime(form: FormData) -> int | None:
    anchor, seconds = form.get("expires_after[anchor]"), form.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise invalid("expected created_at", "expires_after[anchor]")
    number = int(seconds) if isinstance(seconds, str) and seconds.isdecimal() and len(seconds) < 10 else 0
    if not SHORTEST_S <= number <= LONGEST_S:
        raise invalid(f"expected {SHORTEST_S} to {LONGEST_S} seconds", "expires_after[seconds]")
    return number


@router.get("")
def list_files(
    context: Here,
    caller: Calling,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> dict[str, Any]:
    """The tenant's files."""
    live = (File.expires_at.is_(None)) | (File.expires_at > time.time())
    conditions: list[sa.ColumnElement[bool]] = [File.deleted_at.is_(None), live]
    conditions += [File.purpose == purpose] if purpose is not None else []
    with context.database.reading() as session:
        rows, more = page(Scope(session, caller.tenant_id), File, after, limit, *conditions, order=order)
    return listed(rows, more, file_object)


@router.get("/{file_id}")
@short_read
def read_file(file_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """One file's description."""
    with context.database.reading() as session:
        return file_object(_the_file(Scope(session, caller.tenant_id), file_id))


@router.delete("/{file_id}")
def remove_file(file_id: str, context: Here, caller: Calling) -> dict[str, Any]:
    """Delete a file."""
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        delete_file(scope, _the_file(scope, file_id))
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/{file_id}/content", response_class=Response)
def download(file_id: str, context: Here, caller: Calling) -> Response:
    """The bytes, as they were uploaded or written."""
    with context.database.reading() as session:
        file = _the_file(Scope(session, caller.tenant_id), file_id)
    path = path_of(context.settings, file)
    if not path.is_file():
        raise ApiError(404, f"The content of {file_id} is gone", "file_not_found", "id")
    headers = {"X-Content-Type-Options": "nosniff"}
    content = intact(path, file.sha256, file_id)
    return FileResponse(content, media_type="application/octet-stream", filename=file.filename, headers=headers)


def _the_file(scope: Scope, id: str) -> File:
    file = get_file(scope, id)
    if file is None:
        raise missing("File object", id, "file_not_found")
    return file
