"""What the environment says, and what it may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import ConfigError
from service.settings import default_store


def test_directory_and_limit_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_STORE", "~/states")
    monkeypatch.setenv("ROOTSTOCK_STORE_GIB", "1.5")
    store = default_store()
    assert (store.root, store.most_bytes) == (Path.home() / "states", 3 << 29)


def test_by_default_it_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ROOTSTOCK_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = default_store()
    assert store.root.parts[-2:] == ("rootstock", "activations")
    assert store.most_bytes == 20 << 30
    assert not store.root.exists()  # made when something is written


@pytest.mark.parametrize("limit", ["many", "0", "-3", "inf", "nan"])
def test_a_limit_that_is_no_size_is_refused(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_STORE_GIB", limit)
    with pytest.raises(ConfigError, match=rf"ROOTSTOCK_STORE_GIB: expected a number of GiB above 0, found '{limit}'"):
        default_store()
