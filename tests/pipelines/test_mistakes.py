"""Items to read, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.attributions import attribute
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.config import BackboneConfig
from pipelines.mistakes import (
    LISTED,
    LISTS,
    LONGEST,
    SHADED,
    SHADING,
    STEPS,
    highlight,
    listed_items,
    mistakes_section,
)
from pipelines.records import FloatArray
from tests.reports import one_hot
from tests.toys import tiny_backbone

LABELS = ("a", "b", "c")
# Both right; only the first; neither, differently; only the second; neither, alike; only the first; only the second.
TARGETS = np.array([0, 1, 2, 0, 1, 2, 1])
FIRST = ([0, 1, 0, 1, 2, 2, 0], [0.8, 0.6, 0.7, 0.5, 0.9, 0.7, 0.99])
SECOND = ([0, 0, 1, 0, 2, 0, 1], [0.9] * 7)


def items(count: int) -> Dataset:
    return Dataset.from_dict({"text": [f"text {i}" for i in range(count)], "id": [f"id{i}" for i in range(count)]})


def surely(predicted: list[int], sure: list[float]) -> FloatArray:
    return np.concatenate([one_hot([c], 3, s) for c, s in zip(predicted, sure, strict=True)])


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"] for row in rows]


@pytest.fixture
def section() -> dict[str, Any]:
    return mistakes_section(items(7), LABELS, TARGETS, surely(*FIRST), surely(*SECOND))


def test_the_surest_errors_come_first(section: dict[str, Any]) -> None:
    assert ids(section["worst_errors"]) == ["id6", "id4", "id2", "id3"]
    assert [row["probability"] for row in section["worst_errors"]] == [0.99, 0.9, 0.7, 0.5]


def test_disagreements_are_listed_in_both_directions(section: dict[str, Any]) -> None:
    assert ids(section["only_fine_tuned_right"]) == ["id5", "id1"]
    assert ids(section["only_rival_right"]) == ["id6", "id3"]


def test_counts_are_of_all_items(section: dict[str, Any]) -> None:
    assert section["counts"] == {
        "worst_errors": 4,
        "only_fine_tuned_right": 2,
        "only_rival_right": 2,
        "disagreements": 5,
    }


def test_an_item_says_what_it_is_and_what_both_said(section: dict[str, Any]) -> None:
    assert section["worst_errors"][2] == {
        "id": "id2",
        "text": "text 2",
        "label": "c",
        "fine_tuned": "a",
        "probability": 0.7,
        "rival": "b",
    }


def test_without_a_rival_there_are_errors_and_no_disagreements() -> None:
    found = mistakes_section(items(7), LABELS, TARGETS, surely(*FIRST), None)
    assert ids(found["worst_errors"]) == ["id6", "id4", "id2", "id3"]
    assert {row["rival"] for row in found["worst_errors"]} == {None}
    assert found["only_fine_tuned_right"] == found["only_rival_right"] == []
    assert found["counts"]["disagreements"] == 0


def test_a_system_without_errors_has_none_to_read() -> None:
    found = mistakes_section(items(7), LABELS, TARGETS, one_hot(TARGETS, 3), one_hot(TARGETS, 3))
    assert found["worst_errors"] == found["only_fine_tuned_right"] == found["only_rival_right"] == []
    assert set(found["counts"].values()) == {0}


def test_at_most_ten_are_listed_and_equally_sure_ones_in_their_order() -> None:
    found = mistakes_section(items(30), LABELS, np.zeros(30, dtype=int), one_hot([1] * 30, 3), one_hot([0] * 30, 3))
    assert ids(found["worst_errors"]) == ids(found["only_rival_right"]) == [f"id{i}" for i in range(LISTED)]
    assert found["counts"]["worst_errors"] == found["counts"]["only_rival_right"] == 30


def test_long_texts_are_cut_and_say_so() -> None:
    test = Dataset.from_dict({"text": ["ä" * LONGEST, "ä" * (LONGEST + 1)], "id": ["whole", "cut"]})
    rows = mistakes_section(test, LABELS, np.zeros(2, dtype=int), one_hot([1, 1], 3), None)["worst_errors"]
    assert [row["text"] for row in rows] == ["ä" * LONGEST, "ä" * (LONGEST - 1) + "…"]


# ---- what moved the model


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return load_text_backbone(BackboneConfig(name=str(tiny_backbone(tmp_path / "tiny"))), LABELS, 64, 0)


def listed(text: str, count: int = 7) -> tuple[Dataset, dict[str, Any]]:
    test = Dataset.from_dict({"text": [text] * count, "id": [f"id{i}" for i in range(count)]})
    return test, mistakes_section(test, LABELS, TARGETS, surely(*FIRST), surely(*SECOND))


def test_items_come_once_with_their_whole_text_and_their_entries() -> None:
    text = "the cat " * 100
    test, section = listed(text)
    found = listed_items(section, test)
    assert {whole for whole, _ in found} == {text}
    assert [sorted({entry["id"] for entry in entries.values()}) for _, entries in found] == [
        ["id6"], ["id4"], ["id2"], ["id3"], ["id5"], ["id1"],
    ]  # fmt: skip
    assert [list(entries) for _, entries in found][:2] == [["worst_errors", "only_rival_right"], ["worst_errors"]]


def test_every_entry_gets_the_words_for_what_was_said_of_it(backbone: Backbone) -> None:
    text = "the cat sleeps near the road"
    test, section = listed(text)
    caveat = section["caveat"]
    highlight(section, test, backbone)
    for entry in (entry for name in LISTS for entry in section[name][:SHADED]):
        expected = attribute(backbone, text, LABELS.index(entry["fine_tuned"]), STEPS, STEPS)
        assert [word for word, _ in entry["words"]] == text.split()
        np.testing.assert_allclose([weight for _, weight in entry["words"]], expected.weights, atol=6e-5)
    assert section["caveat"] == f"{caveat} {SHADING}"
    assert "no cause" in SHADING
    json.dumps(section, allow_nan=False)


def test_only_the_first_of_each_list_are_shaded(backbone: Backbone) -> None:
    test = Dataset.from_dict({"text": ["the cat"] * 30, "id": [f"id{i}" for i in range(30)]})
    section = mistakes_section(test, LABELS, np.zeros(30, dtype=int), one_hot([1] * 30, 3), one_hot([0] * 30, 3))
    highlight(section, test, backbone)
    for name in ("worst_errors", "only_rival_right"):
        assert ["words" in entry for entry in section[name]] == [True] * SHADED + [False] * (LISTED - SHADED)
    assert f"In the first {SHADED}, " in section["caveat"]


def test_the_same_model_gives_the_same_words(backbone: Backbone) -> None:
    sections = []
    for _ in range(2):
        test, section = listed("the cat sleeps near the road")
        highlight(section, test, backbone)
        sections.append(json.dumps(section))
    assert sections[0] == sections[1]


def test_only_words_that_are_shown_whole_are_listed(backbone: Backbone) -> None:
    text = "cat " * 99 + "sleeps near"  # the 399 characters that are shown end inside "sleeps"
    backbone.limit(128)  # so that the model reads all of it
    test, section = listed(text)
    highlight(section, test, backbone)
    assert [word for word, _ in section["worst_errors"][0]["words"]] == ["cat"] * 99


def test_a_tokenizer_that_knows_no_characters_is_said(backbone: TextBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backbone.tokenizer), "is_fast", False)
    test, section = listed("the cat")
    highlight(section, test, backbone)
    assert "words" not in section["worst_errors"][0]
    assert "Words are not shaded: " in section["caveat"]


def test_without_errors_nothing_is_said_of_shading(backbone: Backbone) -> None:
    test = Dataset.from_dict({"text": ["a"], "id": ["0"]})
    section = mistakes_section(test, LABELS, np.array([0]), surely([0], [0.9]), surely([0], [0.9]))
    caveat = section["caveat"]
    highlight(section, test, backbone)
    assert section["caveat"] == caveat
