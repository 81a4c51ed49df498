"""Looks before and after training (data check, probe, estimate, explanation): the result are figures, often a page."""

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
from service.kinds.finetune import FineTune
from service.kinds.placing import place_directory, place_file
from service.settings import ServiceSettings
from service.tables import Job


class Look:
    """See `base.Kind`. The data and settings are those of a fine-tuning that is not done."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        return FineTune().child_request(task, phase)

    def place(self, task: Task) -> dict[str, Any]:
        target = look_dir(task.settings, task.job)
        place_directory(task.work / "run", target)
        figures = target / f"{task.job.kind}.json"
        sentence = json.loads(figures.read_text(encoding="utf-8"))["sentence"]
        return {"file": asdict(place_file(task, figures)), "sentence": sentence}

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        name = f"{job.id}-{job.kind}.json"
        file = add_file(Scope(session, job.tenant_id), Stored(**placed["file"]), name, "fine-tune-results")
        result = {"report_file_id": file.id, "sentence": placed["sentence"]}
        jobs.succeed(session, job, result, placed["sentence"])


class Columns(Look):
    """Which columns an upload has."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        request: dict[str, Any] = {"limits": task.limits}
        return request | ({"upload": task.upload(task.job.request["file_id"])} if phase == "plan" else {})


class Explain(Look):
    """What moved a model on some texts, or on those that its report lists."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        asked = task.job.request
        return {"limits": task.limits, "model": str(task.model(asked["model_id"])), "texts": asked["texts"]}


def look_dir(settings: ServiceSettings, job: Job) -> Path:
    """Where the page and the figures of a finished look lie, named after its kind."""
    return settings.tenant_dir(job.tenant_id) / "looks" / job.id
