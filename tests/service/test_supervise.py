from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from service import supervise as module
from service.supervise import Ended, kill_recorded, record_of, supervise
from tests.service.live import lives


def run(folder: Path, code: str, stop: bool = False, after: float = 0.0) -> tuple[Ended, list[str], list[int]]:
    lines: list[str] = []
    pids: list[int] = []
    began = time.monotonic()
    ended = supervise(
        [sys.executable, "-c", code], dict(os.environ), folder, pids.append, lines.append,
        lambda: stop and time.monotonic() - began > after,
    )  # fmt: skip
    return ended, lines, pids


def test_lines_and_exit_code(tmp_path: Path) -> None:
    ended, lines, pids = run(tmp_path, "import sys; print('a'); print('ü'); sys.stderr.write('why'); sys.exit(3)")
    assert (ended.code, ended.asked, ended.stderr) == (3, False, "why")
    assert lines == ["a", "ü"]
    assert not psutil.pid_exists(pids[0])


def test_a_child_is_asked_to_stop(tmp_path: Path) -> None:
    code = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('up', flush=True); "
    ended, lines, _ = run(tmp_path, code + "time.sleep(60)", stop=True, after=0.5)
    assert (ended.code, ended.asked, lines) == (75, True, ["up"])


def test_a_child_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_S", 0.5)
    ended, _, _ = run(tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)", stop=True)
    assert (ended.code, ended.asked) == (-9, True)


def test_grandchildren_that_hold_the_pipe_are_killed_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid, flush=True)"
    )
    ended, lines, _ = run(tmp_path, code)
    assert ended.code == 0
    grandchild = int(lines[0])
    _, alive = psutil.wait_procs([psutil.Process(grandchild)] if psutil.pid_exists(grandchild) else [], timeout=5)
    assert not [process for process in alive if lives(process.pid)]


def test_an_exception_in_a_callback_ends_the_child(tmp_path: Path) -> None:
    pids: list[int] = []

    def refuse(line: str) -> None:
        raise RuntimeError(line)

    code = "import time; print('x', flush=True); time.sleep(60)"
    with pytest.raises(RuntimeError):
        supervise([sys.executable, "-c", code], dict(os.environ), tmp_path, pids.append, refuse, lambda: False)
    assert not psutil.pid_exists(pids[0])


def test_only_the_recorded_process_is_killed() -> None:
    me = record_of(os.getpid())
    kill_recorded(None)
    kill_recorded(me | {"started": 1.0})  # another process that had the number
    kill_recorded(me | {"host": "elsewhere"})
