"""The interface that a worker's steps ask; nothing else may ask which kind a job is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session

from pipelines.errors import RootstockError
from service.database import Database, Scope
from service.files import get_file, path_of
from service.models import find_model, folder_of
from service.settings import ServiceSettings
from service.tables import Job
from service.verified import is_intact


@dataclass(frozen=True)
class Task:
    """One attempt at a job.

    Attributes:
        home: the job's folder; `folder` is this attempt's, below it.
    """

    settings: ServiceSettings
    database: Database
    job: Job
    home: Path
    folder: Path

    @property
    def plan(self) -> Path:
        return self.home / "plan"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def limits(self) -> dict[str, int]:
        return asdict(self.settings.limits)

    def upload(self, id: str | None) -> dict[str, str] | None:
        """Path and client's name of a file. Raises Gone."""
        if id is None:
            return None
        with self.database.reading() as session:
            file = get_file(Scope(session, self.job.tenant_id), id)
        if file is None:
            raise Gone(f"the file {id} was deleted, or it has expired")
        path = path_of(self.settings, file)
        if not is_intact(path, file.sha256):
            raise Gone(f"the file {id} is damaged on the server's disk; upload it again")
        return {"path": str(path), "filename": file.filename}

    def model(self, id: str) -> Path:
        """Run directory of a model. Raises Gone."""
        with self.database.reading() as session:
            model = find_model(Scope(session, self.job.tenant_id), id)
        if model is None:
            raise Gone(f"the model {id} was deleted")
        return folder_of(self.settings, model)


class Gone(RootstockError):
    """Something that was there when the job was made."""

    code = "not_found"


class Kind(Protocol):
    """A kind of job."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        """What the child reads. Raises Gone."""

    def place(self, task: Task) -> dict[str, Any]:
        """Move results to where they stay; repeating it changes nothing. Returns what `publish` needs."""

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        """Make them visible and the job succeeded, in the caller's transaction."""
