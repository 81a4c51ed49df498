"""Events of a run -> a terminal: progress bar, stages, scores; or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.records import Checkpoint, Event, Finished, Scored, Stage, Step, Validation


def show(events: Iterable[Event], quiet: bool = False) -> None:
    """Print events for people, to standard error. `quiet` (all processes but the main one) only consumes them."""
    console = Console(stderr=True, highlight=False, emoji=False, quiet=quiet)
    columns = (
        TextColumn("  training"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("steps  {task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=None, visible=False, note="")
        for event in events:
            if isinstance(event, Step):
                bar.update(task, total=event.total_steps, completed=event.step, visible=True, note=_rate(event))
            elif line := _line(event):
                if not isinstance(event, Validation):
                    bar.update(task, visible=False)
                console.print(line, markup=False, soft_wrap=True)


def print_json(events: Iterable[Event], quiet: bool = False) -> None:
    """Print events as JSON lines, to standard output."""
    for event in events:
        if not quiet:
            print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)


def _rate(step: Step) -> str:
    minutes, seconds = divmod(round(step.remaining_s), 60)
    return f"loss {step.loss:.3f}  {step.items_per_second:.0f} items/s  {minutes}:{seconds:02d} left"


def _line(event: Event) -> str | None:
    match event:
        case Stage(name, message):
            return f"{name}: {message}"
        case Validation():
            kept = " (best so far)" if event.best else ""
            return (
                f"  epoch {event.epoch:g}: validation loss {event.loss:.3f}, accuracy {event.accuracy:.3f}, "
                f"macro-F1 {event.macro_f1:.3f}{kept}"
            )
        case Scored(name, accuracy, macro_f1):
            return f"  {name}: test accuracy {accuracy:.3f}, macro-F1 {macro_f1:.3f}"
        case Finished(path, sentence):
            return f"{sentence}\nreport: {path / 'report.html'}"
        case Checkpoint():
            return None
    return None
