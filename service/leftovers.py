"""What is left over: content without a file, deleted models, folders of jobs that have ended, old answers."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import sqlalchemy as sa

from pipelines.durable import discard
from service.backup import removing
from service.database import Database, Scope
from service.files import delete_file, expired, get_file, remove_content, unnamed_content
from service.idempotency import KEPT_S
from service.jobs import ACTIVE
from service.models import folder_of
from service.settings import ServiceSettings
from service.tables import Answered, Job, Model

KEPT_FAILED_S = 7 * 24 * 3600.0  # a failed job may be tried again


class Leftovers:
    """Finds and deletes them. Idempotent, safe beside others that do the same.

    Content is deleted when it was found twice: its file object may be on its way, however the clock of the day jumps.
    """

    def __init__(self, settings: ServiceSettings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.seen: dict[Path, int] = {}

    def remove(self) -> None:
        """Not while a backup is made."""
        with removing(self.settings) as allowed:
            if allowed:
                self._remove()

    def _remove(self) -> None:
        with self.database.writing() as session:
            for file in expired(session):
                delete_file(Scope(session, file.tenant_id), file)
            session.execute(sa.delete(Answered).where(Answered.created_at < time.time() - KEPT_S))
        with self.database.reading() as session:
            unnamed = unnamed_content(self.settings, session)
            deleted = sa.select(Model).where(Model.deleted_at > 0)
            models = [folder_of(self.settings, model) for model in session.scalars(deleted)]
        for path, changed in unnamed.items():
            if self.seen.get(path) == changed:
                remove_content(path, changed)
        self.seen = unnamed
        for folder in models:
            discard(folder)
        for place, over in (("jobs", _ended), ("batches", _gone)):
            for folder in self.settings.data_dir.glob(f"tenants/*/{place}/*"):
                if folder.name.startswith(".trash-"):
                    shutil.rmtree(folder, ignore_errors=True)
                elif over(self.database, folder.name):
                    discard(folder)


def _gone(database: Database, job_id: str) -> bool:
    """Whether the output of this batch is not there; what pages show of it goes with it."""
    with database.reading() as session:
        job = session.scalars(sa.select(Job).where(Job.id == job_id)).one_or_none()
        if job is None or job.status == "succeeded":
            output = None if job is None else (job.result or {}).get("output_file_id")
            return job is None or output is None or get_file(Scope(session, job.tenant_id), output) is None
    return job.owner is None and job.status not in ACTIVE  # placed a moment before it would have succeeded


def _ended(database: Database, job_id: str) -> bool:
    """Whether nobody needs the folder of this job any more."""
    with database.reading() as session:
        job = session.scalars(sa.select(Job).where(Job.id == job_id)).one_or_none()
    if job is None or job.owner is not None:
        return False
    if job.status == "failed":
        return (job.finished_at or 0) < time.time() - KEPT_FAILED_S
    return job.status in ("succeeded", "cancelled")
