"""Where Chromium is, for tests in a real browser."""

from __future__ import annotations

import os
import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """Its path. Skips the test where there is none; ROOTSTOCK_REQUIRE_CHROMIUM=1 makes that a failure."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        message = f"no Chromium on PATH ({', '.join(NAMES)})"
        if os.environ.get("ROOTSTOCK_REQUIRE_CHROMIUM") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found
