"""The lowest priority, for what runs beside people who wait for an answer."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

NICE, TRIES = 19, 20
AUTOGROUP = Path("/proc/self/autogroup")


def give_way() -> None:
    """Lowest priority for this process and for its session.

    Linux weighs sessions against each other as one each, and a nice value counts inside one only (sched(7), "the
    autogroup feature"): a job's process is a session of its own, and without this it takes half of the machine.
    """
    os.nice(NICE)
    for _ in range(TRIES):
        try:
            AUTOGROUP.write_text(str(NICE), encoding="ascii")
            return
        except BlockingIOError:  # without privileges, one such change in a tenth of a second, of all processes
            time.sleep(0.1 * random.uniform(1, 2))
        except OSError:  # a kernel without autogroups, or one that does not let us
            return
