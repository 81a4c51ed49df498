"""Sign in with an API key, and out; what needs no key: stylesheet and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData
from starlette.responses import FileResponse, Response

from service.context import Context, context_of
from service.errors import ApiError
from service.keys import find_caller
from service.pages.forms import form_of, word
from service.pages.render import HEADERS, PageRoute, go, page, sessions_of
from service.sessions import COOKIE, LASTS_S

router = APIRouter(route_class=PageRoute, include_in_schema=False)
STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@router.get("/login")
def ask(request: Request, next: str = "/") -> Response:
    """The form."""
    return page(request, "login", next=own_path(next), problem="")


@router.post("/login")
async def sign_in(request: Request, context: Annotated[Context, Depends(context_of)]) -> Response:
    """A key -> a session. Needs no form token: whoever sends a key needs no cookie of somebody else's."""
    async with request.form(max_files=0, max_fields=4) as form:
        text, target = word(form, "key"), own_path(word(form, "next"))
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none"):
        raise ApiError(403, "This form is another site's")
    key_id = await to_thread.run_sync(_key_of, context, text)
    if key_id is None:
        context.limits.take_failure(request.client.host if request.client else "")
        problem = "Expected an API key such as rsk_…, found an unknown, expired or revoked one."
        return page(request, "login", 401, next=target, problem=problem)
    answer = go(request, target)
    answer.set_cookie(
        COOKIE, sessions_of(request).cookie(key_id), max_age=LASTS_S, httponly=True, samesite="lax",
        secure=request.url.scheme == "https",
    )  # fmt: skip
    return answer


@router.post("/logout")
def sign_out(request: Request, _: Annotated[FormData, Depends(form_of)]) -> Response:
    """End the session in this browser."""
    answer = go(request, "/login")
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return answer


@router.get("/static/{name}")
def static(name: str) -> Response:
    """Stylesheet, scripts, icon: shipped with the package."""
    path = STATIC / name
    if name not in {each.name for each in STATIC.iterdir()} or path.suffix not in TYPES:
        raise ApiError(404, "There is no such file")
    headers = HEADERS | {"Cache-Control": "max-age=3600"}
    return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)


def own_path(path: str) -> str:
    """A page of this site; home for anything else, so that no link leads a reader away after signing in."""
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if plain else "/"


def _key_of(context: Context, text: str) -> str | None:
    """Id of the key; None for one that is wrong, expired or revoked."""
    with context.database.reading() as session:
        caller = find_caller(session, text)
    return None if caller is None else caller.key_id
