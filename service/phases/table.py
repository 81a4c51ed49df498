"""A table in a job, for one model: rows of a CSV, JSONL or Parquet -> `pipelines.classify`, columns and order kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.bulk.ledger import ERRORS, MANIFEST
from pipelines.durable import discard, write_json
from pipelines.errors import DataError
from service.phases.batch_names import COUNTS, RESULTS, TABLE
from service.phases.files import plan_of, planning, work_of


def plan(folder: Path, request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Find out what the upload is and whether it has the column; keep it under a name that says so."""
    from service.refused import UploadRefused
    from service.upload_rows import listed, open_upload

    source, filename, text = Path(request["upload"]["path"]), request["upload"]["filename"], request["text"]
    with planning(folder) as staging:
        with open_upload(source, filename) as upload:
            if text not in upload.columns:
                found = f"no column {text!r} (text); columns found: {listed(upload.columns)}"
                raise UploadRefused(f"{upload.name}: {found}", "invalid_value", "text", 1)
            format = upload.format
        with source.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        name = f"input.{format}" + (".gz" if packed else "")
        os.link(source, staging / name)  # content never changes, and stays when the file is deleted
        write_json(staging / TABLE, {"input": name, "output": f"output.{format}"})
        yield {"event": "planned", "message": f"{format} with the columns {listed(upload.columns)}", "data": {}}


def execute(folder: Path, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Classify, from the last committed chunk of an earlier attempt."""
    from pipelines.bulk.request import Options
    from pipelines.classify import classify

    table = json.loads((plan_of(folder) / TABLE).read_text(encoding="utf-8"))
    out = work_of(folder) / table["output"]
    manifest = out.with_name(out.name + MANIFEST)
    if not manifest.exists():
        options, source = Options(text=request["text"], backend="torch"), plan_of(folder) / table["input"]
        for event in classify([Path(request["model"])], str(source), out, options, resume=True, stop=stop):
            yield event.to_json()
    summary = json.loads(manifest.read_text(encoding="utf-8"))
    _write_results(work_of(folder), out, request, summary, stop)
    rows, errors = summary["rows"], summary["errors"]
    write_json(work_of(folder) / COUNTS, {"total": rows, "completed": rows - errors, "failed": errors})


def _write_results(
    work: Path, out: Path, request: Mapping[str, Any], summary: Mapping[str, Any], stop: Callable[[], bool]
) -> None:
    """What pages show of it; an attempt before may have begun with that. A table without is as good for its owner."""
    from service.batch_results import queues, write_results

    report = json.loads((Path(request["model"]) / "report.json").read_text(encoding="utf-8"))
    asked = queues((report.get("operating_points") or {"points": []})["points"])
    discard(work / RESULTS)
    try:
        write_results(work / RESULTS, out, out.with_name(out.name + ERRORS), request["text"], summary, asked, stop)
    except (DataError, KeyError, ValueError, TypeError) as error:
        print(f"its results cannot be shown: {error!r}", file=sys.stderr)
        discard(work / RESULTS)
