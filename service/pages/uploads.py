"""The file of a form -> a file of the tenant."""

from __future__ import annotations

from starlette.datastructures import FormData, UploadFile

from service.context import Context
from service.database import Scope
from service.errors import ApiError
from service.files import add_file, store
from service.keys import Caller


def kept_file(context: Context, caller: Caller, form: FormData, purpose: str) -> str:
    """Keep what was chosen in the field `file`. Returns its id. Raises ApiError: nothing was chosen, no right."""
    if not caller.may("files:write"):
        raise ApiError(403, "The key that you signed in with may not upload files: it lacks the scope files:write")
    upload = form.get("file")
    if not isinstance(upload, UploadFile) or not upload.filename:
        raise ApiError(400, "Expected a file, found none; choose one first")
    stored = store(context.settings, caller.tenant_id, upload.file)
    with context.database.writing() as session:
        return add_file(Scope(session, caller.tenant_id), stored, upload.filename, purpose).id
