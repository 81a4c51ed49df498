"""The durable record of every job: DBOS (https://docs.dbos.dev) on our own database. Nothing else imports it.

It passes ids only, as JSON. Every job is one workflow of three steps with fixed names; its workflow id is the job's id.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, error
from sqlalchemy.orm import Session

from service.database import Database, DatabaseError, engine_for_jobs

APPLICATION = "rootstock"
VERSION = "1"  # change it only with a migration of jobs that are under way
QUEUES = ("jobs", "quick")  # what people wait for before they decide is not behind hours of training
WORKFLOW = "run_job"
ENDED = ("SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
log = logging.getLogger(__name__)


class Steps(Protocol):
    """What a worker does for a job. A step that was stopped raises Stopped; the next run of the job repeats it."""

    def plan(self, job_id: str) -> bool: ...

    def execute(self, job_id: str) -> str | None: ...

    def publish(self, job_id: str, result: str) -> None: ...


class Stopped(error.DBOSWorkflowCancelledError):
    """Raised inside a step: it came to no end, so nothing of it is recorded."""


class JobEngine:
    """For every process: hand jobs over, stop them, let them go on."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.engine = engine_for_jobs(database)
        try:
            self.client = DBOSClient(
                system_database_engine=self.engine,
                serializer=DBOSPortableJSONSerializer(),
                application_name=APPLICATION,
                retry_connection_errors=False,
            )
        except Exception as problem:
            raise DatabaseError(f"{database.name}: the job engine cannot use it: {problem}") from problem

    def submit(self, session: Session, job_id: str, tenant_id: str, priority: int, queue: str) -> None:
        """Queue a job in the caller's own transaction. Priority 1 goes first, within a tenant. `queue`: of QUEUES."""
        options = {
            "workflow_name": WORKFLOW,
            "queue_name": queue,
            "workflow_id": job_id,
            "workflow_id_reuse_policy": "reject",
            "app_version": VERSION,
            "priority": max(1, priority),  # 0 would go before every other
            "queue_partition_key": tenant_id,
        }
        self.client.enqueue_in_transaction(session.connection(), options, job_id)  # type: ignore[arg-type]

    def stop(self, job_id: str) -> None:
        """After a pause or cancel is committed: it leaves the queue, or is not started again."""
        self.client.cancel_workflow(job_id)

    def resume(self, job_id: str, queue: str) -> None:
        """Back into the queue, with its limits; does nothing for one that has ended."""
        self.client.resume_workflow(job_id, queue_name=queue)

    def retry(self, job_id: str, tenant_id: str, queue: str) -> None:
        """An ended job, from its first step, under the same id."""
        self.client.rewind_workflow(job_id, start_step=1, queue_name=queue, queue_partition_key=tenant_id)

    def states(self, job_ids: Sequence[str]) -> dict[str, str]:
        """What the engine thinks of jobs, for those that it knows."""
        found = self.client.list_workflows(workflow_ids=list(job_ids), load_input=False, load_output=False)
        return {each.workflow_id: str(each.status) for each in found}

    def owners(self) -> set[str]:
        """Boot ids of the workers that have jobs under way, whether they live or not."""
        found = self.client.list_workflows(status="PENDING", load_input=False, load_output=False)
        return {str(each.executor_id) for each in found}

    def close(self) -> None:
        self.client.destroy()
        self.engine.dispose()


def prepare_tables(database: Database) -> None:
    """Create or update the engine's own tables, beside ours."""
    logging.getLogger("dbos").setLevel(logging.WARNING)
    url = database.url.set(drivername="sqlite" if database.sqlite else "postgresql")
    try:
        DBOS.migrate(url.render_as_string(hide_password=False))
    except Exception as error:
        raise DatabaseError(
            f"{database.name}: the job engine's tables cannot be brought up to date: {error}"
        ) from error


class WorkerEngine:
    """For a worker: takes jobs from the queues, up to `at_once` from each, and runs their steps."""

    def __init__(
        self, database: Database, boot_id: str, steps: Steps, at_once: int, per_tenant: int, poll_s: float
    ) -> None:
        logging.getLogger("dbos").setLevel(logging.WARNING)
        self.engine = engine_for_jobs(database)
        config: DBOSConfig = {
            "name": APPLICATION,
            "application_version": VERSION,
            "executor_id": boot_id,  # of this process only: two with one id would run each other's jobs
            "system_database_engine": self.engine,
            "serializer": DBOSPortableJSONSerializer(),
            "use_listen_notify": False,
            "run_migrations": False,
            "log_level": "WARNING",
        }
        DBOS(config=config)
        _register(steps)
        DBOS.launch()
        for queue in QUEUES:
            DBOS.register_queue(
                queue, worker_concurrency=at_once, partition_concurrency=per_tenant, polling_interval_sec=poll_s
            )

    def recover(self, boot_ids: Sequence[str]) -> None:
        """Put the jobs of dead workers back into the queue. Idempotent, safe beside others that do the same."""
        if boot_ids:
            DBOS._recover_pending_workflows(list(boot_ids))


@contextmanager
def _crash_only(job_id: str) -> Iterator[None]:
    """A fault ends this process: a recorded exception would end the job for the engine, and strand our row."""
    try:
        yield
    except Exception:
        log.exception("%s: the worker ends; the job goes on elsewhere, or ends after some attempts", job_id)
        os._exit(1)


def _register(steps: Steps) -> None:
    @DBOS.step(name="plan")
    def plan(job_id: str) -> bool:
        with _crash_only(job_id):
            return steps.plan(job_id)

    @DBOS.step(name="execute")
    def execute(job_id: str) -> str | None:
        with _crash_only(job_id):
            return steps.execute(job_id)

    @DBOS.step(name="publish")
    def publish(job_id: str, result: str) -> None:
        with _crash_only(job_id):
            steps.publish(job_id, result)

    @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=1000)  # our own count ends poison jobs much earlier
    def run_job(job_id: str) -> str:
        if not plan(job_id):
            return "ended"
        result = execute(job_id)
        if result is None:
            return "ended"
        publish(job_id, result)
        return "published"
