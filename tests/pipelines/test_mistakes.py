"""Items to read, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from pipelines.mistakes import LISTED, LONGEST, mistakes_section
from pipelines.records import FloatArray
from tests.reports import one_hot

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
