"""Where does it fail: accuracy of the fine-tuned system and its rival on parts of the test items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.intervals import proportion_interval
from pipelines.records import IntArray, column

SMALL = 30  # items below which a figure says little
MOST = 20  # values of one column that are listed, the most frequent
LENGTH = "length (words)"


def slices_section(
    test: Dataset, columns: Sequence[str], targets: IntArray, predicted: IntArray, rival: IntArray | None
) -> dict[str, Any]:
    """Accuracy per value of every slice column, and per quarter of the text lengths.

    Args:
        test: N items with `text` and the slice columns.
        columns: slice columns.
        targets, predicted, rival: class numbers, each (N,); rival is None where there is no regression.
    """
    words = np.array([len(text.split()) for text in column(test, "text")])
    quarters = _quarters(words)
    shortest_first = [quarters[i] for i in np.argsort(words, kind="stable")]
    parts = [(LENGTH, quarters, list(dict.fromkeys(shortest_first)))]
    parts += [(name, values, _most_frequent(values)) for name in columns for values in [column(test, name)]]
    rows = [row for part in parts for row in _rows(*part, targets, predicted, rival)]
    large = [row for row in rows if not row["small"]]
    sure = [row for row in large if row["column"] != LENGTH] or large or rows
    worst = min(sure, key=lambda row: row["accuracy"])
    plural = "s" * (worst["items"] > 1)
    return {
        "rows": rows,
        "sentence": f"Lowest accuracy{'' if worst['small'] else f' among slices of at least {SMALL} items'}: "
        f"{worst['accuracy']:.2f} where {worst['column']} = {worst['value']} ({worst['items']} item{plural}).",
        "caveat": f"Slices of fewer than {SMALL} items are marked: their figures may be chance. With many slices, some "
        "look bad by chance alone; compare intervals. Accuracy is shown, since macro-F1 of slices with other class "
        "shares cannot be compared.",
    }


def _quarters(words: IntArray) -> list[str]:
    """A name for the quarter of the lengths that each text is in, shortest first."""
    borders = sorted({int(q) for q in np.quantile(words, [0.25, 0.5, 0.75], method="lower")})
    bounds = [0, *borders, int(words.max())]
    names = [f"{low + 1}–{high}" for low, high in pairwise(bounds) if high > low]
    return [names[min(int(np.searchsorted(borders, n)), len(names) - 1)] for n in words]


def _most_frequent(values: Sequence[str]) -> list[str]:
    return sorted(value for value, _ in Counter(values).most_common(MOST))


def _rows(
    name: str,
    values: Sequence[str],
    listed: Sequence[str],
    targets: IntArray,
    predicted: IntArray,
    rival: IntArray | None,
) -> list[dict[str, Any]]:
    array = np.array(values, dtype=object)
    rows = []
    for value in listed:
        own = array == value
        right = int((predicted[own] == targets[own]).sum())
        rows.append(
            {
                "column": name,
                "value": value,
                "items": int(own.sum()),
                "errors": int(own.sum()) - right,
                "accuracy": right / int(own.sum()),
                "accuracy_ci": proportion_interval(right, int(own.sum())),
                "rival_accuracy": None if rival is None else float((rival[own] == targets[own]).mean()),
                "small": int(own.sum()) < SMALL,
            }
        )
    return rows
