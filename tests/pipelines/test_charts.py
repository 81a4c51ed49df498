"""Charts are SVG text that says the right figures, without scripts, dates or references to the outside."""

from __future__ import annotations

import functools
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from pipelines import charts
from tests.reports import report

REPORT = report(("calm", "harsh"))
HISTORY = REPORT["training"]["history"]


@functools.cache
def drawn(name: str) -> str:
    return charts.ladder(REPORT["systems"]) if name == "ladder" else charts.training_curves(HISTORY)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", ["ladder", "curves"])
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


@pytest.mark.parametrize("name", ["ladder", "curves"])
def test_drawing_twice_gives_the_same_bytes(name: str) -> None:
    assert drawn(name) == drawn.__wrapped__(name)


@pytest.mark.parametrize("name", ["ladder", "curves"])
def test_ink_follows_the_theme_of_the_page(name: str) -> None:
    svg = drawn(name)
    assert "currentColor" in svg
    assert charts.INK not in svg


def test_ladder_names_every_system_weakest_at_the_top_with_its_score() -> None:
    found = texts(drawn("ladder"))
    names = [system["name"] for system in REPORT["systems"]]
    assert [text for text in found if text in names] == names[::-1]  # matplotlib writes from the bottom up
    for system in REPORT["systems"]:
        assert f"{system['metrics']['macro_f1']:.3f}" in found


def test_ladder_marks_the_fine_tuned_system_only() -> None:
    assert drawn("ladder").count(charts.ACCENT) == 1


@pytest.mark.parametrize("count", [1, 12])
def test_ladder_grows_with_the_number_of_systems(count: int) -> None:
    svg = charts.ladder([REPORT["systems"][0] | {"name": f"system {n}"} for n in range(count)])
    assert sum(text.startswith("system") for text in texts(svg)) == count
    height = float(ElementTree.fromstring(svg).get("viewBox", "").split()[3])
    assert height == pytest.approx(72 * (0.5 * count + 0.9), rel=0.01)


def test_curves_ring_the_last_best_epoch() -> None:
    def ring_x(best: list[bool]) -> float:
        checks = [e for e in HISTORY if e["event"] == "validation"]
        history: list[dict[str, Any]] = [e | {"best": b} for e, b in zip(checks, best, strict=True)]
        svg = charts.training_curves([HISTORY[0], *history])
        marks = re.findall(r'<use [^>]*x="([\d.]+)"[^>]*stroke: ' + charts.SECOND, svg)
        assert len(marks) == 1
        return float(marks[0])

    assert ring_x([True, True]) > ring_x([True, False])


def test_curves_work_before_the_first_step_is_logged() -> None:
    assert "loss" in texts(charts.training_curves([e for e in HISTORY if e["event"] == "validation"]))
