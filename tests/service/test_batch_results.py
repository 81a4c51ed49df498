"""What pages show of a labelled table, and which items are put before people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.bulk.outputs import Output
from pipelines.errors import Interrupted
from service import batch_results
from service.batch_results import queues, write_results

SUMMARY = {
    "labels": {"model": {"a": 3, "b": 1}},
    "drift": {
        "model": {"sentence": "No drift.", "warnings": [], "caveat": "c", "reference_labels": {"a": 10, "b": 30}}
    },
}
POINTS = [
    {"class": "b", "wanted": "precision", "aim": 0.9, "threshold": 0.8},
    {"class": "a", "wanted": "recall", "aim": 0.95, "threshold": None},
]
SHARES = [0.1, 0.45, 0.52, 0.79, 0.99]  # scores of b


def row(text: str, b: float) -> dict[str, Any]:
    scores = {"a": round(1 - b, 6), "b": b}
    label = max(scores, key=lambda name: scores[name])
    return {"text": text, "predicted_label": label, "predicted_score": scores[label], "predicted_scores": scores}


def written(folder: Path, format: str, rows: list[dict[str, Any]]) -> Path:
    path, part = folder / f"output.{format}", folder / "part"
    output = Output(path, ["text", "predicted_label", "predicted_score", "predicted_scores"])
    output.write_chunk(part, rows, first=True)
    output.assemble([part], path)
    return path


def results(folder: Path, output: Path, stop: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    asked = queues(POINTS)
    errors = output.with_name("errors.jsonl")
    write_results(folder / "results", output, errors, "text", SUMMARY, asked, lambda: stop)
    made = folder / "results"
    lines = (made / "items.jsonl").read_bytes()
    read = [json.loads((made / f"queue-{n}.json").read_text()) for n in range(len(asked))]
    for queue in read:
        queue["items"] = [json.loads(lines[place:].split(b"\n", 1)[0]) for _, place in queue["items"]]
    return json.loads((made / "preview.json").read_text()), read


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet"])
def test_a_queue_begins_with_what_is_nearest_to_its_decision(tmp_path: Path, format: str) -> None:
    rows = [row(f"text {n}", b) for n, b in enumerate(SHARES)]
    preview, (margin, point) = results(tmp_path, written(tmp_path, format, rows))
    assert [item["row"] for item in margin["items"]] == [3, 2, 4, 1, 5]
    assert [item["row"] for item in point["items"]] == [4, 5, 3, 2, 1]
    assert (point["class"], point["threshold"]) == ("b", 0.8)
    assert margin["items"][0] == {"row": 3, "text": "text 2", "label": "b", "scores": {"a": 0.48, "b": 0.52}}
    assert preview["queues"] == [
        {"name": "the class that it gives", "items": 5},
        {"name": "b: precision at least 90%", "items": 5},
    ]


def test_a_queue_is_bounded_and_holds_no_text_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_results, "NEAREST", 3)
    rows = [row("copy", 0.5), row("far", 0.9), row("copy", 0.5), row("near", 0.55), row("farther", 0.95), row("o", 0.6)]
    _, (margin, _) = results(tmp_path, written(tmp_path, "jsonl", rows))
    assert [item["text"] for item in margin["items"]] == ["copy", "near", "o"]


def test_texts_are_as_they_were_uploaded(tmp_path: Path) -> None:
    """CSV cells that a spreadsheet would run are written with an apostrophe."""
    texts = ["=1+1", "-5 apples", "'quoted", "plain"]
    _, (margin, _) = results(tmp_path, written(tmp_path, "csv", [row(text, 0.6) for text in texts]))
    assert [item["text"] for item in margin["items"]] == texts


def test_shares_errors_and_first_rows_are_shown(tmp_path: Path) -> None:
    output = written(tmp_path, "jsonl", [row(f"text {n}", 0.1) for n in range(20)] + [{"text": "unread"}])
    output.with_name("errors.jsonl").write_text('{"line": 4, "reason": "no text"}\n{"line": 9, "reason": "bad"}\n')
    preview, _ = results(tmp_path, output)
    assert preview["shares"] == [
        {"label": "a", "count": 3, "share": 0.75, "before": 0.25},
        {"label": "b", "count": 1, "share": 0.25, "before": 0.75},
    ]
    assert preview["errors"] == [{"line": 4, "reason": "no text"}, {"line": 9, "reason": "bad"}]
    assert len(preview["rows"]) == batch_results.ROWS
    assert preview["rows"][0] == {"text": "text 0", "label": "a", "score": 0.9}
    assert preview["drift"]["sentence"] == "No drift."


def test_an_output_without_a_prediction_has_empty_queues(tmp_path: Path) -> None:
    preview, (margin, _) = results(tmp_path, written(tmp_path, "jsonl", [{"text": ""}]))
    assert (preview["rows"], margin["items"]) == ([], [])


def test_reading_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    output = written(tmp_path, "jsonl", [row(f"text {n}", 0.1) for n in range(1000)])
    with pytest.raises(Interrupted):
        results(tmp_path, output, stop=True)


def test_classes_that_a_spreadsheet_would_run_keep_their_names(tmp_path: Path) -> None:
    scores = {"=a": 0.7, "'=a": 0.2, "b": 0.1}
    rows = [{"text": f"t {name}", "predicted_label": name, "predicted_scores": scores} for name in scores]
    output = written(tmp_path, "csv", [row | {"predicted_score": 0.7} for row in rows])
    _, (margin, _) = results(tmp_path, output)
    assert {item["label"] for item in margin["items"]} <= set(scores)


def test_of_many_classes_the_highest_scores_are_kept_and_the_ones_asked_for(tmp_path: Path) -> None:
    scores = {f"c{n}": (100 - n) / 5050 for n in range(100)} | {"b": 0.0}
    own = {"text": "t", "predicted_label": "c0", "predicted_score": 0.02, "predicted_scores": scores}
    _, (margin, _) = results(tmp_path, written(tmp_path, "jsonl", [own]))
    assert set(margin["items"][0]["scores"]) == {f"c{n}" for n in range(batch_results.SCORES)} | {"b"}


def test_queues_take_classes_in_turn() -> None:
    points = [{"class": c, "wanted": "recall", "aim": aim, "threshold": 0.5} for c in "ab" for aim in (0.9, 0.975)]
    assert [queue.name for queue in queues(points)][1:] == [
        "a: recall at least 90%", "b: recall at least 90%", "a: recall at least 97.5%", "b: recall at least 97.5%",
    ]  # fmt: skip


def test_a_page_does_not_say_where_the_server_keeps_things(tmp_path: Path) -> None:
    output = written(tmp_path, "jsonl", [row("t", 0.4)])
    drift = {"sentence": "Drift could not be measured.", "reason": "/srv/secret: gone"}
    summary = SUMMARY | {"drift": {"model": drift}}
    write_results(tmp_path / "results", output, output.with_name("none"), "text", summary, queues([]), lambda: False)
    preview = (tmp_path / "results" / "preview.json").read_text()
    assert "Drift could not be measured." in preview
    assert "/srv/secret" not in preview
