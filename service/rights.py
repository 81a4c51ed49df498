"""What a key must be allowed to do, route by route. A route without a line here stops the service from starting."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from functools import cache
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from service import jobs
from service.auth import caller_of
from service.errors import ApiError
from service.keys import RESOURCES, Caller

PUBLIC = None  # no key: `auth.PUBLIC` has the same paths
ANY: tuple[str, ...] = ()  # whatever the key may do
FILES, JOBS, BATCHES, MODELS = ((f"{name}:read", f"{name}:write") for name in RESOURCES)

# Method and path -> scopes, of which one is enough. Who may write may read.
RIGHTS: dict[str, tuple[str, ...] | None] = {
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": ("admin",),
    "POST /v1/files": ("files:write",),
    "GET /v1/files": FILES,
    "GET /v1/files/{file_id}": FILES,
    "DELETE /v1/files/{file_id}": ("files:write",),
    "GET /v1/files/{file_id}/content": FILES,
    "POST /v1/fine_tuning/jobs": ("jobs:write",),
    "GET /v1/fine_tuning/jobs": JOBS,
    "GET /v1/fine_tuning/jobs/{job_id}": JOBS,
    "POST /v1/fine_tuning/jobs/{job_id}/cancel": ("jobs:write",),
    "POST /v1/fine_tuning/jobs/{job_id}/pause": ("jobs:write",),
    "POST /v1/fine_tuning/jobs/{job_id}/resume": ("jobs:write",),
    "POST /v1/fine_tuning/jobs/{job_id}/retry": ("jobs:write",),
    "GET /v1/fine_tuning/jobs/{job_id}/events": JOBS,
    "GET /v1/fine_tuning/jobs/{job_id}/checkpoints": JOBS,
    "GET /v1/fine_tuning/jobs/{job_id}/report": JOBS,
    "GET /v1/fine_tuning/jobs/{job_id}/stream": JOBS,
    "POST /v1/comparisons": ("jobs:write",),
    "GET /v1/comparisons/{comparison_id}": JOBS,
    "GET /v1/comparisons/{comparison_id}/report": JOBS,
    "POST /v1/data/columns": ("batches:write", "jobs:write"),
    "POST /v1/data/check": ("jobs:write",),
    "POST /v1/probes": ("jobs:write",),
    "POST /v1/estimates": ("jobs:write",),
    "POST /v1/explanations": ("jobs:write",),
    "GET /v1/looks/{look_id}": (*JOBS, *BATCHES),  # which, its kind decides: `require_kind`
    "POST /v1/looks/{look_id}/cancel": ("jobs:write",),
    "GET /v1/looks/{look_id}/report": (*JOBS, *BATCHES),
    "POST /v1/batches": ("batches:write",),
    "GET /v1/batches": BATCHES,
    "GET /v1/batches/{batch_id}": BATCHES,
    "POST /v1/batches/{batch_id}/cancel": ("batches:write",),
    "GET /v1/models": MODELS,
    "GET /v1/models/{model_id:path}": MODELS,
    "DELETE /v1/models/{model_id:path}": ("models:write",),
    "PUT /v1/models/{model_id:path}/aliases/{name}": ("models:write",),
    "DELETE /v1/models/{model_id:path}/aliases/{name}": ("models:write",),
    "POST /v1/classify": ("models:read",),
    "POST /v1/chat/completions": ("models:read",),
    "POST /hf/models/{model_id:path}": ("models:read",),
    "GET /v1/usage": ANY,
    # pages
    "GET /login": PUBLIC,
    "POST /login": PUBLIC,
    "GET /static/{name}": PUBLIC,
    "POST /logout": ANY,
    "GET /": ANY,  # lists what the key may read
    "GET /live": ANY,
    "GET /new": ("jobs:write",),
    "POST /new": ("jobs:write",),
    "GET /new/{check_id}": ("jobs:write",),
    "GET /new/{check_id}/data": ("jobs:write",),
    "POST /new/{check_id}/columns": ("jobs:write",),
    "POST /new/{check_id}/estimate": ("jobs:write",),
    "POST /new/{check_id}/train": ("jobs:write",),
    "GET /estimates/{look_id}": ("jobs:write",),
    "GET /jobs/{job_id}": (*JOBS, *BATCHES),
    "GET /jobs/{job_id}/live": (*JOBS, *BATCHES),
    "POST /jobs/{job_id}/{move}": ("jobs:write", "batches:write"),  # which, the kind of the job decides
    "GET /jobs/{job_id}/report": (*JOBS, *BATCHES),
    "GET /models": MODELS,
    "GET /models/{job_id}": MODELS,
    "GET /models/{job_id}/files/{name}": MODELS,
    "POST /models/{job_id}/aliases": ("models:write",),
    "POST /models/{job_id}/aliases/remove": ("models:write",),
    "POST /models/{job_id}/delete": ("models:write",),
    "GET /compare": ("jobs:write",),
    "POST /compare": ("jobs:write",),
    "GET /try": ("models:read",),
    "POST /try": ("models:read",),
    "POST /try/why": ("jobs:write",),
    "GET /explanations/{look_id}": JOBS,
    "GET /batches": BATCHES,
    "GET /batches/new": ("batches:write",),
    "POST /batches/new": ("batches:write",),
    "GET /batches/new/{look_id}": ("batches:write",),
    "GET /batches/new/{look_id}/columns": ("batches:write",),
    "POST /batches/new/{look_id}": ("batches:write",),
    "GET /review": BATCHES,
    "GET /review/{job_id}": BATCHES,
    "POST /review/{job_id}": ("batches:write",),
    "GET /review/{job_id}/examples": BATCHES,
    "POST /review/{job_id}/train": ("jobs:write",),
    "GET /files/{file_id}": FILES,
}


class GuardedRoute(APIRoute):
    """A route that asks RIGHTS before anything of the body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        rights = {method: self._right(method) for method in self.methods or ()}

        async def guarded(request: Request) -> Response:
            wanted = rights[request.method]
            if wanted is not PUBLIC:
                _require(caller_of(request), wanted)
            return await handler(request)

        return guarded

    def _right(self, method: str) -> tuple[str, ...] | None:
        name = f"{method} {self.path}"
        if name not in RIGHTS:
            raise RuntimeError(f"{name}: service/rights.py does not say who may call it")
        return RIGHTS[name]


def methods_of(path: str) -> list[str]:
    """The methods of the route that is nearest to an address: the one with most words of its own."""
    for template, methods in _templates():
        if template.fullmatch(path):
            return methods
    return []


@cache
def _templates() -> list[tuple[re.Pattern[str], list[str]]]:
    """Every path as a pattern, those with most words of their own first, and its methods."""
    found: dict[str, list[str]] = {}
    for line in RIGHTS:
        method, path = line.split(" ", 1)
        found.setdefault(path, []).append(method)
    paths = sorted(found, key=lambda path: -len(re.sub(r"\{.*?\}", "", path)))
    return [(compile_path(path)[0], sorted(found[path])) for path in paths]


def readable(caller: Caller) -> list[jobs.Kind]:
    """The kinds of jobs that a key may read."""
    return [kind for kind in jobs.PREFIXES if any(map(caller.may, _of_kind(kind)))]


def require_kind(caller: Caller, kind: str) -> None:
    """Raises ApiError 403 for a kind of job that the key may not read."""
    _require(caller, _of_kind(kind))


def _of_kind(kind: str) -> tuple[str, ...]:
    if kind == "columns":  # of a file that is to be labelled, or trained on
        return (*JOBS, *BATCHES)
    return BATCHES if kind in ("batch", "table") else JOBS


def _require(caller: Caller, wanted: tuple[str, ...]) -> None:
    """Raises ApiError 403."""
    if wanted and not any(caller.may(scope) for scope in wanted):
        have, needed = ", ".join(sorted(caller.scopes)), " or ".join(wanted)
        raise ApiError(403, f"This key may not do that: it needs the scope {needed} and has {have}", "scope_missing")
