"""A batch: the result is a file of answers, and one of errors where there are any."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from service import jobs
from service.database import Scope
from service.files import Stored, add_file
from service.kinds.base import Task
from service.kinds.placing import place_file
from service.models import all_aliases, models_dir, models_of
from service.phases.batch_names import COUNTS, ERRORS, MODELS, OUTPUT
from service.tables import Job


class Batch:
    """See `base.Kind`."""

    def child_request(self, task: Task, phase: str) -> dict[str, Any]:
        asked = task.job.request
        request: dict[str, Any] = {"limits": task.limits, "endpoint": asked["endpoint"], "id": task.job.id}
        request["created"] = int(task.job.created_at)
        if phase == "plan":
            return request | {"upload": task.upload(asked["input_file_id"]), "models": self._known(task)}
        folders: list[str] = json.loads((task.plan / MODELS).read_text(encoding="utf-8"))
        at = models_dir(task.settings, task.job.tenant_id)
        return request | {"models": [str(at / folder) for folder in folders]}

    def place(self, task: Task) -> dict[str, Any]:
        placed: dict[str, Any] = {"counts": json.loads((task.work / COUNTS).read_text(encoding="utf-8"))}
        for key, name in (("output", OUTPUT), ("errors", ERRORS)):
            made = task.work / name
            placed[key] = asdict(place_file(task, made)) | {"name": name} if made.stat().st_size else None
        return placed

    def publish(self, session: Session, job: Job, task: Task, placed: dict[str, Any]) -> None:
        publish_files(session, job, placed)

    def _known(self, task: Task) -> dict[str, str]:
        """What a line may call a model -> the name of its run directory, as of now: aliases may move later."""
        with task.database.reading() as session:
            scope = Scope(session, task.job.tenant_id)
            folders = {model.id: model.folder for model in models_of(scope)}
            aliases = {name: folders[id] for name, id in all_aliases(scope).items() if id in folders}
        return folders | aliases


def publish_files(session: Session, job: Job, placed: dict[str, Any]) -> None:
    """Answers and errors become files, and the job succeeded."""
    scope, counts, result = Scope(session, job.tenant_id), placed["counts"], {"counts": placed["counts"]}
    lifetime = job.request["output_expires_s"]
    expires = None if lifetime is None else time.time() + lifetime
    for key in ("output", "errors"):
        if placed[key] is not None:
            stored = Stored(placed[key]["sha256"], placed[key]["bytes"])
            name = f"{job.id}_{placed[key]['name']}"
            result[f"{key}_file_id"] = add_file(scope, stored, name, "batch_output", expires).id
    jobs.succeed(session, job, result, f"{counts['completed']:,} of {counts['total']:,} requests completed.")
