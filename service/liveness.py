"""Who is alive, and what happens to the work of those who are not.

A worker shows every HEARTBEAT_S that it lives. One whose sign has not changed for the lease, as another worker sees it
without looking at any clock of the day, is dead, and so is one whose lock on this host is free: the child that it left
on this host is killed first, then its jobs go back to the queue. A worker that wakes up and finds itself declared dead
ends at once.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from service import jobs
from service.database import Database
from service.engine import ENDED, JobEngine, WorkerEngine
from service.settings import ServiceSettings
from service.supervise import kill_recorded, lives, record_of
from service.tables import Job, Worker

HEARTBEAT_S = 5.0
MOST = 500  # jobs of a kind that are looked at
log = logging.getLogger(__name__)


class DeclaredDead(Exception):
    """Others have taken this worker's jobs over."""


@dataclass
class _Silence:
    """Seconds for which another worker has shown the same sign."""

    sign: float
    seconds: float = 0.0


class Liveness:
    """The heartbeat of one worker, and its eye on the others.

    Args:
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        database: Database,
        boot_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.database, self.boot_id = settings, database, boot_id
        self.host, self.lease_s = os.uname().nodename, settings.limits.lease_s
        self._clock, self._looked, self._silences = clock, clock(), dict[str, _Silence]()
        self._lock = self._lock_file(boot_id).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        json.dump(record_of(os.getppid()), self._lock)
        self._lock.flush()

    def begin(self) -> None:
        """Appear among the living."""
        with self.database.writing() as session:
            now = self.database.now(session)
            me = Worker(boot_id=self.boot_id, host=self.host, pid=os.getpid(), started_at=now, heartbeat_at=now)
            session.add(me)

    def beat(self) -> None:
        """Raises DeclaredDead."""
        with self.database.writing() as session:
            mine = sa.update(Worker).where(Worker.boot_id == self.boot_id)
            beaten = mine.values(heartbeat_at=self.database.now(session)).returning(Worker.pid)
            if session.scalar(beaten) is None:
                raise DeclaredDead(f"{self.boot_id} was silent for {self.lease_s} s, and others have taken its jobs")

    def reap(self, engine: WorkerEngine) -> None:
        """Give the jobs of the dead back to the queue."""
        for dead in self._dead():
            log.warning("worker %s on %s is dead", dead.boot_id, dead.host)
            with self.database.writing() as session:
                for child in session.scalars(sa.select(Job.child).where(Job.owner == dead.boot_id)):
                    kill_recorded(child)  # one on another host may live on: what it sends is void
                jobs.release(session, dead.boot_id, blamed=not self._ended_with_its_service(dead))
            engine.recover([dead.boot_id])
            with self.database.writing() as session:
                session.execute(sa.delete(Worker).where(Worker.boot_id == dead.boot_id))
            self._lock_file(dead.boot_id).unlink(missing_ok=True)

    def adopt(self, owners: set[str], engine: WorkerEngine) -> None:
        """Recover what belongs to nobody: a worker that was declared dead woke up and took a job before it ended."""
        with self.database.reading() as session:
            known = set(session.scalars(sa.select(Worker.boot_id)))
        engine.recover(sorted(owners - known))

    def _dead(self) -> list[Worker]:
        with self.database.reading() as session:
            others = list(session.scalars(sa.select(Worker).where(Worker.boot_id != self.boot_id)))
        silent = self._silent(others)
        return [each for each in others if each.boot_id in silent or self._unlocked(each)]

    def _silent(self, others: list[Worker]) -> set[str]:
        """Those whose sign has stayed the same for the lease. A longer pause between two looks counts as a short one:
        the database was away, or this worker was frozen, and the others could not be heard."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, 2 * HEARTBEAT_S, self.lease_s / 2), now
        before, self._silences = self._silences, {}
        for other in others:
            known = before.get(other.boot_id)
            same = known is not None and known.sign == other.heartbeat_at
            self._silences[other.boot_id] = _Silence(
                other.heartbeat_at, known.seconds + passed if known and same else 0.0
            )
        return {boot_id for boot_id, silence in self._silences.items() if silence.seconds > self.lease_s}

    def _unlocked(self, worker: Worker) -> bool:
        """Proof of death on this host, at once: nobody holds its lock."""
        if worker.host != self.host:
            return False
        try:
            with self._lock_file(worker.boot_id).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        except FileNotFoundError:
            return False  # it keeps its files elsewhere: the heartbeat decides
        except BlockingIOError:
            return False

    def _ended_with_its_service(self, worker: Worker) -> bool:
        """Whether the process that started it is gone too: no job did that, the service or its machine was ended."""
        try:
            return worker.host == self.host and not lives(json.loads(self._lock_file(worker.boot_id).read_text()))
        except (OSError, ValueError):  # of an earlier version
            return False

    def _lock_file(self, boot_id: str) -> Path:
        folder = self.settings.data_dir / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{boot_id}.lock"


class Reconciler:
    """Makes the engine agree with our rows, where a process died between our commit and its call of the engine.

    A difference is acted on when it is seen twice: a call may be on its way.
    """

    def __init__(self, database: Database, engine: JobEngine) -> None:
        self.database, self.engine = database, engine
        self.seen: set[tuple[str, str]] = set()

    def look(self) -> None:
        found = set(self._differences())
        for id, call in found & self.seen:
            try:
                self._call(id, call)
            except Exception:  # another worker was faster
                log.info("%s: %s was not needed", id, call, exc_info=True)
        self.seen = found - self.seen

    def _differences(self) -> list[tuple[str, str]]:
        with self.database.reading() as session:
            recent = sa.select(Job.id, Job.status, Job.tenant_id, Job.stopping).order_by(Job.seq.desc())
            stopped = session.execute(recent.where(Job.status.in_(("paused", "cancelled"))).limit(MOST)).all()
            active = session.execute(recent.where(Job.status.in_(jobs.ACTIVE), sa.not_(Job.stopping)).limit(MOST)).all()
        states = self.engine.states([row.id for row in (*stopped, *active)]) if stopped or active else {}
        late = [(row.id, "stop") for row in stopped if states.get(row.id) in ("ENQUEUED", "PENDING", "DELAYED")]
        lost = [(row.id, "resume") for row in active if states.get(row.id) == "CANCELLED"]
        again = [(row.id, "retry") for row in active if row.status == "queued" and states.get(row.id) in ENDED]
        return late + lost + again

    def _call(self, id: str, call: str) -> None:
        if call == "stop":
            self.engine.stop(id)
        elif call == "resume":
            self.engine.resume(id, jobs.queue_of(id))
        else:
            with self.database.reading() as session:
                tenant = session.scalars(sa.select(Job.tenant_id).where(Job.id == id)).one()
            self.engine.retry(id, tenant, jobs.queue_of(id))
