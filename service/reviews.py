"""Reviews: people say of the items nearest to a decision of a model whether it was right; that is training data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.database import Scope
from service.errors import invalid, missing
from service.files import get_file
from service.ids import new_id
from service.kinds.table import results_dir
from service.phases.batch_names import PREVIEW, QUEUE
from service.settings import ServiceSettings
from service.tables import Job, Model, ReviewLabel


def preview_of(settings: ServiceSettings, scope: Scope, job: Job) -> dict[str, Any] | None:
    """What pages show of a labelled table: as long as its output is kept."""
    folder = _results(settings, scope, job)
    return None if folder is None else _read(folder / PREVIEW)


def queue_of(settings: ServiceSettings, scope: Scope, job: Job, number: int) -> dict[str, Any]:
    """The items nearest to one decision. Raises ApiError 404."""
    folder = _results(settings, scope, job)
    path = None if folder is None or number < 0 else folder / QUEUE.format(number)
    if path is None or not path.is_file():
        raise missing("review queue", job.id, "review_not_found")
    return _read(path)


def given(scope: Scope, job: Job) -> dict[int, ReviewLabel]:
    """Row -> what was said of it, the latest last."""
    said = scope.select(ReviewLabel).where(ReviewLabel.job_id == job.id).order_by(ReviewLabel.created_at)
    return {each.row: each for each in scope.session.scalars(said)}


def counted(scope: Scope, job_ids: list[str]) -> dict[str, int]:
    """Job id -> how many of its items have a label."""
    said = scope.select(ReviewLabel).where(ReviewLabel.job_id.in_(job_ids), ReviewLabel.label.is_not(None))
    numbers = said.with_only_columns(ReviewLabel.job_id, sa.func.count().label("number")).group_by(ReviewLabel.job_id)
    return {row.job_id: row.number for row in scope.session.execute(numbers)}


def give(scope: Scope, job: Job, model: Model, item: dict[str, Any], label: str | None, now: float) -> None:
    """Say what an item of a queue is; None skips it. What was said before is replaced. Raises ApiError 400."""
    if label is not None and label not in model.labels:
        raise invalid(f"expected a class of the model, found {label[:100]!r}", "label")
    said = given(scope, job).get(item["row"])
    if said is None:
        said = ReviewLabel(id=new_id("review_"), job_id=job.id, row=item["row"], predicted=item["label"])
        scope.add(said)
    said.label, said.created_at = label, now


def examples(settings: ServiceSettings, scope: Scope, model: Model) -> list[dict[str, str]]:
    """Text and label of everything that was reviewed of a model's batches; skipped items are none."""
    named = scope.select(ReviewLabel).with_only_columns(ReviewLabel.job_id).distinct()
    jobs = scope.select(Job).where(Job.id.in_(named), Job.request["model"].as_string() == model.id).order_by(Job.seq)
    found: dict[str, str] = {}
    for job in scope.session.scalars(jobs):
        preview = preview_of(settings, scope, job)
        if preview is None:
            continue
        queues = (queue_of(settings, scope, job, number) for number in range(len(preview["queues"])))
        texts = {item["row"]: item["text"] for queue in queues for item in queue["items"]}
        found |= {texts[row]: said.label for row, said in given(scope, job).items() if said.label is not None}
    return [{"text": text, "label": label} for text, label in found.items()]


def labels_of(rows: list[dict[str, str]]) -> dict[str, int]:
    """Label -> how many examples have it, the most frequent first."""
    return dict(Counter(row["label"] for row in rows).most_common())


def _results(settings: ServiceSettings, scope: Scope, job: Job) -> Path | None:
    output = (job.result or {}).get("output_file_id")
    folder = results_dir(settings, job)
    if job.kind != "table" or job.status != "succeeded" or output is None or get_file(scope, output) is None:
        return None
    return folder if folder.is_dir() else None  # a batch of an earlier version has none


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
