"""Who may call: checked in front of everything, so that a route that forgets to ask is closed, not open."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.audit import Actor, acting
from service.database import Database
from service.errors import ApiError, error_response
from service.ids import new_id
from service.keys import Caller, find_caller, find_caller_by_id, note_use
from service.limits import Limits
from service.sessions import COOKIE, Sessions, is_page, is_partial

PUBLIC = frozenset({"/healthz", "/readyz", "/login"})  # the constant list of paths that need no key, with what is below
PUBLIC_FOLDER = "/static/"  # stylesheet and scripts
log = logging.getLogger(__name__)
KNOWN_S = 0.5  # a key that was looked up this long ago is not looked up again: revoked within a second
KNOWN_MOST = 10_000
LookUp = Callable[[Session, str], Caller | None]


class Authenticated:
    """ASGI middleware: a request id for all, then a key for all but PUBLIC, then the limits of that key.

    The API takes a key as a header only, pages a session cookie only.
    """

    def __init__(
        self, app: ASGIApp, database: Database, limits: Limits, sessions: Sessions, hosts: Iterable[str]
    ) -> None:
        self.app, self.limits, self.sessions, self.hosts = app, limits, sessions, frozenset(hosts)
        self.callers = KnownCallers(database)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            raise RuntimeError(f"expected an HTTP request, found {scope['type']}")
        headers, begun = {"x-request-id": new_id("req_")}, False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        try:
            self._check_host(scope)
            path = scope["path"]
            if path not in PUBLIC and not path.startswith(PUBLIC_FOLDER):
                caller = await (self._reader(scope) if is_page(path) else self._caller(scope))
                headers |= self.limits.take(caller.key_id)
                scope.setdefault("state", {})["caller"] = caller
            scope.setdefault("state", {})["request_id"] = headers["x-request-id"]
        except ApiError as error:
            headers |= error.headers or {}
            return await error.response()(scope, receive, with_headers)
        try:
            with self._acting(scope):
                await self.app(scope, receive, with_headers)
        except Exception:
            log.exception("%s: %s %s", headers["x-request-id"], scope["method"], scope["path"])
            if begun:
                raise
            message = f"The server made a mistake; it has been logged as {headers['x-request-id']}"
            await error_response(500, message, "internal_error", None)(scope, receive, with_headers)

    def _acting(self, scope: Scope) -> AbstractContextManager[None]:
        """What this call changes is noted as its key's."""
        state = scope["state"]
        if "caller" not in state:
            return nullcontext()
        address = (scope.get("client") or (None,))[0]
        return acting(Actor(state["caller"].key_id, state["request_id"], address))

    def _check_host(self, scope: Scope) -> None:
        """Against pages of other sites that have a name lead here (DNS rebinding). Raises ApiError 400."""
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if name.lower() not in self.hosts:
            message = "This host name is not served here; the operator can add it to ROOTSTOCK_HOSTS"
            raise ApiError(400, message, "invalid_host")

    async def _caller(self, scope: Scope) -> Caller:
        address = (scope.get("client") or ("",))[0]
        text = _bearer(scope)
        caller = await self.callers.find(text) if text else None
        if caller is None:
            self.limits.take_failure(address)
            found = "an unknown, expired or revoked one" if text else "none"
            raise ApiError(
                401,
                f"Expected an API key as `Authorization: Bearer rsk_...`, found {found}; "
                "`rootstock keys create` makes one",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return caller

    async def _reader(self, scope: Scope) -> Caller:
        """Who is signed in. Raises SignIn."""
        request = Request(scope)
        key_id = self.sessions.key_of(request.cookies.get(COOKIE, ""))
        caller = await self.callers.find(key_id, find_caller_by_id) if key_id else None
        if caller is None:
            raise SignIn(request)
        return caller


class SignIn(ApiError):
    """Nobody is signed in: the answer leads to the form."""

    def __init__(self, request: Request) -> None:
        super().__init__(401, "Sign in first", "invalid_api_key")
        wanted = request.url.path if request.method == "GET" else "/"
        self.partial = is_partial(request)
        self.url = "/login" if wanted == "/" or self.partial else f"/login?{urlencode({'next': wanted})}"

    def response(self) -> Response:
        if self.partial:
            return Response(status_code=401, headers={"HX-Redirect": self.url})
        return RedirectResponse(self.url, 303)


class KnownCallers:
    """Keys that were looked up in the last KNOWN_S seconds, by their text or by the id in a session."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.known: dict[str, tuple[float, Caller]] = {}

    async def find(self, text: str, look_up: LookUp = find_caller) -> Caller | None:
        since, caller = self.known.get(text, (0.0, None))
        if caller is None or time.monotonic() - since > KNOWN_S:
            caller = await to_thread.run_sync(self._look_up, text, look_up)
            if len(self.known) >= KNOWN_MOST:
                self.known.clear()
            if caller is None:
                self.known.pop(text, None)
                return None
            self.known[text] = (time.monotonic(), caller)
        if caller.expires_at is not None and caller.expires_at <= time.time():
            return None
        return caller

    def _look_up(self, text: str, look_up: LookUp) -> Caller | None:
        with self.database.reading() as session:
            caller = look_up(session, text)
        if caller is not None and caller.use_is_old:
            with suppress(SQLAlchemyError), self.database.writing() as session:  # a full disk must not stop reads
                note_use(session, caller)
        return caller


def caller_of(request: Request) -> Caller:
    """Who called."""
    caller: Caller = request.state.caller
    return caller


async def _calling(request: Request) -> Caller:
    return caller_of(request)


Calling = Annotated[Caller, Depends(_calling)]  # a parameter of a route: who calls; `rights` has let it pass


def _bearer(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    kind, _, text = values[0].decode("latin-1").partition(" ")
    return text.strip() if kind.lower() == "bearer" else None
