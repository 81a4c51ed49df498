"""report.json -> report.html: one file that needs no network and runs no script."""

from __future__ import annotations

import math
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from pipelines import charts

MATRIX_CLASSES = 12  # a larger confusion matrix is shown as its most frequent confusions
CONFUSIONS = 15


def render_html(report: dict[str, Any], config_yaml: str, title: str) -> str:
    """The report as one HTML page.

    Args:
        report: as in report.json.
        config_yaml: the resolved config.
        title: of the run; hostile text is shown as text, like labels.
    """
    tuned = next(system for system in report["systems"] if system["name"] == "fine-tuned")
    headline, _, explanation = report["verdict"]["sentence"].partition(". ")
    labels, metrics = report["labels"], tuned["metrics"]
    environment = Environment(loader=PackageLoader("pipelines"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "share": _share,
        "between": _between,
        "seconds": _seconds,
        "size": _size,
        "p_value": _p_value,
    }
    return environment.get_template("report.html.j2").render(
        report=report,
        title=title,
        headline=headline.removesuffix(".") + ".",
        explanation=explanation,
        charts={
            "ladder": Markup(charts.ladder(report["systems"])),
            "curves": Markup(charts.training_curves(report["training"]["history"])),
        },
        curves_text=_curves_text(report["training"]),
        per_class=list(zip(labels, metrics["per_class"], strict=True)),
        matrix=_matrix(labels, metrics["confusion_matrix"]) if len(labels) <= MATRIX_CLASSES else None,
        confusions=_confusions(labels, metrics["confusion_matrix"]),
        data=[(name.replace("_", " ").capitalize(), number) for name, number in report["data"].items()],
        config=config_yaml,
    )


def _matrix(labels: list[str], counts: list[list[int]]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of (count, share of the row for shading)."""
    return [
        (label, [(n, round(0.55 * n / max(1, sum(row)), 3)) for n in row])
        for label, row in zip(labels, counts, strict=True)
    ]


def _confusions(labels: list[str], counts: list[list[int]]) -> list[tuple[str, str, int]]:
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    return [(labels[i], labels[j], n) for n, i, j in sorted(pairs, key=lambda p: (-p[0], p[1], p[2]))[:CONFUSIONS]]


def _curves_text(training: dict[str, Any]) -> str:
    checks = [event for event in training["history"] if event["event"] == "validation"]
    best = [event for event in checks if event["best"]][-1]
    scores = ", ".join(f"{event['macro_f1']:.3f}" for event in checks)
    return f"Validation macro-F1 by epoch: {scores}. Kept: epoch {best['epoch']:g}, the best on validation."


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _between(interval: list[float]) -> str:
    return f"{interval[0]:.3f}–{interval[1]:.3f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def _size(value: int) -> str:
    power = min(3, int(math.log(max(1, value), 1024)))
    number = value / 1024**power
    return f"{number:{'.0f' if number >= 100 else '.3g'}} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
