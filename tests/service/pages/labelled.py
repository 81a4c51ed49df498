"""A batch that has ended, with its results, as a worker leaves it."""

from __future__ import annotations

import io
import json
from typing import Any

from pipelines.durable import write_json
from service.database import Scope
from service.files import add_file, store
from tests.service.pages.conftest import HOSTILE, Browser

ITEMS = [
    {"row": 3, "text": f"the nearest {HOSTILE}", "label": "b", "scores": {"a": 0.48, "b": 0.52}},
    {"row": 1, "text": "the second", "label": "a", "scores": {"a": 0.6, "b": 0.4}},
    {"row": 9, "text": "the third", "label": "a", "scores": {"a": 0.9, "b": 0.1}},
]
PREVIEW: dict[str, Any] = {
    "rows": [{"text": HOSTILE, "label": "a", "score": 0.9}],
    "errors": [{"line": 4, "reason": f"no text here {HOSTILE}"}],
    "shares": [
        {"label": "a", "count": 3, "share": 0.75, "before": 0.25},
        {"label": HOSTILE, "count": 1, "share": 0.25, "before": None},
    ],
    "drift": {"sentence": "Drift: label shares differ.", "warnings": ["label shares differ"], "caveat": "c"},
    "queues": [{"name": "the class that it gives", "items": 3}, {"name": "b: recall at least 90%", "items": 1}],
}


def labelled(browser: Browser, model_job: str, items: list[dict[str, Any]] = ITEMS) -> str:
    """Id of the job."""
    job_id = browser.job(
        "succeeded", "table", model=browser.model_of(model_job), input_file_id="file-none", text="text"
    )
    settings, tenant = browser.service.settings, browser.tenant
    with browser.service.database.writing() as session:
        file = add_file(Scope(session, tenant), store(settings, tenant, io.BytesIO(b"{}")), "o.jsonl", "batch_output")
    browser.change(job_id, result={"counts": {"total": 5, "completed": 4, "failed": 1}, "output_file_id": file.id})
    folder = settings.tenant_dir(tenant) / "batches" / job_id
    folder.mkdir(parents=True)
    write_json(folder / "preview.json", PREVIEW)
    places, lines = [], b""
    for item in items:
        places.append([item["row"], len(lines)])
        lines += json.dumps(item).encode() + b"\n"
    (folder / "items.jsonl").write_bytes(lines)
    decision = {"name": "the class that it gives", "class": None, "threshold": 0}
    write_json(folder / "queue-0.json", decision | {"items": places})
    point = {"name": "b: recall at least 90%", "class": "b", "threshold": 0.39}
    write_json(folder / "queue-1.json", point | {"items": places[1:2]})
    return job_id
