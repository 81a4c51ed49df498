"""The report's data check: what a run was made of, personal data blanked, large parts looked at in part."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.check import section
from tests.runs import first_run, report
from tests.toys import toy_rows, write_csv


def test_a_run_says_what_is_wrong_with_its_data(tmp_path: Path) -> None:
    rows = toy_rows(80)
    rows[4]["text"] += " mail me at owl@mail.example"
    write_csv(tmp_path / "toy.csv", [*rows, rows[6], rows[8] | {"label": "harsh"}])
    run = first_run(tmp_path)
    found = report(run)["data_check"]
    by_name = {check["name"]: check for check in found["checks"]}
    assert found["all"]
    assert sum(found["items"].values()) == 82
    assert by_name["duplicates"]["values"]["exact"] == 2
    assert by_name["contradictions"]["level"] == "problem"
    assert by_name["label errors"]["values"]["looked_at"] > 40
    (place,) = by_name["personal data"]["places"]
    assert place["text"] == ""
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="data-check"' in page
    assert "taught both" in page


def test_of_large_parts_some_items_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(section, "MOST", 10)
    monkeypatch.setattr(section, "DOUBTED", 1)
    found = report(first_run(tmp_path))["data_check"]
    assert found["items"] == {"train": 10, "validation": 10, "test": 10}
    assert not found["all"]
    by_name = {check["name"]: check for check in found["checks"]}
    assert sum(by_name["classes"]["values"]["counts"].values()) > 10  # of all items
    assert "refuses" not in by_name["classes"]["sentence"]
    assert "not looked for" in found["checks"][-1]["sentence"]
