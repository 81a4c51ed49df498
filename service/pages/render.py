"""Templates -> answers: headers that allow nothing from elsewhere, and errors as pages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from service.errors import TOLD, told
from service.rights import GuardedRoute
from service.sessions import COOKIE, Sessions, is_partial
from service.units import duration

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "HX-Request",
}
log = logging.getLogger(__name__)


def page(request: Request, name: str, status: int = 200, **values: Any) -> Response:
    """A template as an answer. Every one knows who is signed in, and the token for its forms."""
    caller = getattr(request.state, "caller", None)
    cookie = request.cookies.get(COOKIE, "")
    shared = {
        "caller": caller,
        "token": sessions_of(request).token(cookie) if caller is not None else "",
        "here": request.url.path,
        "status": status,
    }
    html = ENVIRONMENT.get_template(f"{name}.html.j2").render(shared | values)
    return HTMLResponse(html, status, HEADERS)


def go(request: Request, url: str) -> Response:
    """Lead a browser to another page, after a form or a click that htmx has sent."""
    if is_partial(request):
        return Response(status_code=204, headers=HEADERS | {"HX-Redirect": url})
    return RedirectResponse(url, 303, HEADERS)


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


class PageRoute(GuardedRoute):
    """A route whose errors are pages. What is sent to a part of a page is shown in its place for messages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handler(request)
            except (*TOLD, ValidationError) as error:  # pages make the bodies of calls themselves
                known = told(error)
                return problem(request, known.status, known.message)
            except Exception:
                id = request.state.request_id
                log.exception("%s: %s %s", id, request.method, request.url.path)
                return problem(request, 500, f"The server made a mistake; it has been logged as {id}")

        return handled


def problem(request: Request, status: int, message: str) -> Response:
    """An error as a page, or in the place for messages of the page that is open."""
    if is_partial(request):
        html = ENVIRONMENT.get_template("problem.html.j2").render(message=message)
        return HTMLResponse(html, status, HEADERS | {"HX-Retarget": "#message", "HX-Reswap": "innerHTML"})
    return page(request, "error", status, message=message)


# ---- filters


def _time(value: float | None) -> Markup:
    """A moment; a script puts it into the reader's zone."""
    if value is None:
        return Markup("–")
    moment = datetime.fromtimestamp(value, UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%Y-%m-%d %H:%M")
    )


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"time": _time, "duration": _duration, "cut": _cut}
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["share"] = lambda value: f"{100 * value:.1f}%"
    return environment


ENVIRONMENT = _environment()
