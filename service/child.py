"""The process that does the work of one job: low priority, limits of its own, no secret in its environment.

It dies with its worker. It has the rights of the user who runs the service, and can read what that user can.

`python -m service.child KIND PHASE FOLDER PARENT` reads FOLDER/PHASE.json and writes events as JSON lines to standard
output, the last of them an `error` where it fails. SIGTERM asks it to keep what it has and end with exit code 75.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import resource
import signal
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, DataError, Interrupted, RootstockError
from service.death import die_with_parent
from service.priority import give_way

SAVED = 75  # EX_TEMPFAIL
PLAN_MEMORY = 4 << 30  # bytes of address space while an upload is parsed
PLAN_CPU_S = 3600


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    kind, phase, folder, parent = arguments[0], arguments[1], Path(arguments[2]), int(arguments[3])
    die_with_parent(parent)
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    give_way()
    lock = (folder.parent / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # until the process of an earlier attempt on this host is gone
    request = json.loads((folder / f"{phase}.json").read_text(encoding="utf-8"))
    _limit(phase, request["limits"])
    logging.disable(logging.WARNING)
    try:
        for event in _events(kind, phase, folder, request, asked):
            print(json.dumps(event, ensure_ascii=False), flush=True)
    except Interrupted:
        return SAVED
    except RootstockError as error:
        message = str(error) or "one of several processes failed; the server's log says more"
        _say(getattr(error, "code", _code(error)), message, getattr(error, "param", None))
        return 1
    except OSError as error:
        if error.strerror is None:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _say("insufficient_storage" if full else "internal_error", f"a file cannot be written: {error.strerror}", None)
        return 1
    except MemoryError:
        _say("out_of_memory", "more memory was needed than this phase of a job may take", None)
        return 1
    return 0


def _events(
    kind: str, phase: str, folder: Path, request: Mapping[str, Any], asked: threading.Event
) -> Iterable[dict[str, Any]]:
    from service.phases import PHASES

    return PHASES[kind, phase](folder, request, asked.is_set)


def _limit(phase: str, limits: Mapping[str, int]) -> None:
    """What an upload may cost while it is parsed; training gets a limit only where the operator sets one."""
    if phase == "plan":
        resource.setrlimit(resource.RLIMIT_AS, (PLAN_MEMORY, PLAN_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (PLAN_CPU_S, PLAN_CPU_S))
    elif limits["job_memory_mib"]:
        most = limits["job_memory_mib"] << 20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _code(error: RootstockError) -> str:
    if isinstance(error, ConfigError):
        return "invalid_value"
    return "invalid_training_file" if isinstance(error, DataError) else "job_failed"


def _say(code: str, message: str, param: str | None) -> None:
    print(json.dumps({"event": "error", "code": code, "message": message, "param": param}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
