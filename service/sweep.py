"""What is left over: expired files, folders of jobs that have ended, old answers."""

from __future__ import annotations

import time

import sqlalchemy as sa

from pipelines.durable import discard
from service.database import Database, Scope
from service.files import delete_file, expired, remove_content
from service.idempotency import KEPT_S
from service.settings import ServiceSettings
from service.tables import Answered, Job

KEPT_FAILED_S = 7 * 24 * 3600.0  # a failed job may be tried again


def sweep(settings: ServiceSettings, database: Database) -> None:
    """Delete them. Idempotent, safe beside others that do the same."""
    with database.writing() as session:
        gone = [file for file in expired(session) if delete_file(Scope(session, file.tenant_id), file)]
        session.execute(sa.delete(Answered).where(Answered.created_at < time.time() - KEPT_S))
    for file in gone:
        remove_content(settings, file)
    for folder in settings.data_dir.glob("tenants/*/jobs/*"):
        if _ended(database, folder.name):
            discard(folder)


def _ended(database: Database, job_id: str) -> bool:
    """Whether nobody needs the folder of this job any more."""
    with database.reading() as session:
        job = session.scalars(sa.select(Job).where(Job.id == job_id)).one_or_none()
    if job is None or job.owner is not None:
        return False
    if job.status == "failed":
        return (job.finished_at or 0) < time.time() - KEPT_FAILED_S
    return job.status in ("succeeded", "cancelled")
