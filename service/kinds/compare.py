"""A comparison: the result is a report."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service import jobs
from service.database import Scope
from service.files import Stored, add_file
from service.kinds.base import Task
from service.kinds.placing import place_directory, place_file
from service.settings import ServiceSettings
from service.tables import Job


class Compare:
    """See `base.Kind`."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        asked = task.job.request
        request: dict[str, Any] = {"limits": task.limits, "data": asked["data"]}
        if phase == "plan":
            return request | {"upload": task.upload(asked["file_id"])}
        return request | {"models": [str(task.model(id)) for id in asked["models"]]}

    def place(self, task: Task) -> dict[str, Any]:
        target = comparison_dir(task.settings, task.job)
        place_directory(task.work / "run", target)
        report = json.loads((target / "report.json").read_text(encoding="utf-8"))
        return {"file": asdict(place_file(task, target / "report.json")), "verdict": report["verdict"]["sentence"]}

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        stored = Stored(**placed["file"])
        file = add_file(Scope(session, job.tenant_id), stored, f"{job.id}-report.json", "fine-tune-results")
        jobs.succeed(session, job, {"report_file_id": file.id, "verdict": placed["verdict"]}, placed["verdict"])


def comparison_dir(settings: ServiceSettings, job: Job) -> Path:
    """Where the report of a finished comparison lies."""
    return settings.tenant_dir(job.tenant_id) / "comparisons" / job.id
