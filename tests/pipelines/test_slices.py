"""Figures per slice by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipelines.slices import LENGTH, MOST, SMALL, slices_section


def of_lengths(lengths: list[int], **columns: list[str]) -> Dataset:
    return Dataset.from_dict({"text": [" ".join(["w"] * n) for n in lengths], **columns})


def section(test: Dataset, right: list[int], columns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Of a system that says class 1 where `right` is 1, which is always so."""
    return slices_section(test, columns, np.ones(len(right), dtype=int), np.array(right), None)


def rows_of(found: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    return {row["value"]: row for row in found["rows"] if row["column"] == name}


def test_a_row_by_hand() -> None:
    test = of_lengths([2] * 5, source=["x", "y", "x", "x", "y"])
    targets, said, rival = np.array([0, 1, 2, 0, 1]), np.array([0, 1, 1, 2, 1]), np.array([0, 0, 2, 1, 0])
    found = slices_section(test, ("source",), targets, said, rival)
    assert rows_of(found, "source")["x"] == {
        "column": "source",
        "value": "x",
        "items": 3,
        "errors": 2,
        "accuracy": 1 / 3,
        "accuracy_ci": list(binomtest(1, 3).proportion_ci(method="wilson")),
        "rival_accuracy": 2 / 3,
        "small": True,
    }
    assert rows_of(found, "source")["y"]["accuracy"] == 1.0
    assert rows_of(found, "source")["y"]["rival_accuracy"] == 0.0


def test_without_a_rival_there_is_no_rival_accuracy() -> None:
    assert [row["rival_accuracy"] for row in section(of_lengths([1, 2, 3, 4]), [1] * 4)["rows"]] == [None] * 4


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (list(range(1, 9)), {"1–2": 2, "3–4": 2, "5–6": 2, "7–8": 2}),
        ([8, 1, 7, 2, 6, 3, 5, 4], {"1–2": 2, "3–4": 2, "5–6": 2, "7–8": 2}),
        ([5] * 10, {"1–5": 10}),
        ([1] * 6 + [9, 20], {"1–1": 6, "2–20": 2}),
        ([3, 3, 3, 100, 100, 100, 100, 100], {"1–3": 3, "4–100": 5}),
        ([7], {"1–7": 1}),
    ],
)
def test_quarters_of_the_lengths_by_hand(lengths: list[int], expected: dict[str, int]) -> None:
    found = section(of_lengths(lengths), [1] * len(lengths))
    assert {value: row["items"] for value, row in rows_of(found, LENGTH).items()} == expected


def test_lengths_are_listed_from_short_to_long() -> None:
    found = section(of_lengths([*range(2, 18)]), [1] * 16)
    assert [row["value"] for row in found["rows"]] == ["1–5", "6–9", "10–13", "14–17"]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=40))
def test_every_text_is_in_the_quarter_that_names_its_length(lengths: list[int]) -> None:
    rows = rows_of(section(of_lengths(lengths), [1] * len(lengths)), LENGTH)
    for value, row in rows.items():
        low, high = map(int, value.split("–"))
        assert row["items"] == sum(low <= n <= high for n in lengths) > 0
    assert sum(row["items"] for row in rows.values()) == len(lengths)


def test_the_most_frequent_values_are_listed_in_the_order_of_the_alphabet() -> None:
    values = [f"v{number:02}" for number in range(25) for _ in range(1 + (number >= 5))]
    found = rows_of(section(of_lengths([1] * 45, source=values[::-1]), [1] * 45, ("source",)), "source")
    assert list(found) == [f"v{number:02}" for number in range(5, 25)]
    assert len(found) == MOST


def test_slices_of_fewer_than_30_items_are_small() -> None:
    values = ["a"] * SMALL + ["b"] * (SMALL - 1)
    found = rows_of(section(of_lengths([1] * 59, source=values), [1] * 59, ("source",)), "source")
    assert (found["a"]["small"], found["b"]["small"]) == (False, True)


def test_the_sentence_names_the_worst_slice_that_is_not_small() -> None:
    """All of c is wrong, but it is small; length is no column of the user."""
    values = ["a"] * 40 + ["b"] * 40 + ["c"] * 5
    right = [1] * 36 + [0] * 4 + [1] * 30 + [0] * 10 + [0] * 5
    lengths = [1] * 11 + [9 if r else 1 for r in right[11:]]
    found = section(of_lengths(lengths, source=values), right, ("source",))
    assert rows_of(found, LENGTH)["1–1"]["accuracy"] == 11 / 30
    assert found["sentence"] == ("Lowest accuracy among slices of at least 30 items: 0.75 where source = b (40 items).")


def test_without_columns_or_with_small_ones_the_sentence_names_a_length() -> None:
    right = [1] * 50 + [0] * 10 + [1] * 30
    lengths = [1] * 50 + [2] * 40
    expected = "Lowest accuracy among slices of at least 30 items: 0.75 where length (words) = 2–2 (40 items)."
    assert section(of_lengths(lengths), right)["sentence"] == expected
    small = [str(number // 3) for number in range(90)]
    assert section(of_lengths(lengths, source=small), right, ("source",))["sentence"] == expected


def test_where_all_slices_are_small_the_sentence_says_no_more_than_it_can() -> None:
    found = section(of_lengths([1] * 8, source=["a", "b"] * 4), [1, 0, 1, 1, 1, 0, 1, 1], ("source",))
    assert found["sentence"] == "Lowest accuracy: 0.50 where source = b (4 items)."
