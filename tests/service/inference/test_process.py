"""What the child is started with, and how it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.inference import process
from service.inference.process import Process


def running(tmp_path: Path, script: str) -> Process:
    """One that runs something else, once that has begun."""
    child: Any = Process(tmp_path / "s", 1, 1, "auto")
    mark = tmp_path / "begun"
    child._command = [sys.executable, "-c", f"import signal, time\n{script}\nopen({str(mark)!r}, 'w')\ntime.sleep(60)"]
    child.start()
    while not mark.exists():
        time.sleep(0.01)
    return child  # type: ignore[no-any-return]


def test_it_is_asked_to_stop_in_a_session_of_its_own(tmp_path: Path) -> None:
    child = running(tmp_path, "")
    assert child.running
    assert child.failure is None
    assert child._child is not None
    assert os.getsid(child._child.pid) == child._child.pid != os.getsid(0)
    asyncio.run(child.stop())
    assert not child.running
    assert child.failure == -signal.SIGTERM
    asyncio.run(child.stop())  # a second time changes nothing


def test_one_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STOP_S", 0.2)
    child = running(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    asyncio.run(child.stop())
    assert child.failure == -signal.SIGKILL


def test_one_that_made_way_has_not_failed(tmp_path: Path) -> None:
    child: Any = Process(tmp_path / "s", 1, 1, "auto")
    for code, failure in ((process.HELD, None), (3, 3)):
        child._command = [sys.executable, "-c", f"raise SystemExit({code})"]
        child.start()
        child._child.wait()
        assert child.failure == failure
