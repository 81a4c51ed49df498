"""check.json -> check.html: one file that needs no network and runs no script."""

from __future__ import annotations

from typing import Any

from pipelines.report import page_environment


def render_check(checks: list[dict[str, Any]], items: dict[str, int], title: str) -> str:
    """The findings as one HTML page.

    Args:
        checks: findings as JSON.
        items: of every part.
        title: of the data; hostile text is shown as text.
    """
    return page_environment().get_template("check.html.j2").render(checks=checks, items=items, title=title)
