"""Some items of many: every class is among them, also of a file that is sorted by class."""

from __future__ import annotations

from collections import Counter

from datasets import Dataset

from pipelines.records import column
from pipelines.sampling import at_most


def items(labels: str) -> Dataset:
    return Dataset.from_dict({"label": list(labels), "line": list(range(len(labels)))})


def test_a_sorted_file_gives_its_classes_in_their_shares() -> None:
    some = at_most(items("a" * 600 + "b" * 299 + "c"), 100, seed=0)
    counts = Counter(column(some, "label"))
    assert len(some) == 100
    assert counts["c"] == 1
    assert 60 <= counts["a"] <= 70
    assert column(some, "line") == sorted(column(some, "line"))
    assert column(at_most(items("a" * 600 + "b" * 300), 100, seed=1), "line") != column(some, "line")


def test_few_items_are_all_taken() -> None:
    own = items("ab" * 5)
    assert at_most(own, 10, seed=0) is own
