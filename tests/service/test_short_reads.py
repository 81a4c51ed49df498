"""A read of a few rows runs in the loop on SQLite, and in a thread elsewhere."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from service.short_reads import short_read


@pytest.mark.parametrize("sqlite", [True, False])
def test_where_a_read_runs(sqlite: bool) -> None:
    def read(id: str, context: Any) -> tuple[str, bool]:
        return id, threading.current_thread() is threading.main_thread()

    context = SimpleNamespace(database=SimpleNamespace(sqlite=sqlite))
    found = asyncio.run(short_read(read)(id="a", context=context))  # type: ignore[arg-type]
    assert found == ("a", sqlite)
