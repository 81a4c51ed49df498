"""Templates -> answers: headers that allow nothing from elsewhere, and errors as pages."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.exc import OperationalError
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

from pipelines.errors import RootstockError
from service.errors import ApiError
from service.sessions import COOKIE, Sessions

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
FIELDS = 64  # of a form
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


def is_partial(request: Request) -> bool:
    """Whether htmx asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def sessions_of(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


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


class PageRoute(APIRoute):
    """A route whose errors are pages. What is sent to a part of a page is shown in its place for messages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handler(request)
            except ApiError as error:
                return _error(request, error.status, error.message)
            except RequestValidationError:
                return _error(request, 404, "There is no such page")
            except RootstockError as error:
                return _error(request, 400, str(error))
            except OperationalError:
                return _error(request, 503, "The database does not answer; try again in a moment")
            except Exception:
                id = request.state.request_id
                log.exception("%s: %s %s", id, request.method, request.url.path)
                return _error(request, 500, f"The server made a mistake; it has been logged as {id}")

        return handled


def _error(request: Request, status: int, message: str) -> Response:
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
    """`42 s`, `3 min`, `2:10 h`."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60}:{minutes % 60:02d} h"


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


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
    environment.filters |= {"time": _time, "duration": _duration, "size": _size, "cut": _cut}
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["share"] = lambda value: f"{100 * value:.1f}%"
    return environment


ENVIRONMENT = _environment()
