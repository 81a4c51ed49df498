"""report.json -> report.html: one file that needs no network and runs no script.

The page is `templates/report.html.j2`; every section is a file in `templates/sections/`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines import charts, highlights

MATRIX_CLASSES = 12  # a larger confusion matrix is shown as its most frequent confusions
CONFUSIONS = 15
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # Unicode bidirectional classes
LONGEST = 10_000  # characters of a word of the user's that are shown; report.json has it whole
OPERATING_CLASSES = 8  # classes whose thresholds are shown at once; of more, those with a threshold


def render_html(report: dict[str, Any], title: str, config_yaml: str = "") -> str:
    """The report as one HTML page.

    Args:
        report: as in report.json.
        title: of the run or comparison; hostile text is shown as text, like labels and items.
        config_yaml: the resolved config; empty for a comparison.
    """
    report = _cut(report)
    main = next(system for system in report["systems"] if system["name"] == report["main"])
    labels, metrics = report["labels"], main["metrics"]
    page = page_environment().get_template("report.html.j2")
    return page.render(
        report=report,
        title=title,
        main=main,
        headline=report["verdict"]["sentence"].partition(". ")[0].removesuffix(".") + ".",
        explanation=report["verdict"]["sentence"].partition(". ")[2],
        charts={name: Markup(svg) for name, svg in _charts(report).items()},
        per_class=list(zip(labels, metrics["per_class"], strict=True)),
        matrix=_matrix(labels, metrics["confusion_matrix"]) if len(labels) <= MATRIX_CLASSES else None,
        confusions=_confusions(labels, metrics["confusion_matrix"]),
        thresholds=_thresholds(report),
        slices=[(name, list(rows)) for name, rows in groupby(report["slices"]["rows"], lambda row: row["column"])],
        data=[(name.replace("_", " ").capitalize(), number) for name, number in report["data"].items()],
        provenance=list(_flat(report["provenance"])),
        config=config_yaml,
    )


def page_environment() -> Environment:
    """Jinja with the templates and filters of all pages; text is escaped."""
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "share": _share,
        "between": _between,
        "points": _points,
        "straight": _straight,
        "seconds": _seconds,
        "size": _size,
        "p_value": _p_value,
        "pieces": highlights.pieces,
        "strongest": highlights.strongest,
    }
    return environment


def _cut(value: Any) -> Any:
    """The value with every text in it at most LONGEST characters long."""
    if isinstance(value, dict):
        return {_cut(key): _cut(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_cut(part) for part in value]
    return value[: LONGEST - 1] + "…" if isinstance(value, str) and len(value) > LONGEST else value


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested mappings, for people."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name.replace('_', ' ')} · ")
        elif isinstance(value, list):
            yield from _flat({str(number): part for number, part in enumerate(value, start=1)}, f"{prefix}{name} · ")
        elif value is not None:
            yield f"{prefix}{name.replace('_', ' ')}", value


def _charts(report: dict[str, Any]) -> dict[str, str]:
    drawn = {
        "ladder": charts.ladder(report["systems"], report["main"]),
        "reliability": charts.reliability(report["calibration"]),
    }
    if report["curves"]["curves"]:
        drawn["curves"] = charts.precision_recall_and_roc(report["curves"]["curves"], report["main"])
    if "learning_curve" in report:
        drawn["learning_curve"] = charts.learning_curve(report["learning_curve"]["curves"])
    if "hidden_layers" in report:
        inside = report["hidden_layers"]
        drawn["layers"] = charts.layers(inside["probe"]["layers"])
        drawn["ablation"] = charts.ablation(inside["ablation"]["without"])
        drawn["representation"] = charts.representation(inside["map"], report["labels"])
    if "training" in report:
        drawn["training"] = charts.training_curves(report["training"]["history"])
    return drawn


def _thresholds(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Operating points to show: all of a few classes; of many classes, those that can be promised."""
    points: list[dict[str, Any]] = report.get("operating_points", {}).get("points", [])
    if len(report["labels"]) <= OPERATING_CLASSES:
        return points
    return [point for point in points if point["threshold"] is not None]


def _matrix(labels: list[str], counts: list[list[int]]) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of (count, share of the row for shading)."""
    return [
        (label, [(n, round(0.55 * n / max(1, sum(row)), 3)) for n in row])
        for label, row in zip(labels, counts, strict=True)
    ]


def _confusions(labels: list[str], counts: list[list[int]]) -> list[tuple[str, str, int]]:
    pairs = [(n, i, j) for i, row in enumerate(counts) for j, n in enumerate(row) if n and i != j]
    return [(labels[i], labels[j], n) for n, i, j in sorted(pairs, key=lambda p: (-p[0], p[1], p[2]))[:CONFUSIONS]]


def _straight(text: str) -> str:
    """A sentence without the direction characters of the words in it, which would turn its figures around."""
    return type(text)("".join(c for c in text if unicodedata.bidirectional(c) not in TURNING))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def _size(value: int) -> str:
    power = min(3, int(math.log(max(1, value), 1024)))
    number = value / 1024**power
    return f"{number:{'.0f' if number >= 100 else '.3g'}} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
