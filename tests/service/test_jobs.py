from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service import jobs
from service.database import Database, Scope
from service.errors import ApiError
from service.keys import create_key
from service.tables import Job, JobCheckpoint, JobEvent


@pytest.fixture
def scope_of(database: Database) -> str:
    with database.writing() as session:
        return create_key(session, "agency", "a")[0].tenant_id


@pytest.fixture
def job_id(database: Database, scope_of: str) -> str:
    with database.writing() as session:
        return jobs.create(Scope(session, scope_of), "fine-tune", {"model": "m"}, {}).id


def move(database: Database, job_id: str, how: Any) -> Job:
    with database.writing() as session:
        job = session.scalars(sa.select(Job).where(Job.id == job_id)).one()
        how(session, job)
        return job


def claim(database: Database, job_id: str, owner: str = "w1", status: str = "running") -> Job | None:
    with database.writing() as session:
        return jobs.claim(session, job_id, owner, status)


def test_a_claim_is_a_new_attempt(database: Database, job_id: str) -> None:
    first, second = claim(database, job_id), claim(database, job_id, "w2")
    assert first is not None
    assert second is not None
    assert second.attempt > first.attempt
    assert second.owner == "w2"


def test_an_older_attempt_writes_nothing(database: Database, job_id: str) -> None:
    first = claim(database, job_id)
    assert first is not None
    claim(database, job_id, "w2")
    with pytest.raises(jobs.Fenced), database.writing() as session:
        jobs.fenced(session, job_id, first.attempt)


@pytest.mark.parametrize("stop", [jobs.cancel, jobs.pause])
def test_a_stopped_job_is_fenced_at_once(database: Database, job_id: str, stop: Any) -> None:
    running = claim(database, job_id)
    assert running is not None
    stopped = move(database, job_id, stop)
    assert stopped.stopping
    with pytest.raises(jobs.Fenced), database.writing() as session:
        jobs.fenced(session, job_id, running.attempt)
    assert claim(database, job_id, "w2") is None


def test_a_resumed_job_fences_the_child_that_still_saves(database: Database, job_id: str) -> None:
    running = claim(database, job_id)
    assert running is not None
    move(database, job_id, jobs.pause)
    move(database, job_id, jobs.resume)
    with pytest.raises(jobs.Fenced), database.writing() as session:
        jobs.fenced(session, job_id, running.attempt)
    with database.writing() as session:
        assert jobs.child_ended(session, job_id, "w1")  # now it may be queued
    again = claim(database, job_id, "w2")
    assert again is not None
    assert not again.stopping


@pytest.mark.parametrize("how", [jobs.cancel, jobs.pause])
def test_what_has_ended_stays_ended(database: Database, job_id: str, how: Any) -> None:
    move(database, job_id, jobs.cancel)
    with pytest.raises(ApiError, match="already ended"):
        move(database, job_id, how)


def test_only_a_paused_job_is_resumed_and_only_a_failed_one_retried(database: Database, job_id: str) -> None:
    with pytest.raises(ApiError, match="paused job"):
        move(database, job_id, jobs.resume)
    with pytest.raises(ApiError, match="failed job"):
        move(database, job_id, jobs.retry)
    running = claim(database, job_id)
    assert running is not None
    with database.writing() as session:
        jobs.fail(session, jobs.fenced(session, job_id, running.attempt), "code", "why")
    again = move(database, job_id, jobs.retry)
    assert (again.status, again.error, again.finished_at) == ("queued", None, None)


def test_a_job_that_keeps_ending_its_workers_is_stopped(database: Database, job_id: str) -> None:
    for _ in range(jobs.IDLE_ATTEMPTS):
        assert claim(database, job_id) is not None
    assert claim(database, job_id) is None
    with database.reading() as session:
        job = session.scalars(sa.select(Job)).one()
    assert job.status == "failed"
    assert job.error is not None
    assert job.error["code"] == "worker_lost"


def test_a_checkpoint_makes_an_attempt_worth_it(database: Database, job_id: str) -> None:
    for step in range(2 * jobs.IDLE_ATTEMPTS):
        running = claim(database, job_id)
        assert running is not None
        with database.writing() as session:
            jobs.note_checkpoint(session, jobs.fenced(session, job_id, running.attempt), step, {})
    with database.reading() as session:
        assert len(session.scalars(sa.select(JobCheckpoint)).all()) == 2 * jobs.IDLE_ATTEMPTS


def test_the_same_checkpoint_is_listed_once(database: Database, job_id: str) -> None:
    running = claim(database, job_id)
    assert running is not None
    for _ in range(2):
        with database.writing() as session:
            jobs.note_checkpoint(session, jobs.fenced(session, job_id, running.attempt), 5, {})
    with database.reading() as session:
        assert len(session.scalars(sa.select(JobCheckpoint)).all()) == 1


def test_the_jobs_of_a_lost_worker_go_back(database: Database, job_id: str) -> None:
    running = claim(database, job_id)
    assert running is not None
    with database.writing() as session:
        assert [job.id for job in jobs.release(session, "w1")] == [job_id]
    with pytest.raises(jobs.Fenced), database.writing() as session:
        jobs.fenced(session, job_id, running.attempt)
    assert claim(database, job_id, "w2") is not None


def test_every_move_is_an_event(database: Database, job_id: str) -> None:
    for how in (jobs.pause, jobs.resume, jobs.cancel):
        move(database, job_id, how)
    with database.reading() as session:
        messages = session.scalars(sa.select(JobEvent.message).order_by(JobEvent.seq)).all()
    assert messages == ["Job is queued.", "Job was paused.", "Job was resumed.", "Job was cancelled."]
