"""Some items of many, with every class among them: files are often sorted, so the first ones are no sample."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from sklearn.utils import resample

from pipelines.records import IntArray, column


def at_most(items: Dataset, most: int, seed: int) -> Dataset:
    """The items, or about `most` of them, stratified, in their order."""
    return items if len(items) <= most else some_of(items, most, seed)


def some_of(items: Dataset, size: int, seed: int, always: IntArray | None = None) -> Dataset:
    """About `size` items, stratified; the first of every class and those of the numbers `always` are among them."""
    labels = np.array(column(items, "label"))
    firsts = np.unique(labels, return_index=True)[1]
    chosen = np.union1d(firsts, firsts if always is None else always)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    wanted = min(len(rest), size - len(chosen))
    if wanted > 0:
        more = resample(rest, replace=False, n_samples=wanted, stratify=labels[rest], random_state=seed)
        chosen = np.union1d(chosen, more)
    return items.select(chosen)
