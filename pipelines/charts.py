"""Plots for the report, as SVG text without scripts, outside references or dates."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, MUTED, ACCENT, SECOND = "#1f2937", "#9ca3af", "#0f766e", "#b45309"
ACCENT_OF_PAGE = "var(--yes)"  # what ACCENT becomes: the page has one for light and one for dark
COLORS = (ACCENT, SECOND, "#4f46e5", "#be185d", "#0369a1", "#65a30d")
SETTINGS = 40  # of a sweep that are drawn; its table has all
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


def ladder(systems: list[dict[str, Any]], main: str) -> str:
    """Macro-F1 of every system with its 95% interval, lowest rung on top; the main system in colour."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.5 * len(systems) + 0.9), layout="constrained")
        axes = figure.subplots()
        for row, system in enumerate(reversed(systems)):
            value = system["metrics"]["macro_f1"]
            low, high = system["metrics"]["macro_f1_ci"]
            color = ACCENT if system["name"] == main else MUTED
            axes.barh(row, value, color=color, height=0.55)
            axes.plot([low, high], [row, row], color=INK, linewidth=1.6, solid_capstyle="butt")
            axes.text(high + 0.012, row, f"{value:.3f}", va="center")
        axes.set_yticks(range(len(systems)), [_plain(s["name"], 48) for s in reversed(systems)])
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


def precision_recall_and_roc(curves: list[dict[str, Any]], main: str) -> str:
    """Both curves of the main system (solid) and its rival (dashed); one colour for every class."""
    classes = list(dict.fromkeys(curve["class"] for curve in curves))
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for curve in curves:
            own = curve["system"] == main
            color = COLORS[classes.index(curve["class"]) % len(COLORS)] if own or len(classes) > 1 else MUTED
            style = {"color": color, "linestyle": "-" if own else "--", "linewidth": 1.8 if own else 1.1}
            name = curve["system"] if len(classes) == 1 else curve["class"] if own else None
            left.plot(*zip(*curve["precision_recall"], strict=True), **style, label=name and _plain(name, 30))
            right.plot(*zip(*curve["roc"], strict=True), **style)
        right.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        for axes, (x, y) in ((left, ("recall", "precision")), (right, ("false positive rate", "true positive rate"))):
            axes.set(xlabel=x, ylabel=y, xlim=(0, 1.01), ylim=(0, 1.02))
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return _svg(figure)


def reliability(calibration: dict[str, Any]) -> str:
    """Share of right answers against confidence, before and after scaling; the area of a dot is its number of items."""
    states = ("before", "after") if calibration["scaled"] else ("after",)
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.4), layout="constrained")
        for axes, state in zip(figure.subplots(1, 2, squeeze=False)[0], states, strict=False):
            bins = calibration[state]["bins"]
            most = max(b["items"] for b in bins)
            x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
            axes.plot(x, y, color=ACCENT, linewidth=1)
            axes.scatter(x, y, s=[12 + 130 * b["items"] / most for b in bins], color=ACCENT, alpha=0.75, linewidths=0)
            axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1.03), ylim=(0, 1.03))
            title = f"{state} scaling" if calibration["scaled"] else "as trained"
            axes.set_title(f"{title}: ECE {calibration[state]['ece']:.3f}", fontsize=11)
        for axes in figure.axes[len(states) :]:
            axes.remove()
        return _svg(figure)


def learning_curve(curves: list[dict[str, Any]]) -> str:
    """Macro-F1 on the test part against the number of training items, with 95% intervals."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for curve, color in zip(curves, (ACCENT, SECOND), strict=False):
            x = [point["items"] for point in curve["points"]]
            low, high = zip(*(point["macro_f1_ci"] for point in curve["points"]), strict=True)
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            axes.plot(x, [p["macro_f1"] for p in curve["points"]], "o-", color=color, label=_plain(curve["system"], 48))
        ticks = sorted({point["items"] for curve in curves for point in curve["points"]})
        axes.set(xlabel="training items", ylabel="macro-F1 on the test part")
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, loc="lower right")
        return _svg(figure)


def layers(probes: list[dict[str, Any]]) -> str:
    """Macro-F1 of the probe on every layer, with 95% intervals."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.subplots()
        x = [probe["layer"] for probe in probes]
        low, high = zip(*(probe["macro_f1_ci"] for probe in probes), strict=True)
        axes.fill_between(x, low, high, color=ACCENT, alpha=0.15, linewidth=0)
        axes.plot(x, [probe["macro_f1"] for probe in probes], "o-", color=ACCENT)
        axes.set(xlabel="hidden layers below (0: embeddings)", ylabel="macro-F1 on validation")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def settings(rows: list[dict[str, Any]]) -> str:
    """Macro-F1 of every training of a sweep, a row for each setting, the best on top: a line at the mean of the seeds.

    Trainings that did not run to their end are hollow.
    """
    shown = rows[:SETTINGS]
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 0.36 * len(shown) + 0.9), layout="constrained")
        axes = figure.subplots()
        for place, row in enumerate(reversed(shown)):
            color = ACCENT if row["rank"] == 1 else MUTED
            for run in (run for run in row["runs"] if run["macro_f1"] is not None):
                face = color if run["state"] == "complete" else "none"
                axes.scatter(run["macro_f1"], place, s=22, facecolors=face, edgecolors=color, alpha=0.75)
            if row["mean"] is not None:
                axes.plot([row["mean"]] * 2, [place - 0.3, place + 0.3], color=color, linewidth=2)
        axes.set_yticks(range(len(shown)), [_plain(row["label"], 44) for row in reversed(shown)])
        axes.set_xlabel("macro-F1 on validation; line: mean of the seeds")
        axes.tick_params(axis="y", length=0)
        return _svg(figure)


def ablation(rows: list[dict[str, Any]]) -> str:
    """Change of macro-F1 without each hidden layer, with 95% intervals."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        axes = figure.subplots()
        for row in rows:
            axes.bar(row["layer"], row["difference"], color=ACCENT, width=0.6)
            axes.plot([row["layer"]] * 2, row["difference_ci"], color=INK, linewidth=1.4, solid_capstyle="butt")
        axes.axhline(0, color=MUTED, linewidth=0.8)
        axes.set(xlabel="hidden layer left out", ylabel="change of macro-F1")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def representation(found: dict[str, Any], labels: list[str]) -> str:
    """Items in two dimensions, before and after fine-tuning; a colour for each of the most frequent classes."""
    targets = found["targets"]
    often = sorted(set(targets), key=lambda number: (-targets.count(number), number))[: len(COLORS)]
    with rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        for axes, state in zip(figure.subplots(1, 2), ("before", "after"), strict=True):
            for number in sorted(set(targets) - set(often)) + often[::-1]:
                own = [p for p, target in zip(found[state]["points"], targets, strict=True) if target == number]
                color = COLORS[often.index(number)] if number in often else MUTED
                name = _plain(labels[number], 30) if number in often and state == "after" else None
                axes.scatter(*zip(*own, strict=True), s=14, color=color, alpha=0.7, linewidths=0, label=name)
            axes.set(xticks=[], yticks=[], title=f"{state} fine-tuning")
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        return _svg(figure)


def _plain(text: str, longest: int) -> str:
    """A user's word as chart text: cut, without control and direction characters, no formula between dollar signs.

    A legend leaves names out that begin with an underscore, so that they are given an invisible beginning.
    """
    shown = "".join(c for c in text if c.isprintable())
    shown = f"\u200b{shown}" if shown.startswith("_") else shown
    return (shown if len(shown) <= longest else shown[: longest - 1] + "…").replace("$", r"\$")


def _label(axes: Axes, name: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.set_ylim(bottom=0 if name == "loss" else None)


def _svg(figure: Figure) -> str:
    """The figure as an `<svg>` element; sized by the page, hidden from screen readers (the table says the same)."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text: the reader's fonts have the glyph
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = text.replace(INK, "currentColor").replace(ACCENT, ACCENT_OF_PAGE)  # follow the page's light or dark theme
    return re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r'<svg aria-hidden="true" \1', text, count=1)
