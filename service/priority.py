"""The lowest priority, for what runs beside people who wait for an answer."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICE = 19
AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Lowest priority for this process and for its session.

    Linux weighs sessions against each other as one each, and a nice value counts inside one only (sched(7), "the
    autogroup feature"): a job's process is a session of its own, and without this it takes half of the machine.
    """
    os.nice(NICE)
    with suppress(OSError):  # a kernel without autogroups
        AUTOGROUP.write_text(str(NICE), encoding="ascii")
