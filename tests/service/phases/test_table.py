"""A table in a job: labelled, and what pages show of it is made; where that fails, the labels are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import DataError
from service import batch_results
from service.phases import table
from tests.runs import first_run
from tests.toys import toy_rows


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_run(tmp_path_factory.mktemp("model"))


def labelled(folder: Path, model: Path) -> Path:
    """The work folder of a job on 24 rows and two that are none."""
    upload, attempt = folder / "3f9a", folder / "home" / "000001"
    lines = [json.dumps({"text": row["text"]}) for row in toy_rows(24, 7)] + ["not json", '{"text": ""}']
    upload.write_text("\n".join(lines), encoding="utf-8")
    (attempt / "work").mkdir(parents=True)
    request: dict[str, Any] = {"text": "text", "model": str(model)}
    source = {"path": str(upload), "filename": "a.jsonl"}
    list(table.plan(attempt, request | {"upload": source}, lambda: False))
    list(table.execute(attempt, request, lambda: False))
    return attempt / "work"


def test_what_pages_show_is_made_of_what_classify_writes(model: Path, tmp_path: Path) -> None:
    work = labelled(tmp_path, model)
    preview = json.loads((work / "results" / "preview.json").read_text())
    assert sum(share["count"] for share in preview["shares"]) == 24
    assert [error["line"] for error in preview["errors"]] == [25, 26]
    assert preview["drift"]["sentence"]
    assert preview["queues"][0] == {"name": "the class that it gives", "items": 24}
    assert len((work / "results" / "items.jsonl").read_text().splitlines()) == 24
    assert json.loads((work / "counts.json").read_text()) == {"total": 26, "completed": 24, "failed": 2}


def test_labels_are_there_where_results_cannot_be_shown(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise DataError("output.jsonl", "cannot be read")

    monkeypatch.setattr(batch_results, "write_results", fail)
    work = labelled(tmp_path, model)
    assert not (work / "results").exists()
    assert json.loads((work / "counts.json").read_text())["completed"] == 24
