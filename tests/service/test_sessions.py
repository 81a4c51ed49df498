"""Cookies and form tokens: made by this service, for this session, not too old."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from itsdangerous import URLSafeTimedSerializer

from service.sessions import LASTS_S, SECRET, Sessions, is_page


def test_a_cookie_names_its_key(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    one, two = sessions.cookie("key_a"), sessions.cookie("key_a")
    assert one != two
    assert sessions.key_of(one) == sessions.key_of(two) == "key_a"


def test_a_changed_cookie_names_none(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    cookie = sessions.cookie("key_a")
    for changed in (cookie[:-1], "x" + cookie, cookie.replace(".", "", 1), ""):
        assert sessions.key_of(changed) is None


def test_another_services_cookie_names_none(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert Sessions(tmp_path / "one").key_of(Sessions(tmp_path / "two").cookie("key_a")) is None


def test_an_old_cookie_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = Sessions(tmp_path)
    cookie = sessions.cookie("key_a")
    now = URLSafeTimedSerializer("x").make_signer().get_timestamp()
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: now + LASTS_S + 1)
    assert sessions.key_of(cookie) is None


def test_the_secret_is_kept_and_nobody_elses(tmp_path: Path) -> None:
    cookie = Sessions(tmp_path).cookie("key_a")
    assert Sessions(tmp_path).key_of(cookie) == "key_a"
    assert stat.S_IMODE((tmp_path / SECRET).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SECRET]


def test_a_token_is_of_one_session(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    mine, other = sessions.cookie("key_a"), sessions.cookie("key_a")
    assert sessions.is_token(sessions.token(mine), mine)
    assert not sessions.is_token(sessions.token(other), mine)
    assert not sessions.is_token("", mine)
    assert not sessions.is_token(mine, mine)


def test_the_api_reads_no_cookie() -> None:
    assert [is_page(path) for path in ("/v1/files", "/hf/models/x", "/metrics", "/openapi.json")] == [False] * 4
    assert [is_page(path) for path in ("/", "/jobs/x", "/login", "/static/pages.css")] == [True] * 4
