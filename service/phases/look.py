"""Looks in a job: a data check, a probe or an estimate of what a fine-tuning would be; an explanation of a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.config import RunConfig, parse_config
from pipelines.durable import publish, staged, write_json
from service.phases.files import plan_of, planning, work_of
from service.phases.finetune import CONFIG, plan

__all__ = ["check", "columns", "estimate", "explain", "plan", "plan_columns", "plan_nothing", "probe"]
COLUMNS = "columns.json"


def plan_columns(folder: Path, request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Find the columns of an upload, and its first rows."""
    from service.upload_columns import columns_of

    with planning(folder) as staging:
        found = columns_of(Path(request["upload"]["path"]), request["upload"]["filename"])
        write_json(staging / COLUMNS, found)
        yield {"event": "planned", "message": found["sentence"], "data": found}


def columns(folder: Path, _request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """What the plan holds is all there is to say."""
    if not (out := _out(folder)).is_dir():
        with staged(out) as work:
            shutil.copyfile(plan_of(folder) / COLUMNS, work / COLUMNS)
            publish(work, out, {"kind": "columns"})
    yield from ()


def check(folder: Path, _: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Check the data."""
    from pipelines.check import check as run
    from service.settings import default_store

    if not (out := _out(folder)).is_dir():
        yield from _passed_on(run(_config(folder), out, None, stop, default_store()))


def probe(folder: Path, _: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Probe the hidden layers, and try the depths that this suggests."""
    from pipelines.probe import probe as run
    from service.settings import default_store

    if not (out := _out(folder)).is_dir():
        yield from _passed_on(run(_config(folder), out, True, stop, default_store()))


def estimate(folder: Path, _: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Say what the run would take."""
    from pipelines.estimate.estimate import estimate as run
    from pipelines.records import Estimated
    from service.settings import default_store

    if (out := _out(folder)).is_dir():
        return
    events = list(run(_config(folder), stop, default_store()))
    yield from _passed_on(iter(events))
    figures = next(event.figures for event in events if isinstance(event, Estimated))
    with staged(out) as work:
        write_json(work / "estimate.json", figures | {"sentence": _told(figures)})
        publish(work, out, {"kind": "estimate"})


def _told(figures: Mapping[str, Any]) -> str:
    whole, memory = figures["whole_seconds"], figures["peak_memory_mib"]
    return (
        f"About {whole['value']:,.0f} s in all ({whole['low']:,.0f} to {whole['high']:,.0f}), "
        f"{memory['value']:,.0f} MiB of memory while it trains"
    )


def plan_nothing(folder: Path, _request: Mapping[str, Any], _: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """A model and texts need no reading."""
    with planning(folder):
        yield {"event": "planned", "message": "nothing to read", "data": {}}


def explain(folder: Path, request: Mapping[str, Any], stop: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Say which words moved a model."""
    from pipelines.explain import explain as run
    from service.settings import default_store

    if not (out := _out(folder)).is_dir():
        yield from _passed_on(run(Path(request["model"]), out, request["texts"], stop=stop, store=default_store()))


def _out(folder: Path) -> Path:
    """Where the look is; it appears there complete."""
    return work_of(folder) / "run"


def _config(folder: Path) -> RunConfig:
    return parse_config(json.loads((plan_of(folder) / CONFIG).read_text(encoding="utf-8")))


def _passed_on(events: Iterator[Any]) -> Iterator[dict[str, Any]]:
    """Stages and steps; the figures themselves are in a file."""
    from pipelines.records import Stage, Step

    return (event.to_json() for event in events if isinstance(event, Stage | Step))
