"""The OpenAPI document: FastAPI's, with the one shape of errors and the key that every call needs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.rights import PUBLIC, RIGHTS

ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "what was expected, what was found, what to do"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "the field that is wrong"},
                "code": {"type": ["string", "null"], "description": "a word for programs"},
            },
        }
    },
}
REFUSED = {
    "description": "Refused; `error` says why",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
FAILED = REFUSED | {"description": "The server's fault: a damaged file, a full disk, a database that does not answer"}
KEY = {"type": "http", "scheme": "bearer", "description": "an API key: rsk_..."}


def document(app: FastAPI) -> dict[str, Any]:
    """Made once, when it is first asked for."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        components = made.setdefault("components", {})
        components["schemas"] = {
            name: schema for name, schema in components.get("schemas", {}).items() if "ValidationError" not in name
        } | {"Error": ERROR}
        components["securitySchemes"] = {"key": KEY}
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                _complete(operation, RIGHTS[_line(method, path)] is PUBLIC)
        app.openapi_schema = made
    return app.openapi_schema


def _complete(operation: dict[str, Any], public: bool) -> None:
    operation["responses"].pop("422", None)  # FastAPI's own shape, which is never sent
    operation["responses"] |= {"4XX": REFUSED, "5XX": FAILED}
    if not public:
        operation["security"] = [{"key": []}]


def _line(method: str, path: str) -> str:
    """The line of RIGHTS; the document says `{model_id}` where the route says `{model_id:path}`."""
    return f"{method.upper()} {path}".replace("{model_id}", "{model_id:path}")
