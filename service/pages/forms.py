"""Forms of pages: their token, their fields, their file."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from service.context import Context
from service.database import Scope
from service.errors import ApiError
from service.files import add_file, store
from service.keys import Caller
from service.pages.render import sessions_of
from service.quotas import check_bytes, check_upload
from service.sessions import COOKIE

FIELDS, DIGITS = 64, 9  # of a form, of a number in it


async def form_of(request: Request) -> AsyncIterator[FormData]:
    """A dependency: the form of a request, which carries the session's token. Raises ApiError 403."""
    async with request.form(max_files=1, max_fields=FIELDS) as form:
        token = request.headers.get("x-csrf-token") or form.get("token") or ""
        if not isinstance(token, str) or not sessions_of(request).is_token(token, request.cookies.get(COOKIE, "")):
            raise ApiError(403, "This form is too old, or it is another site's; reload the page and send it again")
        yield form


def word(form: FormData, name: str) -> str:
    """A text field without space around it; empty where there is none."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def raw(form: FormData, name: str) -> str:
    """A text field as it was sent: names of columns and classes may begin or end with spaces."""
    value = form.get(name)
    return value if isinstance(value, str) else ""


def number(form: FormData, name: str) -> int:
    """A field that holds a whole number. Raises ApiError 400."""
    value = word(form, name)
    if not value.isdecimal() or len(value) > DIGITS:
        raise ApiError(400, f"{name}: expected a whole number, found {value[:40]!r}")
    return int(value)


def may_upload(caller: Caller) -> None:
    """Raises ApiError 403."""
    if not caller.may("files:write"):
        raise ApiError(403, "The key that you signed in with may not upload files: it lacks the scope files:write")


def kept_file(context: Context, caller: Caller, form: FormData, purpose: str) -> str:
    """Keep what was chosen in the field `file`. Returns its id. Raises ApiError: nothing was chosen, no right."""
    may_upload(caller)
    upload = form.get("file")
    if not isinstance(upload, UploadFile) or not upload.filename:
        raise ApiError(400, "Expected a file, found none; choose one first")
    check_upload(context.settings.limits, context.database, caller.tenant_id, upload.file)
    stored = store(context.settings, caller.tenant_id, upload.file)
    with context.database.writing() as session:
        scope = Scope(session, caller.tenant_id)
        check_bytes(context.settings.limits, scope, stored)
        return add_file(scope, stored, upload.filename, purpose).id
