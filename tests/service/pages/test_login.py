"""In with a key, out again; nothing without either; no form of another site's."""

from __future__ import annotations

import time

import pytest
from fastapi.testclient import TestClient

from service.keys import find_caller, revoke
from service.pages.login import own_path
from service.sessions import COOKIE
from tests.service.conftest import Service
from tests.service.pages.conftest import Browser

PAGES = ("/", "/live", "/new", "/models", "/try", "/batches", "/batches/new", "/jobs/x", "/files/x")


@pytest.fixture
def stranger(service: Service) -> TestClient:
    return TestClient(service.api.app, "http://127.0.0.1", follow_redirects=False)


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_is_led_to_the_form_and_back(stranger: TestClient, path: str) -> None:
    found = stranger.get(path)
    assert found.status_code == 303
    assert found.headers["location"].startswith("/login")
    if path != "/":
        assert found.headers["location"].endswith(path.replace("/", "%2F"))


def test_a_part_of_a_page_leads_the_whole_page_to_the_form(stranger: TestClient) -> None:
    found = stranger.get("/live", headers={"HX-Request": "true"})
    assert (found.status_code, found.headers["hx-redirect"]) == (401, "/login")


def test_a_wrong_key_is_told_and_nothing_is_set(stranger: TestClient) -> None:
    found = stranger.post("/login", data={"key": "rsk_wrong", "next": "/models"})
    assert found.status_code == 401
    assert "unknown, expired or revoked" in found.text
    assert 'value="/models"' in found.text
    assert "set-cookie" not in found.headers


def test_wrong_keys_are_bounded(stranger: TestClient) -> None:
    found = [stranger.post("/login", data={"key": "x"}).status_code for _ in range(130)]
    assert (found[0], found[-1]) == (401, 429)


def test_a_good_key_leads_where_the_reader_wanted(stranger: TestClient, service: Service) -> None:
    found = stranger.post("/login", data={"key": service.key, "next": "/models"})
    assert (found.status_code, found.headers["location"]) == (303, "/models")
    cookie = found.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert service.key not in cookie
    assert stranger.get("/models").status_code == 200


def test_a_form_of_another_site_signs_nobody_in(stranger: TestClient, service: Service) -> None:
    found = stranger.post("/login", data={"key": service.key}, headers={"Sec-Fetch-Site": "cross-site"})
    assert found.status_code == 403
    assert "set-cookie" not in found.headers


@pytest.mark.parametrize("path", ["https://evil.example", "//evil.example", "/\\evil.example", "data:x", "/a\nb", ""])
def test_no_link_leads_away(path: str) -> None:
    assert own_path(path) == "/"


def test_signing_out_ends_the_session(browser: Browser) -> None:
    assert browser.post("/logout").headers["location"] == "/login"
    assert browser.get("/models").status_code == 303


def test_a_revoked_key_ends_its_sessions_within_a_second(browser: Browser) -> None:
    with browser.service.database.writing() as session:
        caller = find_caller(session, browser.service.key)
        assert caller is not None
        revoke(session, caller.key_id)
    time.sleep(0.6)
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize("path", ["/logout", "/new", "/compare", "/batches/new", "/try", "/jobs/x/cancel"])
@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_forms_without_the_sessions_token_are_refused(browser: Browser, path: str, token: str | None) -> None:
    found = browser.http.post(path, data={} if token is None else {"token": token})
    assert found.status_code == 403
    assert "reload the page" in found.text


def test_the_api_takes_no_cookie_and_pages_take_no_header(browser: Browser) -> None:
    assert browser.get("/v1/files").status_code == 401
    browser.http.cookies.delete(COOKIE)
    assert browser.get("/", headers={"Authorization": f"Bearer {browser.service.key}"}).status_code == 303


def test_what_is_static_needs_no_key_and_nothing_else_is(stranger: TestClient) -> None:
    for name, kind in (("pages.css", "text/css"), ("pages.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        found = stranger.get(f"/static/{name}")
        assert (found.status_code, found.headers["content-type"].partition(";")[0]) == (200, kind)
    for name in ("nothing", "..%2flogin.py", "%2e%2e/login.py"):
        assert stranger.get(f"/static/{name}").status_code in (303, 404)
