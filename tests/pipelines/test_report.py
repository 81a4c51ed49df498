"""report.html: one safe, well-formed file that says what report.json says."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pipelines.report import MATRIX_CLASSES, _p_value, _seconds, _size, render_html
from tests.reports import HOSTILE, report

VOID = {"meta", "br", "img", "link", "input", "hr", "use", "path", "rect"}


class Page(HTMLParser):
    """Checks that elements nest, and collects what a reader would see."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and "svg" not in self.open and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def page(labels: tuple[str, ...], title: str = "run", config: str = "task: x\n", **changes: object) -> Page:
    html = render_html(report(labels) | changes, config, title)
    assert "\n".join(html.splitlines()[:2]).startswith("<!doctype html>")
    parsed = Page(html)
    assert parsed.open == []
    return parsed


def check_inert(parsed: Page) -> None:
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form", "image"} & set(parsed.tags)
    for name, value in parsed.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (value or "").startswith("#"), value
        assert "url(" not in (value or "") or "url(#" in (value or "")


@pytest.mark.parametrize("classes", [2, MATRIX_CLASSES, MATRIX_CLASSES + 1, 77])
def test_page_parses_is_inert_and_names_every_class(classes: int) -> None:
    labels = tuple(f"class {number:02d}" for number in range(classes))
    parsed = page(labels)
    check_inert(parsed)
    times = 3 if classes <= MATRIX_CLASSES else 1  # per class, and as row and column of the matrix
    assert all(sum(cell == label for cell in parsed.cells) >= times for label in labels)
    assert ("Confusion matrix: a row" in parsed.text) == (classes <= MATRIX_CLASSES)
    assert ("Most frequent confusions" in parsed.text) == (classes > MATRIX_CLASSES)


def test_hostile_labels_are_shown_as_text() -> None:
    parsed = page(HOSTILE)
    check_inert(parsed)
    assert all(label in parsed.cells for label in HOSTILE)


def test_hostile_title_backbone_and_config_are_shown_as_text() -> None:
    hostile = "".join(HOSTILE)
    parsed = page(("a", "b"), title=hostile, config=hostile, backbone={"name": hostile, "revision": None})
    check_inert(parsed)
    assert parsed.text.count(HOSTILE[0]) == 4  # <title>, header twice, config


def test_a_right_to_left_positive_class_does_not_turn_the_caption() -> None:
    html = render_html(report((HOSTILE[2], "b")) | {"positive": HOSTILE[2]}, "", "run")
    assert f"“<bdi>{HOSTILE[2]}</bdi>”" in html


def test_a_browser_is_told_to_load_nothing() -> None:
    html = render_html(report(("a", "b")), "", "run")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "@import" not in html
    outside = set(re.findall(r'(?<!xmlns=")(?<!xmlns:)https?://[^\s"<]+', html))
    assert all(f'="{url}"' in html for url in outside)  # names of vocabularies only
    assert all(re.search(rf'xmlns(:\w+)?="{re.escape(url)}"|rdf:resource="{re.escape(url)}"', html) for url in outside)


def test_figures_are_those_of_the_report() -> None:
    values = report(("a", "b"))
    parsed = page(("a", "b"))
    for system in values["systems"]:
        row = parsed.cells.index(system["name"])
        metrics = system["metrics"]
        low, high = metrics["macro_f1_ci"]
        assert parsed.cells[row + 2] == f"{metrics['macro_f1']:.3f} {low:.3f}–{high:.3f}"
        costs = parsed.cells.index(system["name"], parsed.cells.index("Items per second"))
        assert parsed.cells[costs + 1 : costs + 4] == ["1.5 s", "200", "2 KiB"]
    comparison = values["comparisons"][0]
    row = parsed.cells.index(comparison["baseline"], parsed.cells.index("Difference"))
    assert parsed.cells[row + 1] == f"{comparison['difference']:+.3f}"
    assert "Validation macro-F1 by epoch: 0.410, 0.400. Kept: epoch 1," in parsed.text
    assert "1,234" in parsed.text  # exact duplicates
    matrix = values["systems"][-1]["metrics"]["confusion_matrix"]
    assert parsed.cells[-6:] == ["a", *map(str, matrix[0]), "b", *map(str, matrix[1])]


def test_undefined_areas_are_a_dash() -> None:
    values = report(("a", "b"))
    values["systems"][0]["metrics"] |= {"roc_auc": None, "pr_auc": None}
    cells = Page(render_html(values, "", "run")).cells
    assert cells[cells.index("majority") + 3 :][:2] == ["–", "–"]


def test_confusions_are_sorted_by_number() -> None:
    parsed = page(tuple(f"c{n}" for n in range(14)))
    start = parsed.cells.index("Said") + 2
    numbers = [int(cell) for cell in parsed.cells[start + 2 :: 3]]
    assert numbers == sorted(numbers, reverse=True)
    assert 0 < len(numbers) <= 15


def test_a_report_without_regression_has_one_full_stop_behind_its_verdict() -> None:
    html = render_html(report(("a", "b"), baselines=()), "", "run")
    assert "nothing to compare with.</strong>" in html


@pytest.mark.parametrize(
    ("bytes", "shown"),
    [
        (0, "0 B"),
        (1000, "1000 B"),
        (1024, "1 KiB"),
        (1023 * 1024, "1023 KiB"),
        (90_900_000, "86.7 MiB"),
        (1024**3, "1 GiB"),
        (5000 * 1024**3, "5000 GiB"),
    ],
)
def test_sizes_read_well(bytes: int, shown: str) -> None:
    assert _size(bytes) == shown


def test_times_and_p_values_read_well() -> None:
    assert [_seconds(value) for value in (0.04, 119.9, 180)] == ["0.0 s", "119.9 s", "3.0 min"]
    assert [_p_value(value) for value in (1e-9, 0.0009, 0.001, 1.0)] == ["< 0.001", "< 0.001", "0.001", "1.000"]
