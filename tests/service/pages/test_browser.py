"""The pages as a person uses them: Chromium, a whole service, a toy backbone; nothing outside is asked for.

Skips where no Chromium is on PATH; ROOTSTOCK_REQUIRE_CHROMIUM=1 makes that a failure.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright

from tests.chromium import chromium
from tests.service.live import LiveService, running
from tests.service.pages.walk import addresses
from tests.toys import toy_rows

pytestmark = pytest.mark.slow
WAIT_MS = 240_000  # for a job, on a slow machine
HOSTILE = "<img src=x onerror=alert(1)>"  # as a class, a file name, a text
CLASSES = ("calm", HOSTILE)
AXE = next(Path(__file__).parent.glob("axe/*.js")).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    with running(tmp_path_factory.mktemp("pages")) as service:
        yield service


@pytest.fixture
def page(live: LiveService) -> Iterator[Page]:
    """A page whose every word on the console and every request to elsewhere is a failure."""
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_context(base_url=live.url).new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: dialog.type == "alert" and (said.append("alert"), dialog.dismiss()))
        page.on("request", lambda sent: sent.url.startswith((live.url, "data:")) or said.append(sent.url))
        yield page
        browser.close()
    assert said == []


def signed_in(page: Page, live: LiveService) -> None:
    page.goto("/")
    page.get_by_label("API key").fill(live.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Home")).to_be_visible()


def table(path: Path, rows: int, seed: int = 0, classes: tuple[str, str] = ("calm", "harsh")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows({key: row[key] for key in ("text", "label")} for row in toy_rows(rows, seed, classes))
    return path


def new_classifier(page: Page, data: Path, name: str) -> None:
    """From the button to the job's page."""
    page.get_by_role("link", name="New classifier").first.click()
    page.get_by_label("Labelled examples").set_input_files(data)
    page.get_by_role("button", name="Check the file").click()
    expect(page.locator("#data meter").first).to_be_visible(timeout=WAIT_MS)
    page.get_by_label(re.compile("^Start from")).select_option("toy")
    train(page, name)


def train(page: Page, name: str) -> None:
    """Settings of seconds, submitted."""
    page.get_by_label(re.compile("^Name")).fill(name)
    page.get_by_label(re.compile("^Frozen hidden layers")).select_option("1")
    page.get_by_label(re.compile("^Epochs")).fill("1")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_url("**/jobs/ftjob-*")


def test_from_a_file_to_labelled_rows_and_back_to_training(page: Page, live: LiveService, tmp_path: Path) -> None:
    signed_in(page, live)
    new_classifier(page, table(tmp_path / f"{HOSTILE}.csv", 80, classes=CLASSES), "brand")
    expect(page.locator("#state")).to_have_text("Done", timeout=WAIT_MS)
    expect(page.frame_locator("iframe").locator("h1").first).to_be_visible()

    page.get_by_role("link", name="The model").click()
    page.get_by_role("button", name="Make it the champion").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("@champion")

    page.get_by_role("link", name="Try it").last.click()
    page.get_by_label("Content").fill(toy_rows(1)[0]["text"] + HOSTILE)
    page.get_by_role("button", name="Classify").click()
    expect(page.locator("#answers meter").first).to_be_visible(timeout=WAIT_MS)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator("#answers .read span").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_text("Training examples like it")).to_be_visible()

    page.get_by_role("link", name="Batches").click()
    page.get_by_role("link", name="Label a file").first.click()
    label_a_file(page, rows_with_bad_ones(tmp_path / f"{HOSTILE}.jsonl", 24))
    expect(page.get_by_text("24 of 26 rows labelled")).to_be_visible()
    expect(page.locator("#bad")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("output")).click()
    assert len(Path(download.value.path()).read_text(encoding="utf-8").splitlines()) == 25  # one without text

    page.get_by_role("link", name="Review the unsure ones").click()
    review(page, 24)
    page.get_by_role("button", name="Continue the model with these").click()
    expect(page.locator("#data meter").first).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_label(re.compile("^Start from"))).to_have_value(re.compile("^ft:toy:"))
    train(page, "brand")
    expect(page.locator("#state")).to_have_text("Done", timeout=WAIT_MS)
    page.get_by_role("link", name="The model").click()
    expect(page.locator("#from ~ dl")).to_contain_text("brand")
    roll_forward_and_back(page)


def label_a_file(page: Page, rows: Path) -> None:
    """From the form to a batch that is done."""
    page.get_by_label(re.compile("^CSV, JSONL or Parquet")).set_input_files(rows)
    page.get_by_role("button", name="Show its columns").click()
    expect(page.get_by_label(re.compile("^Column with the text"))).to_have_value("text", timeout=WAIT_MS)
    page.get_by_role("button", name="Label it").click()
    expect(page.locator("#state")).to_have_text("Done", timeout=WAIT_MS)


def hostile_rows(count: int) -> list[dict[str, str]]:
    return [{"text": f"{row['text']} {HOSTILE}", "label": row["label"]} for row in toy_rows(count, 7, CLASSES)]


def rows_with_bad_ones(path: Path, good: int) -> Path:
    """Texts of both classes, a line that is no JSON, and a row without text."""
    lines = [json.dumps({"text": row["text"]}) for row in hostile_rows(good)]
    path.write_text("\n".join([*lines[:5], "not json", '{"text": ""}', *lines[5:]]) + "\n", encoding="utf-8")
    return path


def review(page: Page, items: int) -> None:
    """Label every item with single keys as the toy texts are meant; look back once, be too quick once, skip nothing."""
    truth = {row["text"]: row["label"] for row in hostile_rows(items)}
    for number in range(items):
        expect(page.get_by_text(f"{number} of {items} seen")).to_be_visible()
        text, said = (page.locator(f"#item {own}").first.inner_text() for own in (".read", "p b bdi"))
        right, wrong = ("c", "w") if truth[text] == said else ("w", "c")
        if number == 1:
            too_quick(page, right, wrong)
        else:
            page.keyboard.press(right)
        if number == 2:
            expect(page.get_by_text(f"3 of {items} seen")).to_be_visible()
            page.keyboard.press("b")
            expect(page.get_by_text("You said")).to_be_visible()
            page.go_back()
    expect(page.get_by_text("You have seen every item")).to_be_visible()
    for label, count in Counter(truth.values()).items():
        expect(page.locator("#taught ~ p").first).to_contain_text(re.compile(rf"\b{count} \W*{re.escape(label)}"))


def too_quick(page: Page, key: str, second: str) -> None:
    """A second key before the reply to the first labels nothing: the item that it is meant for was not seen yet."""
    held: list[Route] = []
    page.route("**/review/*", lambda route: held.append(route))
    page.keyboard.press(key)
    page.wait_for_function("document.querySelector('#item .htmx-request') !== null")
    page.keyboard.press(second)
    page.keyboard.press("b")
    (only,) = held
    only.continue_()
    page.unroute("**/review/*")


def roll_forward_and_back(page: Page) -> None:
    """The new version becomes champion, then the one before it again."""
    page.get_by_role("button", name="Make it the champion").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("@champion")
    page.get_by_role("button", name="Make champion", exact=True).click()  # of the only other version
    expect(page.get_by_role("heading", level=1)).to_contain_text("@champion")


def test_a_job_is_cancelled_and_another_paused_and_resumed(page: Page, live: LiveService, tmp_path: Path) -> None:
    signed_in(page, live)
    page.on("dialog", lambda dialog: dialog.accept())
    new_classifier(page, table(tmp_path / "a.csv", 60, 1), "stopped")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#state")).to_have_text(re.compile("Cancelled|Stopping"))
    page.goto("/")
    new_classifier(page, table(tmp_path / "b.csv", 60, 2), "paused")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_have_text(re.compile("Paused|Stopping"))
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_have_text("Done", timeout=WAIT_MS)


def test_pages_can_be_read_without_scripts(live: LiveService) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_context(base_url=live.url, java_script_enabled=False).new_page()
        signed_in(page, live)
        for name in ("Models", "Try it", "Batches", "Review", "Home"):
            page.get_by_role("link", name=name, exact=True).first.click()
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
        browser.close()


@pytest.fixture(scope="module")
def pages(live: LiveService) -> dict[str, str]:
    return addresses(live)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_is_accessible_and_fits(
    live: LiveService, pages: dict[str, str], theme: Literal["light", "dark"], width: int
) -> None:
    """axe-core finds nothing serious, nothing is said on the console, and a phone need not scroll sideways."""
    found: dict[str, list[str]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        size = {"width": width, "height": 900}
        page = browser.new_context(base_url=live.url, color_scheme=theme, viewport=size).new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        signed_in(page, live)
        for name, path in pages.items():
            said.clear()
            page.goto(path)
            page.evaluate(AXE)
            result = page.evaluate("() => axe.run({iframes: false})")
            found[name] = [
                f"{each['id']}: {node['html'][:200]}"
                for each in result["violations"]
                if each["impact"] in ("serious", "critical")
                for node in each["nodes"][:3]
            ]
            found[name] += [text for text in said if "404" not in text or name != "not-found"]
            if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                found[name].append("wider than the window")
        browser.close()
    assert {name: problems for name, problems in found.items() if problems} == {}
