"""Comparing models on a labelled upload in a job: `pipelines.compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.durable import MANIFEST
from service.phases.files import plan_of, planning, work_of

DATA = "data.jsonl"


def plan(folder: Path, request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Read the upload and say what was understood."""
    from service.training_data import prepare

    upload = request["upload"]
    with planning(folder) as staging:
        understood = prepare(Path(upload["path"]), upload["filename"], request["data"], staging / DATA, training=False)
        yield {"event": "planned", "message": understood.sentence, "data": understood.to_json()}


def execute(folder: Path, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Score every model and its baselines."""
    from pipelines.compare import compare

    out = work_of(folder) / "run"
    if (out / MANIFEST).exists():  # an earlier attempt ended between its last file and its last word
        return
    models = [Path(path) for path in request["models"]]
    columns = {"text": "text", "label": "label"}
    for event in compare(models, plan_of(folder) / DATA, out, columns, False, stop):
        yield event.to_json()
