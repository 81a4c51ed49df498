"""A table that is classified by one model: the result has its format, and a file of errors where there are any."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from pipelines.bulk.ledger import ERRORS
from service.kinds.base import Task
from service.kinds.batch import publish_files
from service.kinds.placing import place_directory, place_file
from service.phases.batch_names import COUNTS, RESULTS, TABLE
from service.settings import ServiceSettings
from service.tables import Job


class Table:
    """See `base.Kind`."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        asked = task.job.request
        request: dict[str, Any] = {"limits": task.limits, "text": asked["text"]}
        if phase == "plan":
            return request | {"upload": task.upload(asked["input_file_id"])}
        return request | {"model": str(task.model(asked["model"]))}

    def place(self, task: Task) -> dict[str, Any]:
        names = json.loads((task.plan / TABLE).read_text(encoding="utf-8"))
        made = task.work / names["output"]
        errors = made.with_name(made.name + ERRORS)
        if (task.work / RESULTS).is_dir():  # not of a table that an earlier version has labelled
            place_directory(task.work / RESULTS, results_dir(task.settings, task.job))
        kept = place_file(task, errors) if errors.exists() else None
        return {
            "counts": json.loads((task.work / COUNTS).read_text(encoding="utf-8")),
            "output": asdict(place_file(task, made)) | {"name": names["output"]},
            "errors": kept and asdict(kept) | {"name": ERRORS.removeprefix(".")},
        }

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        publish_files(session, job, placed)


def results_dir(settings: ServiceSettings, job: Job) -> Path:
    """Where what pages show of a finished table lies."""
    return settings.tenant_dir(job.tenant_id) / "batches" / job.id
