from __future__ import annotations

import os

import pytest

from service.environment import child_environment


def test_no_secret_reaches_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    found = child_environment(OMP_NUM_THREADS="3")
    assert "secret" not in str(found)
    assert found["HF_HUB_OFFLINE"] == "1"
    assert (found["OMP_NUM_THREADS"], found["LANG"], found["PATH"]) == ("3", "C.UTF-8", os.environ["PATH"])
