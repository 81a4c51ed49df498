"""Plots for the report, as SVG text without scripts, outside references or dates."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, ACCENT, SECOND = "#1f2937", "#9ca3af", "#0f766e", "#b45309"
_STYLE = {
    "svg.fonttype": "none",  # text stays text: readable aloud, small
    "svg.hashsalt": "rootstock",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def ladder(systems: list[dict[str, Any]]) -> str:
    """Macro-F1 of every system with its 95% interval, weakest first."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.5 * len(systems) + 0.9), layout="constrained")
        axes = figure.subplots()
        for row, system in enumerate(reversed(systems)):
            value = system["metrics"]["macro_f1"]
            low, high = system["metrics"]["macro_f1_ci"]
            color = ACCENT if system["name"] == "fine-tuned" else MUTED
            axes.barh(row, value, color=color, height=0.55)
            axes.plot([low, high], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
            axes.text(high + 0.012, row, f"{value:.3f}", va="center")
        axes.set_yticks(range(len(systems)), [system["name"] for system in reversed(systems)])
        axes.set_xlim(0, 1.08)
        axes.set_xlabel("macro-F1 on the test part; line: 95% interval")
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def training_curves(history: list[dict[str, Any]]) -> str:
    """Training and validation loss, and validation macro-F1, over epochs."""
    steps = [event for event in history if event["event"] == "step"]
    checks = [event for event in history if event["event"] == "validation"]
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([e["epoch"] for e in steps], [e["loss"] for e in steps], color=MUTED, label="training")
        left.plot([e["epoch"] for e in checks], [e["loss"] for e in checks], "o-", color=ACCENT, label="validation")
        _label(left, "loss")
        left.legend(frameon=False)
        right.plot([e["epoch"] for e in checks], [e["macro_f1"] for e in checks], "o-", color=ACCENT)
        best = [e for e in checks if e["best"]][-1]
        right.plot([best["epoch"]], [best["macro_f1"]], "o", markersize=11, fillstyle="none", color=SECOND)
        _label(right, "validation macro-F1")
        return _svg(figure)


def _label(axes: Axes, name: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.set_ylim(bottom=0 if name == "loss" else None)


def _svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; sized by the page, hidden from screen readers (the table says the same)."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")  # follows the page's light or dark theme
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg aria-hidden="true" \1', text, count=1)
