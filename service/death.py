"""A child process that does not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(expected_parent: int) -> None:
    """Have the kernel kill this process when its parent ends. Elsewhere than on Linux it does nothing.

    The kernel watches the thread that started this process: start it from one that lives as long as its process.

    Args:
        expected_parent: process id. If the parent is another one by now, that one has ended already, and so does this
            process.

    Raises:
        OSError: the kernel refuses.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != expected_parent:
        os.kill(os.getpid(), signal.SIGKILL)
