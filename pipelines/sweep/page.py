"""sweep.json -> sweep.html: the table, and a plot of every setting's seeds."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pipelines import charts
from pipelines.report import page_environment
from pipelines.sweep.plan import shown


def render_page(found: dict[str, Any], title: str, again: str) -> str:
    """One HTML page without scripts.

    Args:
        found: as in sweep.json.
        title: of the data; hostile text is shown as text, like the names of settings.
        again: the command that trains the best setting for an honest figure.
    """
    rows = found["settings"]
    return (
        page_environment()
        .get_template("sweep.html.j2")
        .render(
            title=title,
            sweep=found,
            rows=[row | {"shown": [shown(row["changes"][key]) for key in found["vary"]]} for row in rows],
            resolved=any(row["changes"].get("training.learning_rate", "auto") == "auto" for row in rows),
            again=again,
            left_out=max(0, len(rows) - charts.SETTINGS),
            charts={"settings": Markup(charts.settings(rows))},
        )
    )
