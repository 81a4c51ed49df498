"""Reviews: people say of the items nearest to a decision of a model whether it was right; that is training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from service.database import Scope
from service.errors import missing
from service.files import get_file
from service.ids import new_id
from service.kinds.table import results_dir
from service.phases.batch_names import ITEMS, PREVIEW, QUEUE
from service.settings import ServiceSettings
from service.tables import Job, Model, ReviewLabel


def preview_of(settings: ServiceSettings, scope: Scope, job: Job) -> dict[str, Any] | None:
    """What pages show of a labelled table: as long as its output is kept, and where it could be made."""
    output = (job.result or {}).get("output_file_id")
    if job.kind != "table" or job.status != "succeeded" or output is None or get_file(scope, output) is None:
        return None
    path = results_dir(settings, job) / PREVIEW
    return _read(path) if path.is_file() else None


def queue_of(settings: ServiceSettings, job: Job, number: int) -> dict[str, Any]:
    """The items nearest to one decision, as [row, place]. Raises ApiError 404."""
    path = results_dir(settings, job) / QUEUE.format(number)
    if not path.is_file():
        raise missing("review queue", job.id, "review_not_found")
    return _read(path)


def item_at(settings: ServiceSettings, job: Job, place: int) -> dict[str, Any]:
    """One item of a queue: row, text, label, scores."""
    with (results_dir(settings, job) / ITEMS).open("rb") as file:
        file.seek(place)
        found: dict[str, Any] = json.loads(file.readline())
    return found


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
    """Say what an item of a queue is; None skips it. What was said before is replaced.

    Args:
        job: locked, so that two people who say something of one item take turns.
        label: a class of the model.
    """
    mine = scope.select(ReviewLabel).where(ReviewLabel.job_id == job.id, ReviewLabel.row == item["row"])
    said = scope.session.scalars(mine).one_or_none()
    if said is None:
        own = {"row": item["row"], "text": item["text"], "predicted": item["label"]}
        said = ReviewLabel(id=new_id("review_"), job_id=job.id, model_id=model.id, **own)
        scope.add(said)
    said.label, said.created_at = label, now


def labels_of(scope: Scope, model: Model) -> dict[str, int]:
    """Label -> how often it was given to items of this model's batches, the most frequent first."""
    number = sa.func.count().label("number")
    counts = _of_model(scope, model).with_only_columns(ReviewLabel.label, number).group_by(ReviewLabel.label)
    return {row.label: row.number for row in scope.session.execute(counts.order_by(number.desc(), ReviewLabel.label))}


def examples(scope: Scope, model: Model) -> list[dict[str, str]]:
    """Text and label of everything that was reviewed of a model's batches; of one text the latest word counts."""
    said = scope.session.scalars(_of_model(scope, model).order_by(ReviewLabel.created_at))
    found = {each.text: str(each.label) for each in said}
    return [{"text": text, "label": label} for text, label in found.items()]


def _of_model(scope: Scope, model: Model) -> sa.Select[ReviewLabel]:
    return scope.select(ReviewLabel).where(ReviewLabel.model_id == model.id, ReviewLabel.label.is_not(None))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
