"""A sweep for a terminal: a line for every training, a table of all settings."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from pipelines.sweep.plan import shown
from service.terminal import one_line
from service.units import duration

COLUMNS = ("macro-F1", "range", "deviation", "difference", "time")


def training_line(run: dict[str, Any]) -> str:
    """How one training ended."""
    done = f"{len(run['scores'])} of {run['epochs']} epochs, {duration(run['seconds'])}"
    if run["state"] == "failed":
        return one_line(f"  failed after {done}: {run['reason']}; its setting is dropped")
    score = f"validation macro-F1 {run['macro_f1']:.3f}"
    if run["state"] == "pruned":
        return f"  {score}: hopeless, stopped after {done}; its setting is dropped"
    return f"  {score} after {done}; hidden states {run['store']}"


def sweep_table(sweep: dict[str, Any]) -> Table:
    """A row for every setting, the best first; differences in points against the one marked *."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("rank")
    for key in sweep["vary"]:
        table.add_column(Text(one_line(key.rpartition(".")[2])), overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for row in sweep["settings"]:
        table.add_row(*(Text(one_line(cell)) for cell in _cells(row, list(sweep["vary"]))))
    return table


def _cells(row: dict[str, Any], keys: list[str]) -> list[str]:
    rank = f"{row['rank'] or row['state']}{' *' if row['reference'] else ''}"
    values = [shown(row["changes"][key]) for key in keys]
    if row["mean"] is None:
        return [rank, *values, *("" for _ in COLUMNS)]
    spread = f"{row['low']:.3f}-{row['high']:.3f}", "" if row["deviation"] is None else f"{row['deviation']:.3f}"
    return [rank, *values, f"{row['mean']:.3f}", *spread, _difference(row["to_reference"]), duration(row["seconds"])]


def _difference(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    low_high = "" if found["ci"] is None else f" ({100 * found['ci'][0]:+.1f} to {100 * found['ci'][1]:+.1f})"
    return f"{100 * found['mean']:+.1f}{low_high}"
