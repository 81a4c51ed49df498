"""A cap on request bodies while they are read: a client may lie about their length, or not give any."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ApiError

JSON_BYTES = 8 << 20  # of every request that is no upload
UPLOADS = frozenset({"/v1/files", "/new", "/batches/new", "/compare"})
FORM_BYTES = 64 << 10  # of a form, beside its file


class BodyLimit:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, upload_bytes: int) -> None:
        self.app, self.upload_bytes = app, upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        upload = scope["method"] == "POST" and scope["path"] in UPLOADS
        most = self.upload_bytes + FORM_BYTES if upload else JSON_BYTES
        if _declared(scope) > most:
            return await _too_large(most).response()(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise _too_large(most)
            return message

        return await self.app(scope, counted, send)


def _declared(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"expected at most {most / 2**20:.0f} MiB; split the file", "file_too_large", "file")
