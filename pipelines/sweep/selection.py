"""Which setting is best, by the validation part alone, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from pipelines.errors import TrainingError
from pipelines.intervals import student_interval
from pipelines.sweep.runs import Run, Runs
from pipelines.sweep.settings import Setting

TIE = 0.001  # macro-F1 within which the setting that trains faster is taken
CAVEAT = (
    "The validation score of the best of many settings is optimistic, the more so the more were tried and the less "
    "they differ. The test part was not scored."
)


def table(settings: Sequence[Setting], runs: Runs, seeds: int, own: Setting | None) -> list[dict[str, Any]]:
    """A row for every setting: the best first, those that lack a seed last.

    Args:
        seeds: trainings of a setting that was not dropped.
        own: the config's own setting, which others are compared with; the first one where it is not among them.

    Raises:
        TrainingError: no setting has all its seeds.
    """
    rows = [_row(setting, runs.of(setting.name)) for setting in settings]
    whole = [row for row in rows if len(_scores(row)) == seeds]
    if not whole:
        reasons = [run.reason for run in runs if run.reason is not None]
        raise TrainingError(f"no setting was trained to its end; {reasons[0] if reasons else 'all were pruned'}")
    reference = next((row for row in whole if own is not None and row["setting"] == own.name), whole[0])
    ranked = _ranked(whole)
    for row in rows:
        row["reference"] = row is reference
        row["rank"] = ranked.index(row) + 1 if row in ranked else None
        row["to_reference"] = None if row is reference else _difference(row, reference)
    dropped = [row for row in rows if row["rank"] is None]
    return ranked + sorted(dropped, key=lambda row: -max(_best_scores(row), default=-1.0))


def sentence(rows: Sequence[dict[str, Any]], seeds: int) -> str:
    """What the table says, for people."""
    best, others = rows[0], [row for row in rows if row["state"] != "complete"]
    spread = f"over {seeds} seeds {best['low']:.3f} to {best['high']:.3f}" if seeds > 1 else "one seed"
    dropped = f"; {len(others)} of them were not trained to their end" if others else ""
    return (
        f"Of {len(rows)} {'setting' if len(rows) == 1 else 'settings'}{dropped}, {best['setting']} is best: "
        f"macro-F1 {best['mean']:.3f} on the validation part ({spread})."
    )


def _row(setting: Setting, runs: Sequence[Run]) -> dict[str, Any]:
    complete = [run for run in runs if run.state == "complete"]
    scores = [max(run.scores) for run in complete]
    last = runs[-1] if runs else None
    return {
        "setting": setting.name,
        "label": setting.label,
        "changes": setting.changes,
        "state": "complete" if last is None else last.state,
        "mean": mean(scores) if scores else None,
        "low": min(scores, default=None),
        "high": max(scores, default=None),
        "deviation": stdev(scores) if len(scores) > 1 else None,
        "seconds": mean(run.train_seconds or 0.0 for run in complete) if complete else None,
        "learning_rate": setting.learning_rate,
        "depth": setting.depth,
        "epochs": setting.config.training.epochs,
        "runs": [run.to_json() for run in runs],
    }


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first: of those within TIE of the highest mean the fastest; the rest by their means."""
    by_mean = sorted(rows, key=lambda row: -row["mean"])
    near = [row for row in by_mean if row["mean"] >= by_mean[0]["mean"] - TIE]
    best = min(near, key=lambda row: row["seconds"])
    return [best, *(row for row in by_mean if row is not best)]


def _difference(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any] | None:
    """Mean of the differences seed by seed, and its interval where there are two; None without a common seed."""
    own, other = _scores(row), _scores(reference)
    differences = [own[seed] - other[seed] for seed in own if seed in other]
    if not differences:
        return None
    return {"mean": mean(differences), "ci": student_interval(differences), "seeds": len(differences)}


def _scores(row: dict[str, Any]) -> dict[int, float]:
    """Best score of every complete training by seed."""
    return {run["seed"]: run["macro_f1"] for run in row["runs"] if run["state"] == "complete"}


def _best_scores(row: dict[str, Any]) -> list[float]:
    return [run["macro_f1"] for run in row["runs"] if run["macro_f1"] is not None]
