"""The worker process: takes jobs, runs each in a child, watches over other workers. Crash-only: a fault ends it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from types import FrameType

from service.database import Database
from service.engine import JobEngine, WorkerEngine
from service.execution import Execution
from service.ids import new_id
from service.leftovers import Leftovers
from service.liveness import HEARTBEAT_S, DeclaredDead, Liveness, Reconciler
from service.settings import ServiceSettings

POLL_S = 0.25  # how long a job may wait for a free worker to notice it
SWEEP_S = 600.0
log = logging.getLogger(__name__)


def run_worker(settings: ServiceSettings) -> int:
    """Work until SIGTERM. Returns the exit code."""
    asked = threading.Event()

    def ask(_: int, __: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    database = Database(settings.database_url)
    database.check()
    boot_id = new_id("worker_")
    jobs = JobEngine(database)
    execution = Execution(settings, database, jobs, boot_id)
    liveness = Liveness(settings, database, boot_id)
    liveness.begin()
    limits = settings.limits
    engine = WorkerEngine(database, boot_id, execution, limits.jobs_per_worker, limits.jobs_per_tenant, POLL_S)
    try:
        _watch(settings, database, jobs, liveness, engine, asked)
        _drain(execution, engine, liveness)
    except DeclaredDead as dead:
        log.error("%s", dead)
        os._exit(1)  # its children die with it
    except Exception:
        log.exception("the worker ends; a new one takes its jobs over")
        os._exit(1)
    os._exit(0)  # threads of the job library may wait for jobs that others run now


def _watch(
    settings: ServiceSettings,
    database: Database,
    jobs: JobEngine,
    liveness: Liveness,
    engine: WorkerEngine,
    asked: threading.Event,
) -> None:
    reconciler = Reconciler(database, jobs)
    threading.Thread(target=_cleaned, args=(settings, database, asked), daemon=True).start()
    while not asked.is_set():
        liveness.beat()
        liveness.reap(engine)
        liveness.adopt(jobs.owners(), engine)
        reconciler.look()
        asked.wait(HEARTBEAT_S)


def _cleaned(settings: ServiceSettings, database: Database, asked: threading.Event) -> None:
    """Apart from the heartbeat: deleting many gigabytes takes its time."""
    leftovers = Leftovers(settings, database)
    while not asked.is_set():
        try:
            leftovers.remove()
        except Exception:
            log.exception("what is left over stays for now")
        asked.wait(SWEEP_S)


def _drain(execution: Execution, engine: WorkerEngine, liveness: Liveness) -> None:
    """Children save and end; their jobs go back to the queue. What is claimed meanwhile is adopted by other workers,
    or by the next one: the row of this worker stays, and its lock is proof of its end."""
    execution.draining.set()
    while execution.running:
        liveness.beat()
        time.sleep(0.2)
    execution.release()
    engine.recover([liveness.boot_id])
