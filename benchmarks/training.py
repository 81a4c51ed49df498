"""How fast training is, against `transformers.Trainer` and against ourselves, at equal quality.

    python -m benchmarks.training                                      run what is missing, print the tables
    python -m benchmarks.training --tables                             print the tables only
    python -m benchmarks.training --system ours-k4 --rate 3e-4         one learning rate, scored on validation
    python -m benchmarks.training --system ours-k4 --repeat 0          one timed run
    python -m benchmarks.training --system ours-k4 --repeat 0 --sweep  twelve runs: 4 seeds x 3 learning rates
    python -m benchmarks.training --items 100000                       one pass over that many texts

2,000 EDOS texts, 3 epochs, batch 32, MiniLM (configs/edos.yaml). The learning rate of every system is chosen on 1,000
texts of the official dev part from one grid, off the clock; macro-F1 is of a fixed 1,000 texts of the test part. Each
row is a process of its own; systems take turns, no two run at once; a ratio is between rows of one repeat. Timed rows
belong to a machine; another one measures its own and has its own tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from benchmarks import results
from benchmarks.machine import name as name_of_machine
from benchmarks.machine import peak_rss
from benchmarks.sets import CONFIG, data_file, path_overrides
from benchmarks.training_sizes import SIZES, measure_size
from benchmarks.training_systems import SYSTEMS, System, train_system
from benchmarks.training_tables import tables
from pipelines.activation_store import ActivationStore
from pipelines.config import RunConfig, load_config
from pipelines.data import load_splits
from pipelines.metrics import macro_f1
from pipelines.predict import predict_logits
from pipelines.records import Splits, column

ITEMS, EPOCHS, REPEATS, SWEEPS = 2000, 3, 5, 3
SCORED = 1000
DATA_SEED = 0  # of the choice of texts, the same for all rows
RATE_SEED = 100  # of the runs that choose the learning rate; no timed run has it
GRID = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3)
SWEPT = ("trainer-tuned-k4", "ours-k4", "ours-k5", "ours-k5-without-store")
SWEEP_SEEDS = 4
PATH = results.results_file("training")


# ---- rows


def measure_rate(name: str, rate: float) -> results.Row:
    """Macro-F1 on the validation part at one learning rate."""
    config, splits = _prepared(RATE_SEED, rate)
    with tempfile.TemporaryDirectory() as folder:
        trained = train_system(SYSTEMS[name], config, splits, ActivationStore(Path(folder), 8 << 30))
    score = _macro_f1(trained.backbone, SYSTEMS[name], splits, splits.validation)
    return {"key": rate_key(name, rate), "kind": "rate", "system": name, "rate": rate, "validation_macro_f1": score}


def measure(name: str, repeat: int) -> results.Row:
    """One timed run from an empty store, and with the store a second one from the full store."""
    system = SYSTEMS[name]
    config, splits = _prepared(repeat, chosen_rate(name))
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(Path(folder), 8 << 30)
        before = peak_rss()
        trained = train_system(system, config, splits, store)
        rss, size = peak_rss(), store.size()
        again = train_system(system, config, splits, store) if system.ours and system.store else None
    return {
        "key": run_key(name, repeat),
        "kind": "run",
        "system": name,
        "repeat": repeat,
        "rate": config.training.learning_rate,
        "seconds": trained.seconds,
        "step_seconds": trained.step_seconds,
        "warm_seconds": again and again.seconds,
        "peak_rss_mib": rss,
        "peak_rss_before_mib": before,
        "store_bytes": size,
        "store_bound_bytes": _store_bound(trained.backbone, splits) if size else 0,
        "macro_f1": _macro_f1(trained.backbone, system, splits, splits.test),
        "precision": system.precision,
    } | _machine()


def measure_sweep(name: str, repeat: int) -> results.Row:
    """Twelve runs over the same texts, one process, one store: 4 seeds x the chosen rate and its two neighbours."""
    best = GRID.index(chosen_rate(name))
    rates = GRID[max(0, min(best - 1, len(GRID) - 3)) :][:3]
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        store = ActivationStore(Path(folder), 8 << 30)
        for seed in range(SWEEP_SEEDS):
            for rate in rates:
                config, splits = _prepared(1000 * (repeat + 1) + seed, rate)
                seconds.append(train_system(SYSTEMS[name], config, splits, store).seconds)
    row = {"key": sweep_key(name, repeat), "kind": "sweep", "system": name, "repeat": repeat}
    return row | {"rates": rates, "seconds": sum(seconds), "each": seconds} | _machine()


def chosen_rate(name: str) -> float:
    """The rate of the grid with the best validation macro-F1. Raises KeyError while one is missing."""
    of = SYSTEMS[name].rate_of or name
    rows = {row["key"]: row for row in results.read(PATH)}
    scores = {rate: rows[rate_key(of, rate)]["validation_macro_f1"] for rate in GRID}
    return max(scores, key=lambda rate: scores[rate])


def rate_key(name: str, rate: float) -> str:
    return f"rate {rate:g}, {name}"


def run_key(name: str, repeat: int) -> str:
    return f"run {repeat}, {name}, {name_of_machine()}"


def sweep_key(name: str, repeat: int) -> str:
    return f"sweep {repeat}, {name}, {name_of_machine()}"


def size_key(items: int) -> str:
    return f"size {items}, {name_of_machine()}"


# ---- what rows share


def _prepared(seed: int, rate: float) -> tuple[RunConfig, Splits]:
    """configs/edos.yaml with ITEMS texts for training and SCORED of the official dev and test parts."""
    validation = json.dumps({"path": str(data_file("edos")), "where": {"split": "dev"}})
    settings = {"data.validation": validation, "data.max_train_items": ITEMS, "training.epochs": EPOCHS}
    settings |= {"training.seed": seed, "training.learning_rate": rate}
    overrides = [f"{key}={value}" for key, value in settings.items()]
    config = load_config(CONFIG, [*path_overrides("edos"), *overrides])
    splits = load_splits(config.data, DATA_SEED)
    assert len(splits.train) == ITEMS
    parts = {name: _sample(getattr(splits, name)) for name in ("validation", "test")}
    return config, Splits(train=splits.train, labels=splits.labels, counts=splits.counts, **parts)


def _sample(part: Dataset) -> Dataset:
    """The same SCORED items every time."""
    chosen = np.random.default_rng(DATA_SEED).choice(len(part), SCORED, replace=False)
    return part.select(np.sort(chosen))


def _macro_f1(backbone: Any, system: System, splits: Splits, part: Dataset) -> float:
    predicted = predict_logits(backbone, backbone.encode(column(part, "text")), system.precision).argmax(axis=1)
    return macro_f1(splits.targets(part), predicted)


def _store_bound(backbone: Any, splits: Splits) -> int:
    """2 bytes x hidden size x tokens of everything whose states are kept."""
    texts = [text for part in (splits.train, splits.validation) for text in column(part, "text")]
    distinct = {tuple(ids) for ids in backbone.encode(texts)}
    return 2 * int(backbone.model.config.hidden_size) * sum(map(len, distinct))


def _machine() -> dict[str, Any]:
    return {"machine": name_of_machine(), "threads": torch.get_num_threads(), "versions": results.versions()}


# ---- all rows


def commands() -> list[tuple[str, list[str]]]:
    """Key and arguments of every row, in the order in which they are run."""
    rows = []
    for name in (name for name, system in SYSTEMS.items() if system.rate_of is None):
        rows += [(rate_key(name, rate), ["--system", name, "--rate", f"{rate:g}"]) for rate in GRID]
    for repeat in range(REPEATS):
        rows += [(run_key(name, repeat), ["--system", name, "--repeat", str(repeat)]) for name in SYSTEMS]
    for repeat in range(SWEEPS):
        rows += [(sweep_key(name, repeat), ["--system", name, "--repeat", str(repeat), "--sweep"]) for name in SWEPT]
    return rows + [(size_key(size), ["--items", str(size)]) for size in SIZES]


def main() -> None:
    """Run one row, or all that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", choices=list(SYSTEMS))
    parser.add_argument("--rate", type=float, help="score this learning rate on the validation part")
    parser.add_argument("--repeat", type=int, help="number of the timed run, also its seed")
    parser.add_argument("--sweep", action="store_true", help="twelve runs instead of one")
    parser.add_argument("--items", type=int, help="one pass over that many texts instead")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.items:
        results.append(PATH, {"key": size_key(args.items)} | measure_size(args.items) | _machine())
    elif args.system and args.rate:
        results.append(PATH, measure_rate(args.system, args.rate))
    elif args.system and args.repeat is not None:
        results.append(PATH, (measure_sweep if args.sweep else measure)(args.system, args.repeat))
    else:
        for key, arguments in commands() if not args.tables else []:
            if not results.has(PATH, key):
                print(f"running {key}", file=sys.stderr)
                subprocess.run([sys.executable, "-m", "benchmarks.training", *arguments], check=True, stdout=sys.stderr)
        print(tables(results.read(PATH)))


if __name__ == "__main__":
    main()
