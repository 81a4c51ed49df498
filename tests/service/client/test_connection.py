from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from service.client import connection


@pytest.fixture(autouse=True)
def _own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "user_config_path", lambda _: tmp_path / "config")
    for name in ("ROOTSTOCK_URL", "ROOTSTOCK_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_key_is_kept_for_its_origin_and_its_owner_only(monkeypatch: pytest.MonkeyPatch) -> None:
    path = connection.keep_key("rsk_one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert connection.connect().api_key == "rsk_one"
    monkeypatch.setenv("ROOTSTOCK_URL", "http://127.0.0.1:9999")
    with pytest.raises(ConfigError, match=r"no key for http://127\.0\.0\.1:9999"):
        connection.connect()


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.keep_key("rsk_kept")
    monkeypatch.setenv("ROOTSTOCK_API_KEY", "rsk_env")
    client = connection.connect()
    assert client.api_key == "rsk_env"
    assert str(client.base_url) == "http://127.0.0.1:8080/v1/"


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://x/other"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="ROOTSTOCK_URL"):
        connection.origin_of(url)


def test_the_version_in_the_path_is_optional() -> None:
    assert connection.origin_of("https://a.example:1/v1/") == connection.origin_of("https://a.example:1")


def test_a_broken_file_is_said_to_be(tmp_path: Path) -> None:
    path = connection.keep_key("rsk_one")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="rootstock login"):
        connection.kept_keys()
