"""The inference process, as the process sees it that starts and stops it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from service.environment import child_environment
from service.inference.child import HELD

STOP_S = 10.0  # after SIGTERM; then it is killed
_ROOT = Path(__file__).parent.parent.parent  # so that both sides are of one version


class Process:
    """At most one child process.

    Args:
        socket: where it listens.
        memory_mib, threads, precision: see `child`.
    """

    def __init__(self, socket: Path, memory_mib: int, threads: int, precision: str) -> None:
        options = {"memory-mib": memory_mib, "threads": threads, "precision": precision, "parent": os.getpid()}
        flags = [f"--{name}={value}" for name, value in options.items()]
        self._command = [sys.executable, "-m", "service.inference.child", str(socket), *flags]
        self._environment = child_environment(OMP_NUM_THREADS=str(threads))
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def failure(self) -> int | None:
        """Exit code of one that ended, unless it made way for another."""
        code = self._child.poll() if self._child else None
        return None if code == HELD else code

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C in a terminal is for the parent, which then stops it."""
        self._child = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    async def stop(self) -> None:
        """End it, if it runs, and wait until it has."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            await asyncio.to_thread(self._child.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            await asyncio.to_thread(self._child.wait)
