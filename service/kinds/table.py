"""A table that is classified by one model: the result has its format, and a file of errors where there are any."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from service.kinds.base import Task
from service.kinds.batch import publish_files
from service.kinds.placing import place_file
from service.phases.batch_names import COUNTS
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
        names = json.loads((task.plan / "table.json").read_text(encoding="utf-8"))
        made = task.work / names["output"]
        errors = made.with_name(made.name + ".errors.jsonl")
        counts = json.loads((task.work / COUNTS).read_text(encoding="utf-8"))
        return {
            "counts": counts,
            "output": asdict(place_file(task, made)) | {"name": names["output"]},
            "errors": asdict(place_file(task, errors)) | {"name": "errors.jsonl"} if errors.exists() else None,
        }

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        publish_files(session, job, placed)
