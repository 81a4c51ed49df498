"""Processes of a kill test: each begins with the libraries loaded, from a server that has computed nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")


def attempts(work: Callable[..., None]) -> Callable[..., ForkServerProcess]:
    """How to start an attempt: `work` on some paths, in a process of its own."""
    _CONTEXT.set_forkserver_preload([work.__module__])

    def start(*arguments: Path) -> ForkServerProcess:
        process = _CONTEXT.Process(target=work, args=arguments)
        process.start()
        return process

    return start
