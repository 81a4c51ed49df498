"""report.html: one safe, well-formed file that says what report.json says."""

from __future__ import annotations

import functools
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from pipelines.mistakes import LISTS
from pipelines.report import LONGEST, MATRIX_CLASSES, _p_value, _seconds, _size, render_html
from tests.reports import AS_TRAINED, HOSTILE, SCALED, WORDS, report

VOID = {"meta", "br", "img", "link", "input", "hr", "use", "path", "rect"}
HUGE = "h" * 100_000
WILD = (*HOSTILE, HUGE, "\u2067</td><td>\u2066", "</title></style><svg onload=alert(1)>", "' onfocus='alert(1)")
TAME = tuple(" ".join([f"tame{n}"] * len(word.split())) + "t" * (len(word) - 100) for n, word in enumerate(WILD))
OWN_BLOCK = {"bdi", "td", "th", "title", "pre", "text"}  # direction characters do not reach beyond these


class Page(HTMLParser):
    """Checks that elements nest, and collects what a reader would see."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = html
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []  # element, name, value
        self.outline: list[tuple[str, list[tuple[str, str | None]]]] = []  # elements outside of charts
        self.cells: list[str] = []
        self.texts: list[tuple[str, str]] = []  # innermost element, text
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, attrs)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._element(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if self.open and "svg" not in self.open and {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def _element(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if "svg" not in (tag, *self.open):
            named = [(name, value if name != "aria-label" else "") for name, value in attributes]
            self.outline.append((tag, named))


def page(values: dict[str, Any], title: str = "run", config: str = "task: x\n") -> Page:
    html = render_html(values, title, config)
    assert html.startswith("<!doctype html>\n")
    parsed = Page(html)
    assert parsed.open == []
    return parsed


def check_inert(parsed: Page) -> None:
    assert not {"script", "img", "iframe", "object", "embed", "link", "base", "form", "image"} & set(parsed.tags)
    for _, name, value in parsed.attributes:
        assert not name.startswith("on"), name
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (value or "").startswith("#"), value
        if name != "aria-label":
            assert "url(" not in (value or "") or "url(#" in (value or "")


def hostile(words: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """A report and a title in which these are labels, ids, texts, slices and names (which are paths: not so long)."""
    together = "/".join(word for word in words if len(word) < LONGEST)
    names: dict[str, Any] = {
        "backbone": {"name": together, "revision": None},
        "start_from": {"name": together, "system": together},
    }
    return report(words, words=words, folder=together + "/") | names, together


@functools.cache
def plain_page() -> Page:
    return page(report(("a", "b")))


# ---- hostile words


def test_hostile_words_make_no_element_and_no_attribute() -> None:
    """Against a page of the same figures with tame words."""
    (wild, wild_title), (tame, tame_title) = hostile(WILD), hostile(TAME)
    found, expected = page(wild, wild_title, wild_title), page(tame, tame_title, tame_title)
    check_inert(found)
    assert found.outline == expected.outline
    assert set(found.tags) == set(expected.tags)  # charts have other ticks where names are longer


@functools.cache
def wild_page() -> Page:
    everything = "/".join(WILD)
    return page(hostile(WILD)[0], everything, everything)


@pytest.mark.parametrize("word", WILD, ids=lambda word: ascii(word[:12]))
def test_hostile_words_are_shown_as_they_are(word: str) -> None:
    parsed = wild_page()
    shown = word if word != HUGE else HUGE[: LONGEST - 1] + "…"
    assert parsed.cells.count(shown) >= 5  # as class, in the matrix twice, as slice value, as id or text
    blocks = [text for element, text in parsed.texts if element in ("title", "bdi", "pre")]
    assert sum(word in text for text in blocks) >= 3  # title twice, config


def test_hostile_names_of_systems_are_shown_as_they_are() -> None:
    values, title = hostile(HOSTILE)
    cells = page(values).cells
    for system in values["systems"]:
        assert system["name"].startswith(title)
        assert cells.count(system["name"]) >= 3  # ladder, differences, costs


def test_direction_characters_do_not_turn_the_figures_beside_them() -> None:
    values, title = hostile(HOSTILE)
    values["verdict"]["warnings"] = [f"Fewer than 30 test items of: {HOSTILE[2]}."]
    parsed = page(values, title, title)
    around = [(element, text) for element, text in parsed.texts if "\u202e" in text]
    assert around
    assert {element for element, _ in around} <= OWN_BLOCK
    assert all("\u202e" not in (value or "") for _, _, value in parsed.attributes)
    assert "Fewer than 30 test items of: right-to-left" in parsed.text


def test_a_right_to_left_positive_class_does_not_turn_the_caption() -> None:
    html = render_html(report(("שלום", "b")) | {"positive": "שלום"}, "run")
    assert "AUCs are of the class “<bdi>שלום</bdi>”." in html


def test_a_word_of_100000_characters_is_cut_and_the_file_stays_small() -> None:
    html = render_html(hostile((*HOSTILE, HUGE))[0], "run")
    assert len(html.encode()) < 3_000_000
    assert max(map(len, re.findall("h+", html))) == LONGEST - 1


@pytest.mark.parametrize("length", [LONGEST, LONGEST + 1])
def test_words_are_cut_from_one_character_over_the_longest_on(length: int) -> None:
    cells = page(report(("k" * length, "b"))).cells
    assert ("k" * LONGEST in cells) == (length == LONGEST)
    assert ("k" * (LONGEST - 1) + "…" in cells) == (length > LONGEST)


def test_a_browser_is_told_to_load_nothing() -> None:
    html = plain_page().source
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert policy[1] == "default-src 'none'; style-src 'unsafe-inline'"
    assert html.index("Content-Security-Policy") < html.index("<title>")  # before any word of the user's
    assert "@import" not in html
    outside = set(re.findall(r'(?<!xmlns=")(?<!xmlns:)https?://[^\s"<]+', html))
    assert all(re.search(rf'xmlns(:\w+)?="{re.escape(url)}"|rdf:resource="{re.escape(url)}"', html) for url in outside)


# ---- what is on it


@pytest.mark.parametrize("classes", [2, MATRIX_CLASSES, MATRIX_CLASSES + 1, 77])
def test_page_parses_is_inert_small_and_names_every_class(classes: int) -> None:
    labels = tuple(f"class {number:02d}" for number in range(classes))
    parsed = page(report(labels))
    check_inert(parsed)
    times = 3 if classes <= MATRIX_CLASSES else 1  # per class, and as row and column of the matrix
    assert all(sum(cell == label for cell in parsed.cells) >= times for label in labels)
    assert ("Confusion matrix: a row" in parsed.text) == (classes <= MATRIX_CLASSES)
    assert ("Most frequent confusions" in parsed.text) == (classes > MATRIX_CLASSES)
    assert len(parsed.source.encode()) < 1_000_000


def anchors(parsed: Page) -> tuple[list[str], set[str]]:
    """Targets of the links, and ids of the sections."""
    own = [(name, value or "") for tag, name, value in parsed.attributes if tag in ("a", "h2")]
    return [v.removeprefix("#") for n, v in own if n == "href"], {v for n, v in own if n == "id"}


def test_every_section_is_there_once_and_the_links_lead_to_all_of_them() -> None:
    links, sections = anchors(plain_page())
    assert sections == {
        "verdict", "ladder", "thresholds", "slices", "mistakes", "learning", "classes", "curves", "calibration",
        "training", "costs", "data", "provenance", "config",
    }  # fmt: skip
    assert sorted(links) == sorted(sections)


def test_a_comparison_has_neither_training_nor_config_and_no_dead_link() -> None:
    values = report(("a", "b"))
    for section in ("training", "learning_curve", "operating_points"):
        del values[section]
    parsed = page(values, config="")
    links, sections = anchors(parsed)
    assert {"training", "learning", "config"} & sections == set()
    assert sorted(links) == sorted(sections)
    assert "No thresholds: the validation part of this model is not at hand." in parsed.text


def test_ids_are_unique_and_every_named_label_exists() -> None:
    parsed = page(report(HOSTILE, words=HOSTILE))
    outside = [(tag, name, value) for tag, name, value in parsed.attributes if tag not in ("g", "path", "clippath")]
    ids = [value for _, name, value in outside if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for _, name, value in outside if name == "aria-labelledby"} <= set(ids)


def rows_of(cells: list[str], header: str, width: int) -> dict[str, list[str]]:
    """First cell -> the others, for the table that begins after the header cell."""
    start = cells.index(header) + 1
    return {cells[i]: cells[i + 1 : i + width] for i in range(len(cells) - width, start - 1, -width)}


def test_figures_of_the_systems_are_those_of_the_report() -> None:
    values = report(("a", "b"))
    cells = plain_page().cells
    for system in values["systems"]:
        row = cells.index(system["name"])
        metrics = system["metrics"]
        low, high = metrics["macro_f1_ci"]
        assert cells[row + 1] == "4"
        assert cells[row + 2] == f"{system['validation_macro_f1']:.3f}"
        assert cells[row + 4] == f"{metrics['macro_f1']:.3f} {low:.3f}–{high:.3f}"
        assert cells[row + 5 : row + 8] == [f"{metrics[name]:.3f}" for name in ("roc_auc", "pr_auc", "ece")]
        costs = cells.index(system["name"], cells.index("Memory"))
        assert cells[costs + 1 : costs + 5] == ["1.5 s", "200", "3 MiB", "2 KiB"]
    for comparison in values["comparisons"]:
        row = cells.index(comparison["baseline"], cells.index("Difference"))
        low, high = comparison["difference_ci"]
        assert cells[row + 1] == f"{100 * comparison['difference']:+.1f}"
        assert cells[row + 2] == f"{100 * low:+.1f} to {100 * high:+.1f}"


def test_figures_of_the_classes_are_those_of_the_report() -> None:
    values = report(("a", "b"))
    cells = plain_page().cells
    metrics = values["systems"][-1]["metrics"]
    start = cells.index("Precision") + 4
    for label, row in zip(("a", "b"), metrics["per_class"], strict=True):
        low, high = row["recall_ci"]
        assert cells[start] == label
        assert cells[start + 2 : start + 5] == [
            f"{row['recall']:.3f} {low:.3f}–{high:.3f}",
            f"{row['f1']:.3f}",
            str(row["support"]),
        ]
        start += 5
    matrix = metrics["confusion_matrix"]
    assert cells[start + 3 : start + 9] == ["a", *map(str, matrix[0]), "b", *map(str, matrix[1])]


def test_thresholds_are_those_of_the_report() -> None:
    """Two classes, precision and recall, 0.8 and 0.95; one of them is taken out of reach."""
    values = report(("a", "b"))
    points = values["operating_points"]["points"]
    assert all(point["threshold"] is not None for point in points)
    points[1] |= {"threshold": None, "reason": "too few"}
    cells = page(values).cells
    start = cells.index("Holds") + 2
    first, test = cells[start : start + 8], points[0]["test"]
    assert first[:3] == ["a", "precision ≥ 0.80", f"{points[0]['threshold']:.3f}"]
    assert first[3].startswith(f"{test['precision']:.3f} ")
    note = f"hardly better than chance: {test['base_rate']:.2f} are of the class" if test["idle"] else ""
    assert first[5:] == [f"{test['flagged_per_10000']:,}", "yes" if test["holds"] else "no", note]
    assert cells[start + 8 : start + 11] == ["a", "precision ≥ 0.95", "none: too few"]


def test_of_many_classes_only_thresholds_that_can_be_promised_are_listed() -> None:
    values = report(tuple(f"c{n}" for n in range(9)))
    points = values["operating_points"]["points"]
    promised = [point for point in points if point["threshold"] is not None]
    assert 0 < len(promised) < len(points)
    assert sum(" ≥ 0." in cell for cell in page(values).cells) == len(promised)


def test_slices_are_listed_under_their_columns_with_rival_and_note() -> None:
    values = report(("a", "b"))
    rows = [row for row in values["slices"]["rows"] if row["column"] == "kind"]
    assert [(row["value"], row["items"]) for row in rows] == [(WORDS[1], 53), (WORDS[2], 53), (WORDS[0], 54)]
    cells = page(values).cells
    start = cells.index("kind") + 1
    for row in rows:
        low, high = row["accuracy_ci"]
        assert cells[start : start + 5] == [
            row["value"],
            str(row["items"]),
            str(row["errors"]),
            f"{row['accuracy']:.3f} {low:.3f}–{high:.3f}",
            f"{row['rival_accuracy']:.3f}",
        ]
        assert cells[start + 5] == ""
        start += 6


def test_mistakes_are_listed_with_text_and_both_answers() -> None:
    values = report(("a", "b"))
    lost = values["mistakes"]["only_rival_right"][0]
    cells = plain_page().cells
    start = cells.index("Rival said") + 1
    assert cells[start : start + 5] == [
        lost["id"],
        lost["text"],
        lost["label"],
        f"{lost['fine_tuned']} {lost['probability']:.2f}",
        lost["label"],
    ]


def shaded(words: tuple[str, ...]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A report whose listed items have words, a fifth of them away from what was said; and these items."""
    values = report(("a", "b"), words=words)
    entries = [entry for name in LISTS for entry in values["mistakes"][name]]
    for entry in entries:
        parts = entry["text"].split()
        entry["words"] = [[part, -0.5 if number % 5 == 1 else 2.0 - number] for number, part in enumerate(parts)]
    return values, entries


def test_words_that_moved_the_model_are_shaded_and_the_strongest_named() -> None:
    values, entries = shaded(WORDS)
    parsed = page(values)
    assert {entry["text"] for entry in entries} == set(WORDS)
    assert "the owl sleeps towards: the +2.00; away: owl -0.50" in [" ".join(cell.split()) for cell in parsed.cells]
    spans = [dict(row) for tag, row in parsed.outline if tag == "span"]
    styles = {(span["class"], span["style"]) for span in spans if "style" in span}
    assert ("towards", "background-color: rgba(var(--heat), 0.45)") in styles
    assert ("away", "background-color: rgba(var(--away), 0.113)") in styles
    assert [text for element, text in parsed.texts if element == "span" and text == "owl"]


def test_a_report_without_shaded_words_is_shown_without() -> None:
    """An older one, or a comparison."""
    assert not [row for tag, row in plain_page().outline if ("class", "towards") in row]


def test_hostile_words_are_shaded_as_text() -> None:
    """Against a page with the same words, in which nothing is an element."""
    values, entries = shaded(WILD)
    parsed = page(values)
    check_inert(parsed)
    allowed = re.compile(r"background-color: rgba\(var\(--(heat|away)\), 0\.\d+\)")
    marked = [dict(row)["style"] for tag, row in parsed.outline if tag == "span" and "style" in dict(row)]
    assert marked
    assert all(allowed.fullmatch(style or "") for style in marked)
    for entry in entries:
        assert any(cell.startswith(entry["text"]) for cell in parsed.cells)


def test_sentences_of_the_sections_are_on_the_page() -> None:
    values = report(("a", "b"))
    text = plain_page().text
    for section in ("operating_points", "learning_curve", "calibration", "training", "slices"):
        assert values[section]["sentence"] in text
        assert values[section]["caveat"] in text
    assert values["calibration"]["reason"] in text
    assert "1,234" in text  # exact duplicates


def test_epochs_and_learning_curve_are_tables_too() -> None:
    values = report(("a", "b"))
    cells = plain_page().cells
    start = cells.index("Validation loss") + 3
    assert cells[start : start + 8] == ["1", "0.700", "0.450", "0.410", "2", "0.600", "0.440", "0.400"]
    curve = values["learning_curve"]["curves"][0]
    start = cells.index("Training items") + 2
    assert cells[start : start + 8 : 3] == ["fine-tuned"] * 3
    assert cells[start + 1 : start + 9 : 3] == ["1", "2", "4"]
    assert cells[start + 8].startswith(f"{curve['points'][-1]['macro_f1']:.3f} ")


@pytest.mark.parametrize(("temperature", "states"), [(SCALED, {"before", "after"}), (AS_TRAINED, {"as trained"})])
def test_calibration_shows_the_states_that_there_are(temperature: tuple[float, str], states: set[str]) -> None:
    values = report(("a", "b"), temperature=temperature)
    parsed = page(values)
    assert {"before", "after", "as trained"} & set(parsed.cells) == states
    assert ("part of the saved weights" in parsed.text) == (temperature == SCALED)
    sure = values["calibration"]["after"]["bins"][-1]
    start = len(parsed.cells) - parsed.cells[::-1].index("after" if temperature == SCALED else "as trained")
    assert parsed.cells[start : start + 3] == [
        f"{sure['items']:,}",
        f"{sure['confidence']:.3f}",
        f"{sure['accuracy']:.3f}",
    ]


def test_confusions_are_sorted_by_number() -> None:
    cells = page(report(tuple(f"c{n}" for n in range(14)))).cells
    start = cells.index("Said") + 2
    numbers = []
    while cells[start].startswith("c"):
        numbers.append(int(cells[start + 2]))
        start += 3
    assert numbers == sorted(numbers, reverse=True)
    assert 0 < len(numbers) <= 15


def test_headline_and_explanation_are_the_verdict() -> None:
    values = report(("a", "b"))
    parsed = plain_page()
    assert ("strong", "Worth it.") in parsed.texts
    assert values["verdict"]["sentence"] in parsed.text
    assert values["verdict"]["caveat"] in parsed.text


def test_a_report_without_regression_has_one_full_stop_behind_its_verdict_and_no_rival() -> None:
    values = report(("a", "b"), baselines=())
    parsed = page(values)
    assert ("strong", "No logistic regression was trained, so there is nothing to compare with.") in parsed.texts
    assert "Rival said" not in parsed.cells


def test_warnings_empty_names_small_slices_and_undefined_areas_are_shown() -> None:
    values = report(("a", "b"))
    values["verdict"]["warnings"] = ["First.", "Second."]
    values["slices"]["rows"][-1] |= {"value": " ", "small": True}
    values["systems"][0]["metrics"] |= {"roc_auc": None, "pr_auc": None}
    parsed = page(values)
    assert [text for _, text in parsed.texts if text in ("First.", "Second.")] == ["First.", "Second."]
    assert parsed.cells[parsed.cells.index("(empty)") + 5] == "few items"
    assert parsed.cells[parsed.cells.index("majority") + 5 :][:2] == ["–", "–"]


@pytest.mark.parametrize("name", ["systems", "main"])
def test_a_report_that_lacks_something_is_not_rendered(name: str) -> None:
    values = report(("a", "b"))
    del values[name]
    with pytest.raises(KeyError, match=name):
        render_html(values, "run")


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
