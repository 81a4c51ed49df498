"""Losses and validation macro-F1 of a run as lines of a drawing, 0 to 1 in both directions made into pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 320, 140  # pixels of the drawing, without its margins
SERIES = (
    ("Loss", (("train_loss", "training"), ("valid_loss", "validation"))),
    ("Macro-F1", (("valid_macro_f1", "validation"),)),
)


@dataclass(frozen=True)
class Line:
    """One curve: its name, `x,y` pairs for a polyline, and its last value."""

    name: str
    points: str
    last: float


@dataclass(frozen=True)
class Drawing:
    """Curves with one scale: the values at the lower and at the upper edge, and the last step."""

    title: str
    lines: tuple[Line, ...]
    low: float
    high: float
    steps: int


def drawings(metrics: Sequence[dict[str, Any]]) -> list[Drawing]:
    """What can be drawn of metrics in the order of their steps; two points at least make a line.

    Args:
        metrics: data of a job's metrics events: step, and of losses and macro-F1 what was known then.
    """
    found = []
    for title, series in SERIES:
        curves = {name: _values(metrics, key) for key, name in series}
        curves = {name: values for name, values in curves.items() if len(values) > 1}
        if curves:
            found.append(_drawing(title, curves))
    return found


def _values(metrics: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value), each value once: validations stay in the metrics until the next one."""
    found: list[tuple[int, float]] = []
    for each in metrics:
        value, step = each.get(key), each.get("step")
        if value is None or step is None or (found and (found[-1][1] == value or found[-1][0] >= step)):
            continue
        found.append((step, float(value)))
    return found


def _drawing(title: str, curves: dict[str, list[tuple[int, float]]]) -> Drawing:
    every = [point for values in curves.values() for point in values]
    steps = max(step for step, _ in every)
    low, high = min(value for _, value in every), max(value for _, value in every)
    spread = high - low or 1.0

    def place(step: int, value: float) -> str:
        return f"{WIDTH * step / steps:.1f},{HEIGHT * (high - value) / spread:.1f}"

    lines = [Line(name, " ".join(place(*p) for p in values), values[-1][1]) for name, values in curves.items()]
    return Drawing(title, tuple(lines), low, high, steps)
