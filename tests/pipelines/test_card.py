"""The model card: a YAML head that tools read, and Markdown that hostile labels cannot break out of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from pipelines.card import model_card
from pipelines.config import DataConfig, RunConfig, SplitFile
from tests.reports import HOSTILE, report

DATA = DataConfig(train=SplitFile(path=Path("a.csv")), text="text", label="label", max_length=77)
CONFIG = RunConfig(task="text-classification", data=DATA)


def head_and_body(card: str) -> tuple[dict[str, Any], str]:
    start, head, body = card.split("\n---\n", 2) if card.startswith("\n") else ("", *card[4:].split("\n---\n", 1))
    assert card.startswith("---\n")
    assert start == ""
    return yaml.safe_load(head), body


def test_head_holds_what_a_hub_reads() -> None:
    values = report(("a", "b"))
    card = model_card(values, CONFIG, "my run")
    head, _ = head_and_body(card)
    assert (head["library_name"], head["pipeline_tag"]) == ("transformers", "text-classification")
    results = head["model-index"][0]["results"][0]
    assert head["model-index"][0]["name"] == "my run"
    tuned = values["systems"][-1]["metrics"]
    assert {m["type"]: m["value"] for m in results["metrics"]} == {
        "accuracy": round(tuned["accuracy"], 4),
        "f1": round(tuned["macro_f1"], 4),
    }
    assert ModelCard(card).data.tags == ["rootstock"]  # the hub's own reader


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "1" * 40, "sentence-transformers/all-MiniLM-L6-v2"),
        ("/home/somebody/private/model", None, None),
        ("models/local", None, None),
    ],
)
def test_base_model_is_a_hub_name_and_never_a_local_path(name: str, revision: str | None, expected: str | None) -> None:
    values = report(("a", "b")) | {"backbone": {"name": name, "revision": revision}}
    head, _ = head_and_body(model_card(values, CONFIG, "run"))
    assert head.get("base_model") == expected


def test_body_says_verdict_figures_and_limits() -> None:
    values = report(("a", "b"))
    _, body = head_and_body(model_card(values, CONFIG, "my run"))
    assert values["verdict"]["sentence"] in body
    assert "cuts at 256 tokens" in body
    assert "classes `a`, `b`" in body
    assert f"Measured on {values['n_test']} test items" in body
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(values["systems"])
    metrics = values["systems"][-1]["metrics"]
    low, high = metrics["accuracy_ci"]
    assert rows[-1].startswith(f"| fine-tuned | {metrics['accuracy']:.3f} ({low:.3f} to {high:.3f}) |")


def test_hostile_labels_names_and_titles_stay_inert() -> None:
    hostile = "".join(HOSTILE)
    values = report(HOSTILE) | {"backbone": {"name": hostile, "revision": None}}
    card = model_card(values, CONFIG, hostile)
    head, body = head_and_body(card)
    assert head["model-index"][0]["name"] == hostile  # quoted by YAML, unchanged
    assert "<" not in body
    assert not set("\x00\u202e\u200f") & set(body)
    lines = body.splitlines()
    assert sum(line.startswith("#") for line in lines) == 4
    assert [line for line in lines if line.startswith(("---", "yaml: ["))] == []
    classes = next(line for line in lines if line.startswith("A text classifier"))
    assert classes.count("`") == 2 * (len(HOSTILE) + 1)  # one code span per label, one for the backbone
    assert all(line.count("|") == 4 for line in lines if line.startswith("| "))


def test_the_card_is_about_the_main_system() -> None:
    values = report(("a", "b"))
    values["main"] = "logistic-regression-tfidf"
    head, _ = head_and_body(model_card(values, CONFIG, "run"))
    metrics = values["systems"][1]["metrics"]
    assert values["systems"][1]["name"] == values["main"]
    assert head["model-index"][0]["results"][0]["metrics"][0]["value"] == round(metrics["accuracy"], 4)


def test_hostile_names_of_systems_make_no_new_cell_row_or_element() -> None:
    hostile = "".join(HOSTILE)
    _, body = head_and_body(model_card(report(("a", "b"), folder=hostile), CONFIG, "run"))
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert [line.count("|") for line in rows] == [4] * 4
    assert "<" not in body
    assert not set("\x00\u202e\u200f") & set(body)


def test_a_title_of_several_lines_is_one_heading() -> None:
    _, body = head_and_body(model_card(report(("a", "b")), CONFIG, "one\n# two\n\n```"))
    assert "\n# one # two '''\n" in body
    assert body.count("```") == 2
