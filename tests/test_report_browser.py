"""The report in a real browser (Chromium): nothing runs, a keyboard reaches everything, a phone and a printer show it.

Skips where no Chromium is on PATH; ROOTSTOCK_REQUIRE_CHROMIUM=1 makes that a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Error,
    Page,
    Request,
    Route,
    sync_playwright,
)

from pipelines.report import render_html
from tests.chromium import chromium
from tests.reports import HOSTILE, report

pytestmark = pytest.mark.slow

OUTSIDE = "https://rootstock.invalid"
RUN = f"document.documentElement.dataset.ran=1;alert(1);fetch('{OUTSIDE}/fetch')"
PAYLOADS = (
    f"<script>{RUN}</script>",
    f'"><img src={OUTSIDE}/image onerror="{RUN}">',
    f'\'><svg onload="{RUN}">',
    f"</title></style></pre></svg></details></table><script>{RUN}</script>",
    f"<!--><script>{RUN}</script>-->",
    f"]]><script>{RUN}</script>",
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    f'<iframe src="{OUTSIDE}/frame"></iframe><object data="{OUTSIDE}/object"></object>',
    f'<link rel=stylesheet href="{OUTSIDE}/sheet"><style>@import "{OUTSIDE}/import"; * {{ color: red }}</style>',
    f'<meta http-equiv=refresh content="0; url={OUTSIDE}/refresh">',
    f'<a href="javascript:{RUN}" autofocus onfocus="{RUN}">x</a>',
    f"{{{{ ''.__class__ }}}} {{% raw %}} ${{{RUN}}} url({OUTSIDE}/url)",
    f'" onmouseover="{RUN}" onfocus="{RUN}" autofocus x="',
)
WORDS = (*HOSTILE, *PAYLOADS, "h" * 100_000)


@dataclass
class Watched:
    """A page and all that it did beyond showing itself."""

    page: Page
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # sent or stopped by the policy
    sent: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def ran(self) -> str | None:
        flag: str | None = self.page.evaluate("document.documentElement.dataset.ran ?? null")
        return flag


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    yield opened
    opened.close()


@pytest.fixture
def show(context: BrowserContext, tmp_path: Path) -> Callable[..., Watched]:
    """Opens HTML as a file, watched from its first byte on; requests to the outside end at once."""

    def opened(html: str, width: int = 1280) -> Watched:
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 800})
        watched = Watched(page)

        def on_dialog(dialog: Dialog) -> None:
            watched.dialogs.append(dialog.message)
            dialog.dismiss()

        def on_request(request: Request) -> None:
            if request.url != path.as_uri():
                watched.requests.append(request.url)

        def on_sent(route: Route) -> None:
            watched.sent.append(route.request.url)
            route.abort()

        def on_console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                watched.errors.append(message.text)

        def on_error(error: Error) -> None:
            watched.errors.append(str(error))

        page.on("dialog", on_dialog)
        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", on_error)
        page.route("http*://**", on_sent)
        page.goto(path.as_uri(), wait_until="load")
        return watched

    return opened


def hostile_report() -> dict[str, Any]:
    """Payloads as labels, texts, ids, slices, names and warnings."""
    short = "/".join(word for word in WORDS if len(word) < 1000)
    values = report(WORDS, words=WORDS, folder=short + "/")
    values["verdict"]["warnings"] = [*PAYLOADS, HOSTILE[5]]
    named = {"name": short, "revision": None, "system": short}
    return values | {"backbone": named, "start_from": named, "freeze_sentence": short}


def hostile_page() -> str:
    everything = "/".join(WORDS)
    return render_html(hostile_report(), everything, everything)


def plain_page() -> str:
    return render_html(report(("calm", "harsh")), "run", "task: x\n")


# ---- nothing runs


def test_nothing_of_a_hostile_report_runs(show: Callable[..., Watched]) -> None:
    found = show(hostile_page())
    for summary in found.page.locator("summary").all():
        summary.click()
    found.page.mouse.move(300, 300)
    for _ in range(40):
        found.page.keyboard.press("Tab")
    assert (found.ran, found.dialogs, found.requests, found.errors) == (None, [], [], [])
    assert PAYLOADS[0] in found.page.inner_text("body")


def test_a_hostile_report_has_the_elements_of_a_harmless_one(show: Callable[..., Watched]) -> None:
    found = show(hostile_page()).page
    assert found.locator("script, img, iframe, object, embed, link, base, form, image, foreignObject").count() == 0
    assert found.locator("meta").count() == 3
    assert found.locator("head style").count() == found.locator("html > :not(head):not(body)").count() + 1
    handlers = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes].map(a => a.name))"
    assert not [name for name in found.evaluate(handlers) if name.startswith("on") or name == "autofocus"]
    links = "[...document.querySelectorAll('a')].map(a => a.getAttribute('href')[0])"
    assert set(found.evaluate(links)) == {"#"}


def test_the_watch_would_notice_a_page_that_runs_them(show: Callable[..., Watched]) -> None:
    """Positive control: the same payloads as elements, without a policy."""
    found = show(
        f"<!doctype html><html lang=en><head><title>x</title></head><body>{''.join(PAYLOADS[:3])}</body></html>"
    )
    found.page.wait_for_function("document.documentElement.dataset.ran === '1'")
    assert found.dialogs
    assert {f"{OUTSIDE}/fetch", f"{OUTSIDE}/image"} <= set(found.requests) & set(found.sent)
    assert found.errors


def test_the_policy_alone_would_stop_them(show: Callable[..., Watched]) -> None:
    """Second line of defence: payloads put unescaped into the body of a report. A refresh is no policy's matter."""
    head, body = plain_page().split("<body>")
    unescaped = "".join(word for word in PAYLOADS if "refresh" not in word)
    found = show(f"{head}<body>{unescaped}{body}")
    assert found.page.locator("script").count() > 0
    assert (found.ran, found.dialogs, found.sent) == (None, [], [])
    assert any("Content Security Policy" in error for error in found.errors)


@pytest.mark.parametrize("make", [plain_page, hostile_page])
def test_the_file_is_small(make: Callable[[], str]) -> None:
    assert len(make().encode()) < 3_000_000


# ---- keyboard and screen reader

FOCUSED = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  return [e.tagName.toLowerCase(), e.getAttribute('href') || e.getAttribute('aria-labelledby')
    || e.getAttribute('aria-label') || e.textContent];
}"""
WIDER = """[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX)).map(e => e.tabIndex)"""


def tabbed(page: Page) -> list[tuple[str, str]]:
    """Element and name of everything that Tab reaches, until it leaves the page."""
    reached: list[tuple[str, str]] = []
    for _ in range(200):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None or (reached and tuple(focused) == reached[0]):
            return reached
        reached.append(tuple(focused))
    raise AssertionError("Tab does not leave the page")


def test_tab_reaches_skip_link_then_sections_then_every_region_in_order(show: Callable[..., Watched]) -> None:
    page = show(plain_page(), 600).page
    reached = tabbed(page)
    assert reached[0] == ("a", "#verdict")
    links = [name for tag, name in reached if tag == "a"]
    assert links == [f"#{name}" for name in (
        "verdict", "ladder", "thresholds", "slices", "mistakes", "learning", "classes", "curves", "calibration",
        "training", "costs", "data", "provenance", "config",
    )]  # fmt: skip
    captions = [name for tag, name in reached if tag == "div"]
    assert captions == [f"{name}-caption" for name in (
        "systems", "pairs", "points", "slices", "worst", "lost", "won", "per-class", "matrix", "costs",
    )]  # fmt: skip
    assert [tag for tag, _ in reached].count("figure") == 5
    assert [tag for tag, _ in reached].count("summary") == 3
    assert reached[-1] == ("pre", "config")


def test_everything_that_scrolls_can_be_focused(show: Callable[..., Watched]) -> None:
    tab_stops = show(hostile_page(), 360).page.evaluate(WIDER)
    assert tab_stops
    assert set(tab_stops) == {0}


def test_the_skip_link_is_seen_when_focused_and_leads_to_the_verdict(show: Callable[..., Watched]) -> None:
    page = show(plain_page()).page
    skip = page.locator("a.skip")
    hidden = skip.bounding_box()
    assert hidden
    assert hidden["x"] + hidden["width"] < 0
    page.keyboard.press("Tab")
    shown = skip.bounding_box()
    assert shown
    assert shown["x"] >= 0
    page.keyboard.press("Enter")
    assert page.url.endswith("#verdict")
    assert page.evaluate("document.querySelector(':target').textContent") == "Verdict"


def test_enter_opens_and_closes_the_tables_behind_the_charts(show: Callable[..., Watched]) -> None:
    page = show(plain_page()).page
    for number, region in enumerate(("learning-table", "bins", "epochs")):
        table = page.locator(f"table[aria-labelledby={region}-caption]")
        page.locator("summary").nth(number).focus()
        assert not table.is_visible()
        page.keyboard.press("Enter")
        assert table.is_visible()
        page.keyboard.press("Enter")
        assert not table.is_visible()


def test_focus_is_visible(show: Callable[..., Watched]) -> None:
    page = show(plain_page()).page
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("make", [plain_page, hostile_page])
def test_every_figure_region_and_table_has_an_accessible_name(
    show: Callable[..., Watched], context: BrowserContext, make: Callable[[], str]
) -> None:
    """By the accessibility tree that the browser gives to a screen reader."""
    page = show(make()).page
    for summary in page.locator("summary").all():
        summary.click()
    nodes = context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            named.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", "").strip())
    counts = {"image": "figure", "region": "section, [role=region]", "table": "table", "navigation": "nav"}
    for role, selector in counts.items():
        assert len(named[role]) == page.locator(selector).count() > 0, role
        assert all(named[role]), role
    assert named["heading"][:2] == ["Was fine-tuning worth it?", "Verdict"]
    assert len(named["main"]) == 1


# ---- phone, printer, dark


@pytest.mark.parametrize("make", [plain_page, hostile_page])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_itself_does_not_scroll_sideways(
    show: Callable[..., Watched], make: Callable[[], str], width: int
) -> None:
    page = show(make(), width).page
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_tables_and_charts_of_a_phone_scroll_in_themselves(show: Callable[..., Watched]) -> None:
    """Else the test above would hold for a page that cuts them off."""
    assert len(show(plain_page(), 360).page.evaluate(WIDER)) >= 5


def test_print_leaves_the_navigation_out_and_nothing_else(show: Callable[..., Watched]) -> None:
    page = show(plain_page()).page
    assert page.locator("nav").is_visible()
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("a.skip").is_visible()
    assert all(section.is_visible() for section in page.locator("section").all())
    assert page.locator("section").count() == 14
    assert set(page.evaluate("[...document.querySelectorAll('.scroll')].map(e => getComputedStyle(e).overflowX)")) == {
        "visible"
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(show: Callable[..., Watched], scheme: Any) -> None:
    """At least 4.5 to 1 (WCAG 2.2, AA) between every text and what is behind it; heat of a matrix cell is blended."""
    page = show(plain_page()).page
    page.emulate_media(color_scheme=scheme)
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
    assert worst["seen"] > 200


CONTRAST = """() => {
  const parse = s => { const n = s.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const luminance = c => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const v = c[i] / 255;
    return sum + weight * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  }, 0);
  const behind = e => {
    const layers = [];
    for (let x = e; x; x = x.parentElement) layers.unshift(parse(getComputedStyle(x).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  let worst = {ratio: 100, seen: 0}, seen = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), back = behind(e);
    const front = over(parse(e.closest('svg') && style.fill !== 'none' ? style.fill : style.color), back);
    const [a, b] = [luminance(front), luminance(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < worst.ratio) worst = {ratio, text: walker.currentNode.data.trim(), front, back};
  }
  return {...worst, seen};
}"""
