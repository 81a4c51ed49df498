"""Pictures of every page, light and dark, wide and on a phone: `python -m tests.service.pages.screenshots FOLDER`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.chromium import chromium
from tests.service.live import running
from tests.service.pages.walk import addresses

WIDTHS = (1280, 390)


def take(folder: Path) -> None:
    """One PNG for every page, theme and width."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, running(Path(scratch)) as live, sync_playwright() as playwright:
        pages = addresses(live)
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for theme in ("light", "dark"):
            for width in WIDTHS:
                size = {"width": width, "height": 900}
                page = browser.new_context(base_url=live.url, color_scheme=theme, viewport=size).new_page()
                page.goto("/login")
                page.screenshot(path=folder / f"login-{theme}-{width}.png", full_page=True)
                page.get_by_label("API key").fill(live.key)
                page.get_by_role("button", name="Sign in").click()
                for name, path in pages.items():
                    if name == "login":
                        continue
                    page.goto(path)
                    page.wait_for_timeout(300)
                    page.screenshot(path=folder / f"{name}-{theme}-{width}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
