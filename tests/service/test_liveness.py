from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service import jobs
from service.database import Database, Scope
from service.keys import create_key
from service.liveness import DeclaredDead, Liveness, Reconciler
from service.settings import ServiceSettings
from service.tables import Job, Worker


class FakeEngine:
    """Remembers what it was told."""

    def __init__(self, states: dict[str, str] | None = None) -> None:
        self.known = states or {}
        self.told: list[tuple[str, Any]] = []

    def recover(self, boot_ids: list[str]) -> None:
        self.told.append(("recover", boot_ids))

    def states(self, job_ids: list[str]) -> dict[str, str]:
        return {id: self.known[id] for id in job_ids if id in self.known}

    def stop(self, job_id: str) -> None:
        self.told.append(("stop", job_id))

    def resume(self, job_id: str, queue: str) -> None:
        assert queue == "jobs"
        self.told.append(("resume", job_id))

    def retry(self, job_id: str, tenant_id: str, queue: str) -> None:
        assert queue == "jobs"
        self.told.append(("retry", (job_id, tenant_id)))


@pytest.fixture
def settings(tmp_path: Path) -> ServiceSettings:
    return ServiceSettings(tmp_path, f"sqlite:///{tmp_path / 'rootstock.db'}")


class Clock:
    """Seconds that the test lets pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def two(settings: ServiceSettings, database: Database, clock: Clock) -> Iterator[tuple[Liveness, Liveness]]:
    one, other = (Liveness(settings, database, boot_id, clock) for boot_id in ("w1", "w2"))
    one.begin()
    other.begin()
    yield one, other
    one._lock.close()
    other._lock.close()


def running_job(database: Database, owner: str) -> str:
    with database.writing() as session:
        tenant = create_key(session, "agency", "a")[0].tenant_id
        id = jobs.create(Scope(session, tenant), "fine-tune", {}, {}).id
        jobs.claim(session, id, owner, "running")
    return id


def job_of(database: Database, id: str) -> Job:
    with database.reading() as session:
        return session.scalars(sa.select(Job).where(Job.id == id)).one()


def age(database: Database, boot_id: str, seconds: float) -> None:
    with database.writing() as session:
        session.execute(
            sa.update(Worker).where(Worker.boot_id == boot_id).values(heartbeat_at=Worker.heartbeat_at - seconds)
        )


def look(liveness: Liveness, engine: FakeEngine, clock: Clock, seconds: int) -> None:
    """Reap every five seconds for so long."""
    for _ in range(0, seconds, 5):
        clock.now += 5
        liveness.reap(engine)  # type: ignore[arg-type]


def test_the_living_are_left_alone(database: Database, two: tuple[Liveness, Liveness], clock: Clock) -> None:
    id, engine = running_job(database, "w2"), FakeEngine()
    for _ in range(20):
        look(two[0], engine, clock, 5)
        two[1].beat()
    assert engine.told == []
    assert job_of(database, id).owner == "w2"


def test_a_silent_worker_loses_its_jobs_and_learns_of_it(
    database: Database, two: tuple[Liveness, Liveness], clock: Clock
) -> None:
    id, engine = running_job(database, "w2"), FakeEngine()
    before = job_of(database, id).attempt
    look(two[0], engine, clock, 35)  # the first look is when it was last heard
    assert engine.told == []
    look(two[0], engine, clock, 5)
    assert engine.told == [("recover", ["w2"])]
    after = job_of(database, id)
    assert (after.owner, after.status) == (None, "queued")
    assert after.attempt > before
    with pytest.raises(DeclaredDead):
        two[1].beat()
    two[0].beat()


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_clock_that_jumps_kills_nobody(
    database: Database, two: tuple[Liveness, Liveness], clock: Clock, jump: float
) -> None:
    engine = FakeEngine()
    look(two[0], engine, clock, 20)
    age(database, "w2", jump)  # its next sign, by another clock
    look(two[0], engine, clock, 20)
    assert engine.told == []


def test_a_worker_that_could_not_look_for_long_does_not_take_that_for_silence(
    two: tuple[Liveness, Liveness], clock: Clock
) -> None:
    """Frozen, or without its database, which the others could not reach either."""
    engine = FakeEngine()
    look(two[0], engine, clock, 10)
    clock.now += 3600
    look(two[0], engine, clock, 5)
    assert engine.told == []


def test_a_free_lock_on_this_host_is_proof_at_once(database: Database, two: tuple[Liveness, Liveness]) -> None:
    running_job(database, "w2")
    two[1]._lock.close()  # as the kernel does for a process that was killed
    engine = FakeEngine()
    two[0].reap(engine)  # type: ignore[arg-type]
    assert engine.told == [("recover", ["w2"])]


@pytest.mark.parametrize("parent_lives", [True, False])
def test_an_attempt_that_ended_with_the_whole_service_does_not_count(
    database: Database, two: tuple[Liveness, Liveness], parent_lives: bool
) -> None:
    id = running_job(database, "w2")
    before = job_of(database, id).idle_attempts
    lock = two[0]._lock_file("w2")
    if not parent_lives:
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"started": 1.0}), encoding="utf-8")
    two[1]._lock.close()
    two[0].reap(FakeEngine())  # type: ignore[arg-type]
    assert before == 1
    assert job_of(database, id).idle_attempts == (1 if parent_lives else 0)


def test_a_worker_of_another_host_is_judged_by_its_heartbeat(
    database: Database, two: tuple[Liveness, Liveness]
) -> None:
    two[1]._lock.close()
    with database.writing() as session:
        session.execute(sa.update(Worker).where(Worker.boot_id == "w2").values(host="elsewhere"))
    engine = FakeEngine()
    two[0].reap(engine)  # type: ignore[arg-type]
    assert engine.told == []


def test_the_engine_is_made_to_agree_with_our_rows(database: Database) -> None:
    cancelled, resumed, fine = (running_job(database, f"w{n}") for n in range(3))
    with database.writing() as session:
        for id, how in ((cancelled, jobs.cancel), (resumed, jobs.pause)):
            how(session, session.scalars(sa.select(Job).where(Job.id == id)).one())
            jobs.child_ended(session, id, "w0" if id == cancelled else "w1")
        jobs.resume(session, session.scalars(sa.select(Job).where(Job.id == resumed)).one())
    engine = FakeEngine({cancelled: "PENDING", resumed: "CANCELLED", fine: "PENDING"})
    reconciler = Reconciler(database, engine)  # type: ignore[arg-type]
    reconciler.look()
    assert engine.told == []  # a call may be on its way
    reconciler.look()
    assert sorted(engine.told) == [("resume", resumed), ("stop", cancelled)]


def test_a_retry_that_did_not_reach_the_engine_is_made_again(database: Database) -> None:
    with database.writing() as session:
        tenant = create_key(session, "agency", "a")[0].tenant_id
        id = jobs.create(Scope(session, tenant), "fine-tune", {}, {}).id
    engine = FakeEngine({id: "SUCCESS"})
    reconciler = Reconciler(database, engine)  # type: ignore[arg-type]
    reconciler.look()
    reconciler.look()
    assert engine.told == [("retry", (id, tenant))]


def test_what_belongs_to_nobody_is_recovered(database: Database, two: tuple[Liveness, Liveness]) -> None:
    engine = FakeEngine()
    two[0].adopt({"w1", "w2", "gone"}, engine)  # type: ignore[arg-type]
    assert engine.told == [("recover", ["gone"])]


def test_a_job_whose_child_still_saves_is_not_resumed_yet(database: Database) -> None:
    id = running_job(database, "w1")
    with database.writing() as session:
        job = session.scalars(sa.select(Job).where(Job.id == id)).one()
        jobs.pause(session, job)
        jobs.resume(session, job)
    engine = FakeEngine({id: "CANCELLED"})
    reconciler = Reconciler(database, engine)  # type: ignore[arg-type]
    reconciler.look()
    reconciler.look()
    assert engine.told == []
