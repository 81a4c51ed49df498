"""What a worker does for a job: plan -> execute -> publish. Each step takes the job over and may be repeated."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pipelines.base_models import VARIABLE
from pipelines.durable import discard, sync, write_json
from service import jobs, quotas
from service.child import SAVED
from service.database import Database
from service.engine import JobEngine, Stopped
from service.environment import child_environment
from service.kinds import KINDS, Gone, Task
from service.liveness import DeclaredDead
from service.reporting import Reporter
from service.settings import ServiceSettings
from service.supervise import Ended, record_of, supervise
from service.tables import Job, Worker

log = logging.getLogger(__name__)


class Execution:
    """The steps of jobs, in one worker."""

    def __init__(self, settings: ServiceSettings, database: Database, engine: JobEngine, boot_id: str) -> None:
        self.settings, self.database, self.engine, self.boot_id = settings, database, engine, boot_id
        self.draining = threading.Event()
        self._running: set[str] = set()  # jobs whose child lives

    # ---- steps

    def plan(self, job_id: str) -> bool:
        """Read the data in a limited child and write down what is to be done. False: the job has ended."""
        job = self._claim(job_id, "validating")
        if job is None:
            return False
        task = self._task(job)
        if (task.plan).is_dir():
            return True
        return self._run_child(job, task, "plan")

    def execute(self, job_id: str) -> str | None:
        """Do the work in a child, from the newest checkpoint there is. Returns the attempt's folder; None: ended."""
        job = self._claim(job_id, "running")
        if job is None:
            return None
        task = self._task(job)
        if not task.plan.is_dir() and not self._run_child(job, task, "plan"):  # a restored job's is not in the backup
            return None
        _take_over(task)
        return task.folder.name if self._run_child(job, task, "execute") else None

    def publish(self, job_id: str, folder: str) -> None:
        """Make the result visible and the job succeeded, in one transaction. Repeating it changes nothing."""
        job = self._claim(job_id, "publishing")
        if job is None:
            return
        task = self._task(job, folder)
        if not task.work.is_dir():  # of a restored service: a backup leaves it out
            made = self.execute(job_id)
            if made is not None:
                self.publish(job_id, made)
            return
        kind = KINDS[job.kind]
        prepared = kind.place(task)
        try:
            with self.database.writing() as session:
                kind.publish(session, jobs.fenced(session, job.id, job.attempt), task, prepared)
        except jobs.Fenced as over:
            raise self._stopped(job.id) from over
        discard(task.home)

    # ---- at the end of the worker

    @property
    def running(self) -> bool:
        """Whether a child lives."""
        return bool(self._running)

    def release(self) -> None:
        """Give back what this worker still owns; its children have ended."""
        with self.database.writing() as session:
            jobs.release(session, self.boot_id, blamed=False)

    # ---- parts of them

    def _claim(self, job_id: str, status: str) -> Job | None:
        """The job, as a new attempt of this worker. None: it has ended. Raises Stopped while it waits for something."""
        if self.draining.is_set():
            raise Stopped(f"{job_id}: this worker is ending")
        with self.database.writing() as session:
            if session.get(Worker, self.boot_id, with_for_update={"read": True}) is None:
                raise DeclaredDead(f"{self.boot_id}: others have taken this worker's jobs")
            job = jobs.claim(session, job_id, self.boot_id, status)
            ended = session.scalar(sa.select(Job.status).where(Job.id == job_id)) in jobs.FINAL
        if job is None:
            stopped = self._stopped(job_id)
            if not ended:
                raise stopped
        return job

    def _task(self, job: Job, folder: str | None = None) -> Task:
        home = self.settings.tenant_dir(job.tenant_id) / "jobs" / job.id
        own = home / (folder or f"{job.attempt:06d}")
        own.mkdir(parents=True, exist_ok=True)
        return Task(self.settings, self.database, job, home, own)

    def _run_child(self, job: Job, task: Task, phase: str) -> bool:
        """Returns whether it succeeded; a failure is recorded. Raises Stopped."""
        try:
            write_json(task.folder / f"{phase}.json", KINDS[job.kind].child_request(task, phase))
        except Gone as gone:
            return self._fail(job, gone.code, str(gone), None)
        reporter = Reporter(self.database, job, self._hidden(task))
        self._running.add(job.id)
        try:
            ended = supervise(
                [sys.executable, "-m", "service.child", job.kind, phase, str(task.folder), str(os.getpid())],
                self._environment(task, phase),
                task.folder,
                lambda pid: self._record_child(job, pid),
                reporter.line,
                lambda: self.draining.is_set() or reporter.over or self._is_over(job),
            )
            with self.database.writing() as session:
                quotas.count(session, job.tenant_id, quotas.CPU, ended.cpu_s)
            reporter.flush()
        except jobs.Fenced as over:
            raise self._stopped(job.id) from over
        finally:
            self._running.discard(job.id)
        return self._outcome(job, ended, reporter)

    def _outcome(self, job: Job, ended: Ended, reporter: Reporter) -> bool:
        if ended.code == 0 and not reporter.over:
            try:
                with self.database.writing() as session:
                    jobs.step_done(jobs.fenced(session, job.id, job.attempt))
            except jobs.Fenced as over:
                raise self._stopped(job.id) from over
            return True
        if ended.code == SAVED or ended.asked or reporter.over:
            raise self._stopped(job.id)
        log.warning("%s: child ended with %s: %s", job.id, ended.code, ended.stderr)
        return self._fail(job, *(reporter.error or _unexplained(ended)), reporter.problems)

    def _fail(
        self, job: Job, code: str, message: str, param: str | None, problems: Sequence[dict[str, Any]] = ()
    ) -> bool:
        try:
            with self.database.writing() as session:
                jobs.fail(session, jobs.fenced(session, job.id, job.attempt), code, message, param, problems)
        except jobs.Fenced as over:
            raise self._stopped(job.id) from over
        return False

    def _record_child(self, job: Job, pid: int) -> None:
        with self.database.writing() as session:
            jobs.fenced(session, job.id, job.attempt).child = record_of(pid)

    def _is_over(self, job: Job) -> bool:
        with self.database.reading() as session:
            attempt, status = session.execute(sa.select(Job.attempt, Job.status).where(Job.id == job.id)).one()
        return attempt != job.attempt or status not in jobs.ACTIVE

    def _stopped(self, job_id: str) -> Stopped:
        """After the child is gone: the job may go on elsewhere, or here."""
        with self.database.writing() as session:
            queued_again = jobs.child_ended(session, job_id, self.boot_id, self.draining.is_set())
        if queued_again:
            self.engine.resume(job_id, jobs.queue_of(job_id))
        return Stopped(f"{job_id} was stopped")

    def _hidden(self, task: Task) -> dict[str, str]:
        """What callers must not see -> what they see instead: where the server keeps things."""
        tenant = task.settings.tenant_dir(task.job.tenant_id)
        places = (task.plan, task.work, task.folder, task.home, tenant / "models", tenant)
        backbones = {name: alias for alias, name in self.settings.base_models.items()}
        return {f"{place}/": "" for place in places} | backbones

    def _environment(self, task: Task, phase: str) -> dict[str, str]:
        """Hidden states go to the tenant's own store."""
        own = {
            "ROOTSTOCK_STORE": str(task.settings.tenant_dir(task.job.tenant_id) / "activations"),
            "ROOTSTOCK_STORE_GIB": os.environ.get("ROOTSTOCK_STORE_GIB", ""),
            VARIABLE: ",".join(f"{alias}={name}" for alias, name in self.settings.base_models.items()),
        }
        if phase == "plan":  # each of its threads would reserve address space, which is limited there
            own["OPENBLAS_NUM_THREADS"] = "1"
        return child_environment(**own)


def _take_over(task: Task) -> None:
    """Copy what the newest earlier attempt has kept: that attempt may still be writing where it is."""
    earlier = sorted(path for path in task.home.glob("[0-9]*/work") if path.parent.name < task.folder.name)
    if earlier and not task.work.exists():
        partial = task.folder / ".work"
        shutil.copytree(earlier[-1], partial, dirs_exist_ok=True)
        for path in (*partial.rglob("*"), partial):
            sync(path)
        partial.rename(task.work)
        sync(task.folder)
        for path in earlier:
            discard(path.parent)
    task.work.mkdir(exist_ok=True)


def _unexplained(ended: Ended) -> tuple[str, str, None]:
    if ended.code == -9:
        why = "The process was killed by the system, which is what a lack of memory looks like"
        return "out_of_memory", f"{why}; try a smaller batch_size or max_length", None
    return "internal_error", f"The process ended with exit code {ended.code}; the server's log says more", None
