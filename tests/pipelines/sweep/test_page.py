"""The page says what sweep.json says, and hostile words stay text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from pipelines import charts
from pipelines.sweep.page import render_page
from pipelines.sweep.plan import Plan
from pipelines.sweep.selection import CAVEAT, sentence, table
from tests.pipelines.sweep.made import run, runs, setting
from tests.reports import HOSTILE

AGAIN = "rootstock finetune runs/sweep/best.yaml"
NAME = "backbone.name"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}


def parsed(html: str) -> Tags:
    found = Tags()
    found.feed(html)
    return found


def found(*names: str) -> dict[str, Any]:
    """sweep.json of settings with these backbones; the last one was pruned."""
    own = [setting(0.001, backbone__name=name) for name in names]
    ended = [run(each, seed, 0.5 + 0.01 * n) for n, each in enumerate(own[:-1]) for seed in (0, 1)]
    rows = table(own, runs(ended, run(own[-1], 0, 0.2, state="pruned", epochs=2)), 2, own[0])
    states, stores = {"complete": len(ended), "pruned": 1, "failed": 0}, {"cold": 1, "warm": 2, "off": 0}
    counts = {"trainings": states, "store": stores}
    vary = {"training.learning_rate": [0.001], NAME: list(names)}
    told = {"vary": vary, "sentence": sentence(rows, 2), "caveat": CAVEAT, "settings": rows}
    return Plan(seeds=2).to_json() | counts | told


def test_every_setting_is_in_the_table_and_the_plot() -> None:
    html = render_page(found("one", "two", "three"), "data.csv", AGAIN)
    assert html.count("<tr") == 1 + 3
    for text in ("data.csv", "0.510", "pruned", "1 stopped as hopeless", CAVEAT, AGAIN):
        assert text in html, text
    assert len(re.findall("<svg", html)) == 1
    assert "name=three" in html[html.index("<svg") : html.index("</svg>")]


def test_the_rate_that_auto_has_become_is_shown_where_it_is_not_varied() -> None:
    given = found("one", "two")
    assert "Learning rate" not in render_page(given, "data.csv", AGAIN)
    for row in given["settings"]:
        row["changes"]["training.learning_rate"] = "auto"
    html = render_page(given, "data.csv", AGAIN)
    assert "Learning rate" in html
    assert html.count("<td>0.001</td>") == 2


def test_hostile_words_stay_text() -> None:
    """The plot has its own such test, and other ticks beside longer labels."""
    wild = render_page(found(*HOSTILE), "".join(HOSTILE), "".join(HOSTILE))
    tame = render_page(found(*(f"w{n}" for n in range(len(HOSTILE)))), "data.csv", AGAIN)
    wild_page, tame_page = (parsed(re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL)) for html in (wild, tame))
    assert wild_page.tags == tame_page.tags
    assert wild_page.names == tame_page.names
    assert "script" not in parsed(wild).tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in wild


def test_of_very_many_settings_the_plot_shows_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "SETTINGS", 2)
    html = render_page(found("one", "two", "three"), "data.csv", AGAIN)
    assert "leaves out the last 1 settings" in html
    assert "name=three" not in html[html.index("<svg") : html.index("</svg>")]
