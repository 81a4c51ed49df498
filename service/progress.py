"""Events of a run -> a terminal: progress bar, stages, scores; or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.highlights import strongest
from pipelines.records import (
    Checked,
    Checkpoint,
    Classified,
    Embedded,
    Estimated,
    Event,
    Explained,
    Explanation,
    Finished,
    Probed,
    Rows,
    Scored,
    Stage,
    Step,
    Swept,
    Trained,
    Validation,
)
from service.sweep_table import sweep_table, training_line
from service.terminal import one_line, progress_bar
from service.units import duration

PLACES = 3  # of a finding that a terminal shows
_MARKS = {"problem": "  !!", "note": "  - ", "fine": "  ok"}


def show(events: Iterable[Event], quiet: bool = False) -> None:
    """Print events for people, to standard error. `quiet` (all processes but the main one) only consumes them."""
    console = Console(stderr=True, highlight=False, emoji=False, quiet=quiet)
    with progress_bar(console) as bar:
        task = bar.add_task("training", total=None, visible=False, note="")
        for event in events:
            if isinstance(event, Step):
                note = f"{event.step}/{event.total_steps} steps  {_rate(event)}"
                bar.update(task, total=event.total_steps, completed=event.step, visible=True, note=note)
            elif isinstance(event, Rows):
                total = 1.0 if event.share is not None else None
                note = _rows(event)
                bar.update(task, description="rows", total=total, completed=event.share or 0, visible=True, note=note)
            elif line := _line(event):
                if not isinstance(event, Validation):
                    bar.update(task, visible=False)
                if isinstance(event, Swept):
                    console.print(sweep_table(event.sweep))
                console.print(line, markup=False, soft_wrap=True)


def print_json(events: Iterable[Event], quiet: bool = False) -> None:
    """Print events as JSON lines, to standard output."""
    for event in events:
        if not quiet:
            print(json.dumps(event.to_json(), ensure_ascii=False), flush=True)


def _rate(step: Step) -> str:
    return f"loss {step.loss:.3f}  {step.items_per_second:.0f} items/s  {_left(step.remaining_s)}"


def _rows(done: Rows) -> str:
    left = "" if done.remaining_s is None else f"  {_left(done.remaining_s)}"
    return f"{done.rows:,} rows  {done.rows_per_second:,.0f}/s{left}"


def _left(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"


def _notes(path: Path, summary: dict[str, Any]) -> list[str]:
    """What a reader of a finished classification should know."""
    notes = []
    if summary["errors"]:
        notes.append(f"{summary['errors']:,} rows have no prediction: {path}.errors.jsonl says why")
    if "answered_by_regression" in summary and summary["rows"]:
        share = summary["answered_by_regression"] / summary["rows"]
        certificate = summary["certificate"]
        notes.append(
            f"the regression answered {share:.1%} of the rows, which costs an estimated "
            f"{100 * certificate['estimated_loss']:.2f} points of macro-F1, at most "
            f"{100 * certificate['max_loss']:.2f} with 95% confidence"
        )
    for name, change in summary["drift"].items():
        if change.get("warnings"):
            notes.append(f"warning, {name}: {'; '.join(change['warnings'])}")
    return notes


def _findings(checked: Checked) -> list[str]:
    """Every check in a line, with the first places below it."""
    lines = []
    for check in checked.checks:
        lines.append(f"{_MARKS[check['level']]} {check['name']}: {one_line(check['sentence'])}")
        shown = check["places"][:PLACES]
        lines += [one_line(f"      {p['part']} line {p['line']} ({p['label']}): {p['why']}") for p in shown]
        if check["found"] > len(shown) > 0:
            lines.append(f"      and {check['found'] - len(shown):,} more")
    more = "--out DIR writes a page and the first 1,000 of each as JSON"
    where = f"page: {checked.path / 'check.html'}" if checked.path else more
    return [*lines, where]


def _layers(probed: Probed) -> list[str]:
    """The probe on every layer and every short run in a line, and the advice."""
    found = probed.probe
    lines = [f"  layer {p['layer']}: probe's macro-F1 {_with_interval(p)}" for p in found["layers"]]
    lines += [
        f"  {r['depth']} layers frozen: macro-F1 {_with_interval(r)} after {r['epochs']} epochs, "
        f"{r['train_seconds']:.0f} s of training"
        for r in found["short_runs"]
    ]
    lines += [found["sentence"], f"use it with --set backbone.freeze={found['depth']}"]
    return lines + ([f"page: {probed.path / 'probe.html'}"] if probed.path else [])


def _with_interval(score: dict[str, Any]) -> str:
    low, high = score["macro_f1_ci"]
    return f"{score['macro_f1']:.3f} ({low:.3f} to {high:.3f})"


def _explanation(item: dict[str, Any]) -> str:
    """One prediction in a line: what it says, and the words that moved it most; below it what decided the rival."""
    truth = f" (is {item['label']})" if item["label"] not in (None, item["predicted"]) else ""
    cut = f"; {item['cut_tokens']:,} tokens were cut off" if item["cut_tokens"] else ""
    moved = _strongest([(word["word"], word["attribution"]) for word in item["words"]])
    lines = [
        f"  {item['id']}: {item['predicted']} {item['probability']:.2f}{truth}: {moved or 'no word moved it'}{cut}"
    ]
    for own in item["regressions"]:
        if own["rival"] and own["features"]:
            decided = _strongest([(feature["name"], feature["contribution"]) for feature in own["features"]])
            lines.append(f"      {own['name']}: {own['predicted']} {own['probability']:.2f}: {decided}")
    return "\n".join(map(one_line, lines))


def _strongest(words: list[tuple[str, float]]) -> str:
    return ", ".join(f"{word} {weight:+.2f}" for sign in (1, -1) for word, weight in strongest(words, sign))


def _explanations(done: Explained) -> str:
    """What holds for all of them, with what they are not."""
    total, (least, most) = done.summary["explained"], done.summary["steps"]
    rank = done.summary["median_spearman"]
    lines = [
        f"words add up to the change of the score within {done.summary['tolerance']:.0%} in "
        f"{done.summary['complete']} of {total}, {least} to {most} steps",
        f"occlusion names the same word first in {done.summary['same_top_word']} of {total}"
        + (f"; median rank correlation {rank:.2f}" if rank is not None else ""),
        done.summary["caveat"],
        f"page: {done.path / 'explain.html'}" if done.path else "--out DIR writes a page with all words, and JSON",
    ]
    return "\n".join(lines)


def _estimate(found: Estimated) -> list[str]:
    """The figures as a list with aligned values, and what their intervals cover."""
    figures = found.figures
    parameters, disk = figures["parameters"], figures["disk_mib"]
    rows = {
        "parameters trained": f"{parameters['trained']:,} of {parameters['total']:,}",
        "optimizer steps": f"{figures['steps']:,}",
        "training": _between(figures["train_seconds"], duration),
        "whole run": _between(figures["whole_seconds"], duration),
        "memory": _between(figures["peak_memory_mib"], _mib),
        "disk, run directory": _mib(disk["run"]["value"]),
        "disk, while it runs": _mib(disk["while_running"]["value"]),
        "disk, hidden states": _mib(disk["store"]["value"]),
    }
    settings = [f"fits with {' '.join(f'--set {change}' for change in found.changes)}"] if found.changes else []
    return [*settings, *(f"  {name:<20} {value}" for name, value in rows.items()), *figures["errors"]]


def _between(figure: dict[str, float], shown: Callable[[float], str]) -> str:
    return f"{shown(figure['value'])} ({shown(figure['low'])} to {shown(figure['high'])})"


def _mib(mib: float) -> str:
    return f"{mib:,.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB"


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
        case Classified(path, summary):
            return "\n".join([f"{summary['rows']:,} rows classified: {path}", *_notes(path, summary)])
        case Embedded(path, rows, width, layer):
            return f"{rows:,} embeddings of {width} values after {layer} hidden layers: {path}"
        case Probed():
            return "\n".join(_layers(event))
        case Trained():
            return training_line(event.run)
        case Swept(path, found):
            best = path / "best.yaml"
            again = f"For an honest figure: rootstock finetune {best}"
            return f"{one_line(found['sentence'])}\n{found['caveat']} {again}\npage: {path / 'sweep.html'}"
        case Checked():
            return "\n".join(_findings(event))
        case Explanation():
            return _explanation(event.item)
        case Explained():
            return _explanations(event)
        case Estimated():
            return "\n".join(_estimate(event))
        case Checkpoint():
            return None
    return None
