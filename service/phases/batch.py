"""A batch in a job: lines of requests -> rows -> `pipelines.classify` -> lines of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.bulk.ledger import MANIFEST
from pipelines.durable import write_json
from service.phases.batch_names import COUNTS, DONE, ERRORS, MODELS, OUTPUT, ROWS
from service.phases.files import plan_of, planning, work_of


def plan(folder: Path, request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Read every line; a line that is no request makes the batch fail, with all such lines."""
    from service.batch_lines import read_batch
    from service.refused import UploadRefused

    known, most = request["models"], request["limits"]["batch_lines"]
    with planning(folder) as staging:
        read = read_batch(Path(request["upload"]["path"]), request["endpoint"], staging / ROWS, most, models=known)
        if read.problems:
            yield {"event": "problems", "problems": read.problems}
            first = read.problems[0]
            where = "" if first["line"] is None else f"line {first['line']}: "
            raise UploadRefused(where + first["message"], first["code"], first["param"], first["line"])
        write_json(staging / MODELS, sorted({known[name] for name in read.models}))
        message = f"{read.requests:,} requests, {read.rows:,} texts, {read.bad:,} requests refused"
        yield {"event": "planned", "message": message, "data": {"total": read.requests, "failed": read.bad}}


def execute(folder: Path, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Classify the rows, from the last committed chunk of an earlier attempt, and write the answers."""
    from service.batch_lines import lines_path, write_batch

    rows, work = plan_of(folder) / ROWS, work_of(folder)
    done = work / DONE
    if request["models"] and not done.with_name(done.name + MANIFEST).exists():
        yield from _classified(rows, done, [Path(path) for path in request["models"]], stop)
    place = (request["endpoint"], work / OUTPUT, work / ERRORS, request["id"], request["created"])
    counts = write_batch(done, lines_path(rows), *place)
    write_json(work / COUNTS, asdict(counts))


def _classified(rows: Path, done: Path, models: list[Path], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    from pipelines.bulk.request import Options
    from pipelines.classify import classify

    options = Options(text="text", route="model", backend="torch")
    for event in classify(models, str(rows), done, options, resume=True, stop=stop):
        yield event.to_json()
