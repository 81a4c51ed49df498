"""One child process, watched: its lines are handed on, it is asked to stop, and its whole group is gone afterwards."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_S = 0.5
SAVE_S = 120.0  # what a child may take from SIGTERM to its end
LINE_MOST = 1 << 20  # characters of a line; longer ones are cut into several
KEPT = 4000  # of what it wrote to standard error


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (negative: the signal), whether it was asked to, the end of its standard error, and
    the seconds of processor time that it and what it had started took."""

    code: int
    asked: bool
    stderr: str
    cpu_s: float = 0.0


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    started: Callable[[int], None],
    line: Callable[[str], None],
    stop: Callable[[], bool],
) -> Ended:
    """Run a command to its end in a session of its own.

    Must be called from a thread that lives as long: the child dies with the thread that started it.

    Args:
        folder: its working directory; standard error goes to `stderr.log` there.
        started: is told its process id.
        line: gets every line of its standard output.
        stop: asked twice a second; True sends SIGTERM, and SIGKILL after SAVE_S.
    """
    with (folder / "stderr.log").open("wb") as errors:
        process = subprocess.Popen(
            command, env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, start_new_session=True,
        )  # fmt: skip
    try:
        started(process.pid)
        asked = _follow(process, line, stop)
        _ended(process.pid, os.WEXITED)
        cpu_s = sum(psutil.Process(process.pid).cpu_times()[:4])  # it is not reaped yet
    finally:
        kill_group(process.pid)
        code = process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return Ended(code, asked, _end_of(folder / "stderr.log"), cpu_s)


def kill_group(pid: int) -> None:
    """End a session leader and everything in its group, if there is anything left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def kill_recorded(child: Mapping[str, object] | None) -> None:
    """End a child that a dead worker left on this host; a process that only has its number is left alone."""
    if child is None or child["host"] != os.uname().nodename:
        return
    if lives(child):
        kill_group(int(str(child["pid"])))


def lives(recorded: Mapping[str, object]) -> bool:
    """Whether a process of this host is still there, and not another one that has its number by now."""
    try:
        started: float = psutil.Process(int(str(recorded["pid"]))).create_time()
        return abs(started - float(str(recorded["started"]))) < 1
    except psutil.NoSuchProcess:
        return False


def record_of(pid: int) -> dict[str, object]:
    """What `kill_recorded` and `lives` need to know of a process."""
    return {"host": os.uname().nodename, "pid": pid, "started": psutil.Process(pid).create_time()}


def _follow(process: subprocess.Popen[bytes], line: Callable[[str], None], stop: Callable[[], bool]) -> bool:
    """Lines until the pipe is closed. Returns whether the child was asked to stop."""
    assert process.stdout is not None
    asked_at: float | None = None
    buffer, next_poll = b"", time.monotonic() + POLL_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=max(0.0, next_poll - time.monotonic())):
                block = os.read(process.stdout.fileno(), 1 << 16)
                if not block:
                    return asked_at is not None
                buffer = _hand_on(buffer + block, line)
            if time.monotonic() < next_poll:
                continue
            next_poll = time.monotonic() + POLL_S
            if asked_at is None and stop():
                asked_at = time.monotonic()
                os.kill(process.pid, signal.SIGTERM)  # terminate() might reap it first
            too_long = asked_at is not None and time.monotonic() - asked_at > SAVE_S
            if too_long or _ended(process.pid, os.WEXITED | os.WNOHANG):
                kill_group(process.pid)  # a grandchild may hold the pipe open


def _ended(pid: int, options: int) -> bool:
    """Whether a child has ended; it is not reaped, so that its number stays its own until its group is gone."""
    return os.waitid(os.P_PID, pid, options | os.WNOWAIT) is not None


def _hand_on(buffer: bytes, line: Callable[[str], None]) -> bytes:
    """Call `line` for every complete line. Returns what is left."""
    *complete, rest = buffer.split(b"\n")
    for each in complete:
        line(each.decode("utf-8", "replace"))
    if len(rest) > LINE_MOST:
        line(rest.decode("utf-8", "replace"))
        return b""
    return rest


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - KEPT))
        return file.read().decode("utf-8", "replace").strip()
