from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from service import jobs
from service.database import Database, Scope
from service.keys import create_key
from service.reporting import Reporter
from service.tables import Job, JobCheckpoint, JobEvent


@pytest.fixture
def job(database: Database) -> Job:
    with database.writing() as session:
        tenant = create_key(session, "agency", "a")[0].tenant_id
        id = jobs.create(Scope(session, tenant), "fine-tune", {"model": "m"}, {}).id
        claimed = jobs.claim(session, id, "w", "running")
    assert claimed is not None
    return claimed


def say(reporter: Reporter, event: str, **values: Any) -> None:
    reporter.line(json.dumps({"event": event, **values}))


def step(reporter: Reporter, number: int) -> None:
    costs = {"learning_rate": 0.1, "items_per_second": 9.0, "remaining_s": 5.0}
    say(reporter, "step", step=number, total_steps=10, epoch=1.0, loss=0.5, **costs)


def state(database: Database) -> tuple[dict[str, Any], list[str]]:
    with database.reading() as session:
        found = session.scalars(sa.select(Job)).one()
        return found.progress, list(session.scalars(sa.select(JobEvent.message).order_by(JobEvent.seq)))


def test_steps_are_progress_and_now_and_then_an_event(database: Database, job: Job) -> None:
    reporter = Reporter(database, job)
    for number in range(1, 6):
        step(reporter, number)
    progress, messages = state(database)
    assert progress["steps_completed"] == 1  # at most one write a second
    assert messages == ["Job is queued.", "Step 1/10: training loss=0.5000"]
    reporter.flush()
    progress, _ = state(database)
    assert (progress["steps_completed"], progress["total_steps"]) == (5, 10)


def test_a_checkpoint_carries_the_newest_metrics(database: Database, job: Job) -> None:
    reporter = Reporter(database, job)
    step(reporter, 5)
    say(reporter, "validation", step=5, epoch=1.0, loss=0.4, accuracy=0.8, macro_f1=0.7, best=True)
    say(reporter, "checkpoint", step=5)
    with database.reading() as session:
        found = session.scalars(sa.select(JobCheckpoint)).one()
    assert found.metrics["valid_macro_f1"] == 0.7
    assert found.step == 5


def test_what_is_no_event_is_ignored(database: Database, job: Job) -> None:
    reporter = Reporter(database, job)
    for line in ("", "a library's word", "[1]", '{"event": "unknown"}', '{"no": 1}', '{"event": "over"}'):
        reporter.line(line)
    assert state(database)[1] == ["Job is queued."]


def test_an_error_is_kept_for_the_job(database: Database, job: Job) -> None:
    reporter = Reporter(database, job)
    say(reporter, "error", code="c", message="m", param="p")
    assert reporter.error == ("c", "m", "p")


def test_nothing_is_written_after_the_job_was_stopped(database: Database, job: Job) -> None:
    reporter = Reporter(database, job)
    with database.writing() as session:
        jobs.cancel(session, session.scalars(sa.select(Job)).one())
    before = state(database)
    say(reporter, "stage", name="train", message="training")
    step(reporter, 3)
    reporter.flush()
    assert reporter.over
    assert state(database) == before
