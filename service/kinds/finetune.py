"""Fine-tuning: the result is a model, with its report and metrics as files."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from service import jobs
from service.database import Scope
from service.files import Stored, add_file
from service.kinds.base import Task
from service.kinds.placing import place_directory, place_file
from service.models import add_model, model_id, models_dir
from service.tables import Job, Tenant

RESULTS = ("report.json", "metrics.jsonl")


class FineTune:
    """See `base.Kind`."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        asked = task.job.request
        request = {
            "limits": task.limits,
            "rate_multiplier": asked["rate_multiplier"],
            "data": asked["data"],
            "config": asked["config"],
            "base": asked["base"],
            "start_from": asked["start_from"] and str(task.model(asked["start_from"])),
        }
        if phase == "plan":
            request["training"] = task.upload(asked["training_file"])
            request["validation"] = task.upload(asked["validation_file"])
        return request

    def place(self, task: Task) -> dict[str, Any]:
        target = models_dir(task.settings, task.job.tenant_id) / task.job.id
        place_directory(task.work / "run", target)
        report = json.loads((target / "report.json").read_text(encoding="utf-8"))
        return {
            "files": {name: asdict(place_file(task, target / name)) for name in RESULTS},
            "labels": report["labels"],
            "verdict": report["verdict"]["sentence"],
            "baseline": _baseline(report),
        }

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        scope, asked = Scope(session, job.tenant_id), job.request
        tenant = session.get_one(Tenant, job.tenant_id)
        id = model_id(asked["base"], tenant.name, asked["suffix"], job.id)
        add_model(scope, job, id, asked["base"], asked["suffix"], placed["labels"])
        files = {
            name: add_file(scope, Stored(**stored), f"{job.id}-{name}", "fine-tune-results").id
            for name, stored in placed["files"].items()
        }
        result = {
            "model": id,
            "files": list(files.values()),
            "report_file_id": files["report.json"],
            "labels": placed["labels"],
            "baseline": placed["baseline"],
        }
        jobs.note(session, job, placed["verdict"])
        jobs.succeed(session, job, result, f"New fine-tuned model created: {id}")


def _baseline(report: dict[str, Any]) -> dict[str, Any] | None:
    """The regression that the verdict is measured against, with its metrics."""
    rival = report["verdict"]["rival"]
    found = [system for system in report["systems"] if system["name"] == rival]
    return {"name": rival, "metrics": found[0]["metrics"]} if found else None
