"""Charts are SVG text that says the right figures, without scripts, dates or references to the outside."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from pipelines import charts
from tests.reports import AS_TRAINED, HOSTILE, report

REPORT = report(("calm", "harsh"))
MANY = report(("a", "b", "c", "d"))
HISTORY = REPORT["training"]["history"]
SVG = "{http://www.w3.org/2000/svg}"
CHARTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "ladder": lambda r: charts.ladder(r["systems"], r["main"]),
    "training": lambda r: charts.training_curves(r["training"]["history"]),
    "curves": lambda r: charts.precision_recall_and_roc(r["curves"]["curves"], r["main"]),
    "reliability": lambda r: charts.reliability(r["calibration"]),
    "learning": lambda r: charts.learning_curve(r["learning_curve"]["curves"]),
    "settings": lambda r: charts.settings(swept(r)),
}
every_chart = pytest.mark.parametrize("name", CHARTS)


@functools.cache
def drawn(name: str) -> str:
    return CHARTS[name](REPORT)


def swept(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of a sweep, called like the systems of a report; the last was pruned."""
    names = [system["name"] for system in report["systems"]]
    ended = [{"macro_f1": 0.5, "state": "complete"}, {"macro_f1": 0.7, "state": "complete"}]
    rows = [{"rank": n, "label": name, "mean": 0.6, "runs": ended} for n, name in enumerate(names, start=1)]
    stopped = [{"macro_f1": 0.2, "state": "pruned"}, {"macro_f1": None, "state": "failed"}]
    return [*rows[:-1], {"rank": None, "label": names[-1], "mean": None, "runs": stopped}]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def lines(svg: str, color: str, dashed: bool = False) -> list[list[tuple[float, float]]]:
    """Points of every line of a colour, y growing downwards."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        style = path.get("style", "")
        if f"stroke: {color}" in style and "fill: none" in style and ("stroke-dasharray" in style) == dashed:
            numbers = [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def curve(system: str, label: str, *points: list[float]) -> dict[str, Any]:
    return {"system": system, "class": label, "roc": list(points), "precision_recall": list(points)}


@every_chart
def test_a_chart_is_one_svg_element_that_runs_and_fetches_nothing(name: str) -> None:
    svg = drawn(name)
    root = ElementTree.fromstring(svg)  # well-formed
    assert root.tag.endswith("svg")
    assert root.get("aria-hidden") == "true"
    assert root.get("viewBox")
    assert root.get("width") is None  # the page decides
    assert not re.search(r"<script|<image|<foreignObject|\son\w+=|@import", svg)
    references = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', svg)
    assert all((a or b).startswith("#") for a, b in references)
    assert "<dc:date>" not in svg


@every_chart
def test_drawing_twice_gives_the_same_bytes(name: str) -> None:
    assert drawn(name) == drawn.__wrapped__(name)


@every_chart
def test_ink_follows_the_theme_of_the_page(name: str) -> None:
    assert "currentColor" in drawn(name)
    assert charts.INK not in drawn(name)


@every_chart
def test_hostile_words_stay_text(name: str) -> None:
    """Words of formulas, legends that matplotlib leaves out, and everything that a label may hold."""
    words = (*HOSTILE, r"$\frac{1}{0}$ $", "_hidden", "a & b", "%s {0}")
    svg = CHARTS[name](report(words, words=words, folder="".join(HOSTILE[:4]) + "/"))
    found = {element.tag for element in ElementTree.fromstring(svg).iter()}
    assert not {f"{SVG}{tag}" for tag in ("script", "image", "foreignObject", "a")} & found
    assert not set("\x00\u202e\u200f\n") & set("".join(texts(svg)))


def test_ladder_names_every_system_weakest_at_the_top_with_its_score() -> None:
    found = texts(drawn("ladder"))
    names = [system["name"] for system in REPORT["systems"]]
    assert [text for text in found if text in names] == names[::-1]  # matplotlib writes from the bottom up
    for system in REPORT["systems"]:
        assert f"{system['metrics']['macro_f1']:.3f}" in found


def test_settings_are_named_best_on_top_and_the_best_alone_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = swept(REPORT)
    names = [row["label"] for row in rows]
    assert [text for text in texts(drawn("settings")) if text in names] == names[::-1]
    monkeypatch.setattr(charts, "SETTINGS", 2)
    assert [text for text in texts(charts.settings(rows)) if text in names] == names[1::-1]
    assert charts.ACCENT_OF_PAGE in charts.settings(rows[:2])
    assert charts.ACCENT_OF_PAGE not in charts.settings(rows[1:])
    assert len(lines(drawn("settings"), charts.ACCENT_OF_PAGE)) == 1  # the mean of the best


@pytest.mark.parametrize("main", [system["name"] for system in REPORT["systems"]])
def test_ladder_marks_the_main_system_only(main: str) -> None:
    assert charts.ladder(REPORT["systems"], main).count(charts.ACCENT_OF_PAGE) == 1
    assert charts.ladder(REPORT["systems"], main) != charts.ladder(REPORT["systems"], "another")


@pytest.mark.parametrize("count", [1, 12])
def test_ladder_grows_with_the_number_of_systems(count: int) -> None:
    svg = charts.ladder([REPORT["systems"][0] | {"name": f"system {n}"} for n in range(count)], "system 0")
    assert sum(text.startswith("system") for text in texts(svg)) == count
    height = float(ElementTree.fromstring(svg).get("viewBox", "").split()[3])
    assert height == pytest.approx(72 * (0.5 * count + 0.9), rel=0.01)


def test_intervals_of_the_ladder_are_drawn_to_scale() -> None:
    values = [(0.5, [0.25, 0.75]), (0.5, [0.5, 0.625])]
    systems = [{"name": str(n), "metrics": {"macro_f1": v, "macro_f1_ci": ci}} for n, (v, ci) in enumerate(values)]
    found = [line for line in lines(charts.ladder(systems, "0"), "currentColor") if len(line) == 2]
    widths = [line[1][0] - line[0][0] for line in found if line[0][1] == line[1][1]]
    narrow, wide = widths[-2:] if len(widths) > 2 else widths
    assert wide == pytest.approx(4 * narrow, rel=1e-4)


def test_training_curves_ring_the_last_best_epoch() -> None:
    def ring_x(best: list[bool]) -> float:
        checks = [e for e in HISTORY if e["event"] == "validation"]
        history: list[dict[str, Any]] = [e | {"best": b} for e, b in zip(checks, best, strict=True)]
        svg = charts.training_curves([HISTORY[0], *history])
        marks = re.findall(r'<use [^>]*x="([\d.]+)"[^>]*stroke: ' + charts.SECOND, svg)
        assert len(marks) == 1
        return float(marks[0])

    assert ring_x([True, True]) > ring_x([True, False])


def test_training_curves_work_before_the_first_step_is_logged() -> None:
    assert "loss" in texts(charts.training_curves([e for e in HISTORY if e["event"] == "validation"]))


def test_precision_recall_and_roc_are_drawn_to_scale_the_main_system_solid() -> None:
    """Points at (0, 0), (0.5, 1) and (1, 1): the second is halfway to the right and as high as the third."""
    points = [0.0, 0.0], [0.5, 1.0], [1.0, 1.0]
    svg = charts.precision_recall_and_roc([curve("own", "a", *points), curve("rival", "a", *points)], "own")
    for found in (lines(svg, charts.ACCENT_OF_PAGE), lines(svg, charts.MUTED, dashed=True)):
        *plots, legend = [line for line in found if len(line) == 3]
        assert len(plots) == 2
        assert legend[0][1] == legend[2][1]
        for (x0, y0), (x1, y1), (x2, y2) in plots:
            assert x1 - x0 == pytest.approx((x2 - x0) / 2, rel=1e-4)
            assert y1 == y2
            assert y0 > y1 + 100
    assert {"own", "rival"} <= set(texts(svg))


def test_of_several_classes_each_has_a_colour_and_is_named_once() -> None:
    found = [text for text in texts(CHARTS["curves"](MANY)) if text in MANY["labels"]]
    assert sorted(found) == MANY["labels"]
    svg = CHARTS["curves"](MANY)
    assert all(
        lines(svg, color) and lines(svg, color, dashed=True) for color in (charts.ACCENT_OF_PAGE, *charts.COLORS[1:4])
    )
    assert not lines(svg, charts.COLORS[4])


def test_a_class_that_begins_with_an_underscore_is_in_the_legend() -> None:
    points = [0.0, 0.0], [1.0, 1.0]
    svg = charts.precision_recall_and_roc([curve("own", label, *points) for label in ("_a", "b")], "own")
    assert "\u200b_a" in texts(svg)


@pytest.mark.parametrize("scaled", [True, False])
def test_reliability_shows_the_states_that_there_are(scaled: bool) -> None:
    values = (REPORT if scaled else report(("calm", "harsh"), temperature=AS_TRAINED))["calibration"]
    found = [text for text in texts(charts.reliability(values)) if "ECE" in text]
    errors = [f"{values[state]['ece']:.3f}" for state in ("before", "after")]
    if scaled:
        assert found == [f"before scaling: ECE {errors[0]}", f"after scaling: ECE {errors[1]}"]
    else:
        assert found == [f"as trained: ECE {errors[1]}"]


def test_reliability_is_drawn_to_scale() -> None:
    """Three bins in equal steps of confidence, the middle one a quarter of the way up from the first to the last."""
    bins = [{"items": 1, "confidence": c, "accuracy": a} for c, a in ((0.5, 0.2), (0.7, 0.4), (0.9, 1.0))]
    svg = charts.reliability({"scaled": False, "after": {"ece": 0.1, "bins": bins}})
    ((x0, y0), (x1, y1), (x2, y2)) = next(line for line in lines(svg, charts.ACCENT_OF_PAGE) if len(line) == 3)
    assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-4)
    assert y0 - y1 == pytest.approx((y0 - y2) / 4, rel=1e-3)


def test_learning_curve_doubles_in_equal_steps_and_names_sizes_and_systems() -> None:
    points = [{"items": n, "macro_f1": f, "macro_f1_ci": [f, f]} for n, f in ((500, 0.5), (1000, 0.6), (2000, 0.7))]
    svg = charts.learning_curve([{"system": "own", "points": points}, {"system": "rival", "points": points[:2]}])
    assert {"500", "1,000", "2,000", "own", "rival"} <= set(texts(svg))
    ((x0, y0), (x1, y1), (x2, y2)) = next(line for line in lines(svg, charts.ACCENT_OF_PAGE) if len(line) == 3)
    assert x1 - x0 == pytest.approx(x2 - x1, rel=1e-4)
    assert y0 - y1 == pytest.approx(y1 - y2, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("word", "word"),
        ("x" * 10, "x" * 10),
        ("x" * 11, "x" * 9 + "…"),
        ("$a$", r"\$a\$"),
        ("a\x00\u202e\nb", "ab"),
        ("_a", "\u200b_a"),
    ],
)
def test_words_of_the_user_are_cut_and_harmless_to_matplotlib(text: str, shown: str) -> None:
    assert charts._plain(text, 10) == shown
