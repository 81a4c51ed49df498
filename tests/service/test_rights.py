"""Every route against every caller who may not: the routes are those that the application has, so none is missed."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from limits import RateLimitItemPerMinute

from service import jobs
from service.auth import PUBLIC as PUBLIC_PATHS
from service.database import Scope
from service.files import add_file, store
from service.keys import SCOPES, create_key, revoke
from service.limits import Limits
from service.models import add_model
from service.pages.shown import IN_PLACE
from service.rights import PUBLIC, RIGHTS, GuardedRoute
from service.sessions import is_page
from tests.service.conftest import Service

ROUTES = [name.split(" ", 1) for name in RIGHTS]
GUARDED = [(method, path) for method, path in ROUTES if RIGHTS[f"{method} {path}"] is not PUBLIC]
API = [(method, path) for method, path in GUARDED if not is_page(path)]
PAGES = [(method, path) for method, path in GUARDED if is_page(path)]
SCOPED = [(method, path) for method, path in GUARDED if RIGHTS[f"{method} {path}"]]
WITH_ID = [(method, path) for method, path in GUARDED if "{" in path]


@pytest.fixture(autouse=True)
def _without_limits(service: Service) -> None:
    """Hundreds of refused calls are not what is limited here."""
    limits: Limits = service.api.app.state.context.limits  # type: ignore[attr-defined]
    limits.calls = limits.failures = RateLimitItemPerMinute(1_000_000)


@dataclass(frozen=True)
class Things:
    """Ids of what the tenant `two` owns, by the route that takes them."""

    file: str
    model: str
    jobs: dict[str, str]

    def address(self, path: str) -> str:
        """A path with ids in it. Fails on a parameter that nobody has thought of."""
        for start, id in (
            ("/v1/looks/", self.jobs["check"]),
            ("/estimates/", self.jobs["estimate"]),
            ("/explanations/", self.jobs["explain"]),
            ("/new/", self.jobs["check"]),
            ("/batches/new/", self.jobs["columns"]),
            ("/v1/batches/", self.jobs["batch"]),
            ("/v1/comparisons/", self.jobs["compare"]),
            ("/v1/fine_tuning/jobs/", self.jobs["fine-tune"]),
            ("/jobs/", self.jobs["fine-tune"]),
            ("/models/", self.jobs["fine-tune"]),
            ("/review/", self.jobs["table"]),
        ):
            if path.startswith(start):
                path = re.sub(r"\{(job|look|check|batch|comparison)_id\}", id, path)
        known = {"file_id": self.file, "model_id:path": self.model, "name": "config.yaml", "move": "cancel"}
        return re.sub(r"\{([^}]+)\}", lambda found: known[found[1]], path)


@pytest.fixture
def theirs(service: Service) -> Things:
    with service.database.writing() as session:
        tenant = create_key(session, "two", "theirs")[0].tenant_id
        scope = Scope(session, tenant)
        kinds: tuple[Any, ...] = ("fine-tune", "compare", "batch", "table", "columns", "check", "estimate", "explain")
        asked = {"model": "m", "training_file": "f", "suffix": None, "data": {}, "hyperparameters": {}}
        made = {kind: jobs.create(scope, kind, asked, {}) for kind in kinds}
        add_model(scope, made["fine-tune"], "ft:base:two:secret:1", "base/model", "secret", ["a", "b"])
        with (service.settings.data_dir / "content").open("w+b") as content:
            file = add_file(scope, store(service.settings, tenant, content), "secret.csv", "batch")
    return Things(file.id, "ft:base:two:secret:1", {kind: job.id for kind, job in made.items()})


def send(http: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    bodies = {"POST /hf/models": {"json": {"inputs": "a"}}}
    body = next((value for start, value in bodies.items() if f"{method} {path}".startswith(start)), {})
    return http.request(method, path, **body | options)


def signed_in(service: Service, key: str) -> TestClient:
    """As a browser that has shown a key."""
    http = TestClient(service.api.app, "http://127.0.0.1", follow_redirects=False, raise_server_exceptions=False)
    assert http.post("/login", data={"key": key}).status_code == 303
    return http


def token(http: httpx.Client) -> dict[str, str]:
    match = re.search(r'name="token" value="([^"]+)"', http.get("/").text)
    assert match is not None
    return {"token": match[1]}


def test_every_route_has_a_line_and_every_line_a_route(service: Service) -> None:
    found, unguarded = set(), []
    for context in iter_route_contexts(service.api.app.routes):  # type: ignore[attr-defined]
        route = context.original_route
        if isinstance(route, GuardedRoute):
            found |= {f"{method} {route.path}" for method in route.methods}
        else:
            unguarded.append(route.path)  # type: ignore[attr-defined]
    assert found == set(RIGHTS)
    assert unguarded == ["/openapi.json"]  # any key may read it


def test_what_needs_no_key_is_one_constant_list() -> None:
    public = {path for method, path in ROUTES if RIGHTS[f"{method} {path}"] is PUBLIC}
    assert public == PUBLIC_PATHS | {"/static/{name}"}


def test_a_route_without_a_line_stops_the_service() -> None:
    with pytest.raises(RuntimeError, match=r"GET /v1/new: service/rights\.py does not say who may call it"):
        GuardedRoute("/v1/new", lambda: None)


@pytest.mark.parametrize("who", ["none", "wrong", "malformed", "expired", "revoked", "in a cookie"])
def test_without_a_good_key_the_api_answers_nothing(service: Service, theirs: Things, who: str) -> None:
    with service.database.writing() as session:
        _, expired = create_key(session, "two", "a", SCOPES, expires_at=time.time() - 1)
        key, revoked = create_key(session, "two", "b", SCOPES)
        _, other = create_key(session, "two", "c", SCOPES)
        revoke(session, key.id)
    wrong = other[:-1] + ("a" if other[-1] != "a" else "b")
    keys = {"wrong": wrong, "malformed": "Bearer", "expired": expired, "revoked": revoked}
    http = signed_in(service, service.key) if who == "in a cookie" else TestClient(service.api.app, "http://127.0.0.1")
    headers = {"Authorization": f"Bearer {keys[who]}"} if who in keys else {}
    for method, path in (*API, ("GET", "/openapi.json")):
        found = send(http, method, theirs.address(path), headers=headers)
        assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key"), (method, path)


@pytest.mark.parametrize("who", ["nobody", "expired", "revoked", "with a key as a header"])
def test_without_a_session_pages_lead_to_the_form(service: Service, theirs: Things, who: str) -> None:
    http = TestClient(service.api.app, "http://127.0.0.1", follow_redirects=False)
    if who == "with a key as a header":
        http.headers["Authorization"] = f"Bearer {service.key}"
    elif who != "nobody":
        with service.database.writing() as session:
            key, text = create_key(session, "two", "a", SCOPES)
        http = signed_in(service, text)
        with service.database.writing() as session:
            if who == "revoked":
                revoke(session, key.id)
            else:
                session.merge(key).expires_at = time.time() - 1
        time.sleep(0.6)  # as long as a key is remembered
    for method, path in PAGES:
        found = send(http, method, theirs.address(path))
        assert (found.status_code, found.headers["location"][:6]) == (303, "/login"), (method, path)


def test_a_key_that_lacks_the_scope_is_refused_before_the_body_is_read(service: Service, theirs: Things) -> None:
    for method, path in SCOPED:
        wanted = RIGHTS[f"{method} {path}"]
        assert wanted
        others = [scope for scope in SCOPES if scope not in wanted and scope != "admin"]
        with service.database.writing() as session:
            _, text = create_key(session, "two", "a", others)
        if is_page(path):
            found = send(signed_in(service, text), method, theirs.address(path))
            message = found.text
        else:
            headers = {"Authorization": f"Bearer {text}"}
            found = send(TestClient(service.api.app, "http://127.0.0.1"), method, theirs.address(path), headers=headers)
            assert found.json()["error"]["code"] == "scope_missing", (method, path)
            message = found.json()["error"]["message"]
        assert found.status_code == 403, (method, path)
        assert f"needs the scope {' or '.join(wanted)}" in message, (method, path)


def test_another_tenants_ids_do_not_exist(service: Service, theirs: Things) -> None:
    with service.database.writing() as session:
        _, mine = create_key(session, "one", "a", SCOPES)
        _, their = create_key(session, "two", "b", SCOPES)
    browser = signed_in(service, mine)
    form = token(browser) | {"row": "1", "by": "0"}  # what a form checks before it looks
    for method, path in WITH_ID:
        address = theirs.address(path)
        if is_page(path):
            options = {"data": form} if method == "POST" else {}
            found = send(browser, method, address, **options)
        else:
            found = send(service.api, method, address, headers={"Authorization": f"Bearer {mine}"})
        assert found.status_code == 404, (method, path, found.text)
        assert "secret" not in found.text.replace(theirs.model, "")
    for path in ("/v1/files/{file_id}", "/v1/looks/{look_id}", "/v1/models/{model_id:path}"):
        address = theirs.address(path)  # which do exist
        assert service.api.get(address, headers={"Authorization": f"Bearer {their}"}).status_code == 200, path


def test_other_methods_are_not_allowed(service: Service, theirs: Things) -> None:
    browser = signed_in(service, service.key)
    for path in {path for _, path in GUARDED}:
        http = browser if is_page(path) else service.api
        found = http.request("PATCH", theirs.address(path))
        assert found.status_code == 405, path


ASKING = ("POST /v1/classify", "POST /v1/chat/completions", "POST /hf/models/{model_id:path}", "POST /try")  # models


def test_who_may_read_changes_nothing_and_who_may_write_may_read() -> None:
    for line, wanted in RIGHTS.items():
        if wanted is PUBLIC or line in ASKING or line == "GET /try":
            continue
        if not line.startswith("GET "):
            assert all(scope.endswith((":write", "admin")) for scope in wanted), line
        for scope in wanted:
            if scope.endswith(":read"):
                assert scope.replace(":read", ":write") in wanted, line


def test_what_a_few_calls_need() -> None:
    assert RIGHTS["DELETE /v1/files/{file_id}"] == ("files:write",)
    assert RIGHTS["POST /v1/fine_tuning/jobs"] == ("jobs:write",)
    assert RIGHTS["DELETE /v1/models/{model_id:path}"] == ("models:write",)
    assert RIGHTS["POST /v1/classify"] == ("models:read",)
    assert RIGHTS["GET /metrics"] == ("admin",)


@pytest.mark.parametrize(
    ("scope", "kinds"),
    [
        ("jobs:read", {"fine-tune", "compare", "columns", "check", "estimate", "explain"}),
        ("batches:read", {"batch", "table", "columns"}),
    ],
)
def test_the_kind_of_a_job_decides_who_may_read_it(
    service: Service, theirs: Things, scope: str, kinds: set[str]
) -> None:
    with service.database.writing() as session:
        _, text = create_key(session, "two", "a", [scope])
    browser, headers = signed_in(service, text), {"Authorization": f"Bearer {text}"}
    for kind, id in theirs.jobs.items():
        allowed = 200 if kind in kinds else 403
        assert browser.get(f"/jobs/{id}").status_code == allowed, kind
        if kind in ("columns", "check", "estimate", "explain"):
            assert service.api.get(f"/v1/looks/{id}", headers=headers).status_code == allowed, kind
        listed = kind in kinds and kind not in IN_PLACE
        assert (id in browser.get("/").text) == listed, kind
