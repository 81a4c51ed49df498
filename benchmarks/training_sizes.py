"""Cost against size: seconds per text of one pass over 1,000, 10,000 and 100,000 real texts, from an empty store."""

from __future__ import annotations

import csv
import gzip
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset

from benchmarks import results
from benchmarks.sets import CONFIG, data_root, path_overrides
from benchmarks.training_systems import SYSTEMS, train_system
from pipelines.activation_store import ActivationStore
from pipelines.config import load_config
from pipelines.records import Splits

SIZES = (1000, 10_000, 100_000)
SYSTEM = "ours-k5"
SOURCES = {  # data set: the column with its texts; the class of a text is the set it comes from
    "edos/edos_labelled_aggregated.csv.gz": "text",
    "davidson/labeled_data.csv.gz": "tweet",
    "banking77/train.csv.gz": "text",
    "crisislex_t6/*.csv.gz": "text",
}
HELD_OUT = 200


def measure_size(items: int) -> results.Row:
    """One epoch over this many distinct texts; the rest as in the timed runs."""
    overrides = ["training.epochs=1", "training.learning_rate=1e-3", "training.seed=0"]
    config = load_config(CONFIG, [*path_overrides("edos"), *overrides])
    splits = _splits(items)
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(Path(folder), 16 << 30)
        trained = train_system(SYSTEMS[SYSTEM], config, splits, store)
        size = store.size()
    tokens = sum(map(len, trained.backbone.encode([*splits.train["text"]])))
    return {
        "kind": "size",
        "items": items,
        "tokens": tokens,
        "seconds": trained.seconds,
        "step_seconds": trained.step_seconds,
        "store_bytes": size,
    }


def _splits(items: int) -> Splits:
    rows = list(dict.fromkeys(_texts()))
    order = np.random.default_rng(0).permutation(len(rows))[: items + HELD_OUT]
    assert len(order) == items + HELD_OUT, f"{len(rows)} distinct texts, {items + HELD_OUT} wanted"
    texts, labels = zip(*(rows[i] for i in order), strict=True)
    parts = {"train": slice(HELD_OUT, None), "validation": slice(0, HELD_OUT), "test": slice(0, HELD_OUT)}
    made = {name: Dataset.from_dict({"text": texts[own], "label": labels[own]}) for name, own in parts.items()}
    return Splits(labels=tuple(sorted(set(labels))), counts={}, **made)


def _texts() -> list[tuple[str, str]]:
    found = []
    for pattern, field in SOURCES.items():
        paths = sorted(data_root().glob(pattern))
        if not paths:
            raise FileNotFoundError(f"{data_root() / pattern}: get it as benchmarks/DATA.md says")
        for path in paths:
            with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
                found += [(row[field], pattern.split("/")[0]) for row in csv.DictReader(file)]
    return found
