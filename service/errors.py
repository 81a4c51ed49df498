"""The one shape of an error over HTTP, and which status each has. `api.md` section 3 holds the table.

A permanent refusal is never 409 or 5xx without `x-should-retry: false`: clients would send it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi import HTTPException as FastAPIHTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipelines.errors import RootstockError
from service.sessions import is_page

TYPES = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    507: "server_error",
}


class ApiError(FastAPIHTTPException):
    """An answer other than the one asked for. FastAPI lets an exception of its own pass where a body is read.

    Args:
        status: HTTP status.
        message: expected, found, next step.
        code: a word for programs.
        param: the field that is wrong, where it is one.
        headers: such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.status, self.message, self.code, self.param = status, message, code, param

    def response(self) -> Response:
        headers = dict(self.headers or {})
        if self.status == 507:
            headers["x-should-retry"] = "false"
        return error_response(self.status, self.message, self.code, self.param, headers)


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """A request that cannot be carried out as it is."""
    return ApiError(400, message, code, param)


def missing(what: str, id: str, code: str) -> ApiError:
    """An object that does not exist, or not for this tenant: nobody learns which."""
    return ApiError(404, f"No such {what}: {_shown(id)}", code, "id")


def error_response(
    status: int, message: str, code: str | None, param: str | None, headers: Mapping[str, str] | None = None
) -> Response:
    body = {"error": {"message": message, "type": TYPES.get(status, "server_error"), "param": param, "code": code}}
    return Response(json.dumps(body), status, headers, media_type="application/json")


TOLD = (ApiError, RequestValidationError, RootstockError, DataError, OperationalError)


def install(
    app: FastAPI, problem: Callable[[Request, int, str], Response], methods: Callable[[str], Sequence[str]]
) -> None:
    """Every exception ends in the one shape; none shows a traceback.

    Args:
        problem: makes the answer where a browser asked for a page that is none.
        methods: those that a path has: the framework names those of one route only.
    """

    async def known(_: Request, error: Exception) -> Response:
        return told(error).response()

    for kind in TOLD:
        app.add_exception_handler(kind, known)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        browser = is_page(request.url.path) and "text/html" in request.headers.get("accept", "")
        if browser and error.status_code == 404:
            return problem(request, 404, "There is no such page")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(methods(request.url.path)) or headers.get("Allow", "")
        message = _http_message(request, error.status_code, str(error.detail), headers)
        return error_response(error.status_code, message, _http_code(error), None, headers)


def told(error: Exception) -> ApiError:
    """What a client is told of one of TOLD, over the API and on pages."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError | ValidationError):
        param, message = _first(error.errors())
        return invalid(message, param)
    if isinstance(error, RootstockError):
        return ApiError(400, str(error), getattr(error, "code", "invalid_value"), getattr(error, "param", None))
    if isinstance(error, DataError):
        return invalid("The request holds characters or numbers that cannot be kept")
    assert isinstance(error, OperationalError)
    if "full" in str(error.orig):
        return ApiError(507, "There is no room left on the server's disk", "insufficient_storage")
    return ApiError(503, "The database does not answer", "not_ready", None, {"Retry-After": "1"})


def _first(problems: Any) -> tuple[str | None, str]:
    """The field and the message of the first problem; how many more there are."""
    first = problems[0]
    place = [str(part) for part in first["loc"] if _is_name(part)]
    param = ".".join(place) or None
    found = (
        "" if first["type"] in ("missing", "json_invalid", "extra_forbidden") else f"; found {_shown(first['input'])}"
    )
    text = {
        "missing": "a required field is missing",
        "extra_forbidden": "unknown field",
        "json_invalid": f"the body is not valid JSON: {first.get('ctx', {}).get('error', '')}",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    if first["type"] == "json_invalid":
        return None, text
    return param, f"{param}: {text}{found}{more}" if param else f"{text}{found}{more}"


def _is_name(part: str | int) -> bool:
    """Whether a part of a place is a field or a number in a list; pydantic adds where it looked and what it tried."""
    if isinstance(part, int):
        return True
    return part.isidentifier() and part not in ("body", "query", "path", "header", "str", "int", "float")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _http_message(request: Request, status: int, detail: str, headers: Mapping[str, str]) -> str:
    if status == 404:
        return f"Unknown path: {request.method} {request.url.path[:200]}; GET /openapi.json lists those that exist"
    if status == 405:
        return f"{request.method} is not allowed here; allowed: {headers['Allow']}"
    return detail


def _http_code(error: HTTPException) -> str:
    return {404: "unknown_path", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
