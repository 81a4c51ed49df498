"""What the service says -> a terminal: tables, live progress, the report's ladder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.errors import RootstockError
from service.terminal import plain, progress_bar

stdout = Console(highlight=False, markup=False, emoji=False)
stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)


class JobFailed(RootstockError):
    """The job that was followed ended, but not well."""


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Some fields of objects, to standard output."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(cell(column, row.get(column)) for column in columns))
    stdout.print(shown)


def cell(column: str, value: Any) -> str:
    """A field for people, on one line."""
    if value is None:
        return "–"
    if column.endswith(("_at", "created")) and isinstance(value, int):
        return datetime.fromtimestamp(value).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return plain(str(value)).replace("\n", " ")


def show_progress(events: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Follow a job to its end. Returns the job. Raises JobFailed."""
    job: dict[str, Any] = {}
    with progress_bar(stderr) as bar:
        task = bar.add_task("waiting", total=None, note="")
        for name, value in events:
            if name == "job":
                job = value
                done, total = job.get("steps_completed"), job.get("total_steps")
                note = f"{done}/{total} steps" if total else ""
                bar.update(task, description=job["status"], completed=done or 0, total=total, note=note)
            elif value["type"] != "metrics" or "validation" in value["message"]:
                bar.console.print(f"  {plain(value['message'])}", soft_wrap=True)
    if job.get("status") != "succeeded":
        error = job.get("error") or {}
        why = f": {error['message']}" if error else ""
        raise JobFailed(plain(f"job {job.get('id')} {job.get('status')}{why}"))
    return job


def ladder(report: dict[str, Any]) -> None:
    """Systems with their intervals, and the verdict."""
    shown = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("system", "accuracy", "macro-F1", "trained in"):
        shown.add_column(column, justify="left" if column == "system" else "right")
    for system in report["systems"]:
        metrics = system["metrics"]
        cells = [_with_interval(metrics, name) for name in ("accuracy", "macro_f1")]
        shown.add_row(plain(system["name"]), *cells, f"{system['train_seconds']:.1f} s")
    stdout.print(shown)
    stdout.print(plain(report["verdict"]["sentence"]), soft_wrap=True)


def look(look: dict[str, Any], figures: dict[str, Any]) -> None:
    """The findings of a data check in a line each, and the sentence of any look."""
    for check in figures.get("checks", []):
        stdout.print(plain(f"{check['level']:8} {check['name']}: {check['sentence']}"), soft_wrap=True)
    stdout.print(plain(look["sentence"]), soft_wrap=True)


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics[f"{name}_ci"]
    return f"{100 * metrics[name]:.1f} ({100 * low:.1f}–{100 * high:.1f})"
