"""A child ends with its parent, also one that ended before it could say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the signal")
CHILD = "import sys, time; from service.death import die_with_parent as d; d(int(sys.argv[1])); print(1, flush=True); "
PARENT = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD + "time.sleep(60)"!r}, str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process ends in time. One that nobody has waited for yet has ended too."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_it_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        parent.kill()
    assert gone(child)


def test_it_ends_at_once_when_its_parent_is_another() -> None:
    command = [sys.executable, "-c", CHILD, str(os.getpid() + 1)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")


def test_a_living_parent_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, str(os.getpid())], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
