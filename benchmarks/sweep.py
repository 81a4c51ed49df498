"""What a sweep gains from one trunk pass for all its trainings, and from dropping hopeless ones.

    python -m benchmarks.sweep                                                run what is missing, print the tables
    python -m benchmarks.sweep --tables                                       print the tables only
    python -m benchmarks.sweep --depth 4 --repeat 0 --store on                24 trainings; or --store off
    python -m benchmarks.sweep --depth 4 --repeat 0 --command prune           the whole command; or --command no-prune

24 trainings of 2,000 EDOS texts with MiniLM, 4 or 5 of 6 layers frozen: a third, once and three times the default
learning rate of the depth, 2 and 3 epochs, four seeds. With the store, which is empty at the start, against the same
trainings without: the same function, loop, splits and order, no pruning, neither baselines nor reports; the clock runs
from the first model that is loaded to the last score, validation and checkpoints included on both sides. The whole
command, from reading the data to the finished directory, is timed apart, with and without pruning, so that what pruning
gains is a line of its own. Rows take turns; a ratio is between rows of one repeat. The test part is not scored.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.machine import name as name_of_machine
from benchmarks.machine import run_watched
from benchmarks.sets import CONFIG, path_overrides
from pipelines.activation_store import ActivationStore
from pipelines.config import auto_learning_rate, load_config
from pipelines.data import load_splits
from pipelines.device import best_precision, start_accelerator
from pipelines.records import finished
from pipelines.sweep.plan import Plan, combinations, factors_of
from pipelines.sweep.runs import Run
from pipelines.sweep.settings import Settings
from pipelines.sweep.trainings import Trainings

DEPTHS, LAYERS = (4, 5), 6
REPEATS = 3
SEEDS = 4
EPOCHS = (2, 3)
FACTORS = (1 / 3, 1.0, 3.0)  # of the default learning rate
AIMS = {4: 1.4, 5: 2.2}  # times faster than without the store
ITEMS = 2_500  # a fifth of them validates
STORE_BYTES = 8 << 30
PATH = results.results_file("sweep")


# ---- rows


def train_all(depth: int, repeat: int, kept: bool) -> results.Row:
    """The 24 trainings, all seeds of this repeat, with an empty store or with none."""
    config = load_config(CONFIG, _settings(depth, repeat))
    splits = load_splits(config.data, config.training.seed)
    settings = Settings(config, splits.labels, None)
    plan = Plan(_varied(depth), SEEDS)
    for changes in combinations(factors_of(plan, config), plan.method, config):
        settings.of(changes)
    with tempfile.TemporaryDirectory() as folder:
        place, precision = Path(folder), best_precision()
        accelerator = start_accelerator(precision, (), place)
        store = ActivationStore(place / "store", STORE_BYTES) if kept else None
        trainings = Trainings(splits, None, precision, accelerator, lambda: False, store)
        runs: list[Run] = []
        started = time.perf_counter()
        for seed in range(config.training.seed, config.training.seed + SEEDS):
            for setting in settings.all:
                events = trainings.run(setting, seed, place / f"{len(runs)}", lambda _: False)
                runs.append(finished(events))
        seconds = time.perf_counter() - started
    return {
        "key": train_key(depth, repeat, kept),
        "kind": "trainings",
        "depth": depth,
        "repeat": repeat,
        "kept": kept,
        "seconds": seconds,
        "each": [run.seconds for run in runs],
        "stores": [run.store for run in runs],
        "macro_f1": [run.macro_f1 for run in runs],
        "items": len(splits.train),
    } | _machine()


def time_command(depth: int, repeat: int, prune: bool) -> results.Row:
    """`rootstock sweep` from its start to its end, in a process of its own, from an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        options = [part for setting in _settings(depth, repeat) for part in ("--set", setting)]
        varied = [part for vary in _varied(depth) for part in ("--vary", vary)]
        command = [sys.executable, "-m", "service.cli", "sweep", str(CONFIG), *options, *varied]
        command += ["--seeds", str(SEEDS), "--prune" if prune else "--no-prune", "--out", str(out)]
        os.environ["ROOTSTOCK_STORE"] = str(Path(folder) / "store")
        done = run_watched(command)
        if done.code:
            sys.exit(done.stderr)
        found = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    best = found["settings"][0]
    return {
        "key": command_key(depth, repeat, prune),
        "kind": "command",
        "depth": depth,
        "repeat": repeat,
        "prune": prune,
        "seconds": done.seconds,
        "peak_rss_mib": max(done.rss_mib),
        "trainings": found["trainings"],
        "best": best["setting"],
        "best_macro_f1": best["mean"],
    } | _machine()


def _settings(depth: int, repeat: int) -> list[str]:
    """`--set` values. The repeats have splits and seeds of their own."""
    most = [f"data.max_train_items={ITEMS}", "data.validation=0.2"]
    return [*path_overrides("edos"), *most, f"backbone.freeze={depth}", f"training.seed={100 * repeat}"]


def _varied(depth: int) -> tuple[str, ...]:
    default = auto_learning_rate(depth / LAYERS, lora=False)
    rates = ",".join(f"{factor * default:.2g}" for factor in FACTORS)
    return f"training.learning_rate={rates}", f"training.epochs={','.join(map(str, EPOCHS))}"


def _machine() -> dict[str, Any]:
    return {"machine": name_of_machine(), "threads": torch.get_num_threads(), "versions": results.versions()}


# ---- tables


def tables(rows: Sequence[results.Row]) -> str:
    """Markdown, one set for each machine."""
    parts = []
    for own in results.by_machine(rows):
        parts += [results.environments(own), _trainings(own), _commands(own)]
    return "\n\n".join(part for part in parts if part)


def _trainings(rows: Sequence[results.Row]) -> str:
    """Times faster with the store, by depth: median and range over repeats."""
    lines = []
    for depth in DEPTHS:
        pairs = _pairs([row for row in rows if row["kind"] == "trainings" and row["depth"] == depth], "kept")
        if pairs:
            ratios = [without["seconds"] / kept["seconds"] for kept, without in pairs]
            off = [a - b for kept, without in pairs for a, b in zip(kept["macro_f1"], without["macro_f1"], strict=True)]
            seconds = [f"{statistics.median(row['seconds'] for row in side):.0f}" for side in zip(*pairs, strict=True)]
            aim, most = f"≥ {AIMS[depth]}", f"{statistics.mean(off):+.4f} ({min(off):+.3f} to {max(off):+.3f})"
            lines.append([f"k = {depth}, {len(pairs)} repeats", *seconds, _with_range(ratios), aim, most])
    header = ["24 trainings", "seconds with the store", "without", "times faster", "aim", "macro-F1 with less without"]
    return results.markdown(header, lines) if lines else ""


def _commands(rows: Sequence[results.Row]) -> str:
    """The whole command, and what pruning gains and costs."""
    lines = []
    for depth in DEPTHS:
        pairs = _pairs([row for row in rows if row["kind"] == "command" and row["depth"] == depth], "prune")
        if pairs:
            ratios = [whole["seconds"] / pruned["seconds"] for pruned, whole in pairs]
            seconds = [f"{statistics.median(row['seconds'] for row in side):.0f}" for side in zip(*pairs, strict=True)]
            ended = statistics.mean(pruned["trainings"]["complete"] for pruned, _ in pairs)
            cost = statistics.mean(pruned["best_macro_f1"] - whole["best_macro_f1"] for pruned, whole in pairs)
            same = sum(pruned["best"] == whole["best"] for pruned, whole in pairs)
            told = f"{same} of {len(pairs)} ({cost:+.3f})"
            lines.append([f"k = {depth}", *seconds, _with_range(ratios), f"{ended:.1f} of 24", told])
    header = ["whole command", "seconds with pruning", "without", "times faster", "complete", "the same best"]
    return results.markdown(header, lines) if lines else ""


def _pairs(rows: Sequence[results.Row], key: str) -> list[tuple[results.Row, results.Row]]:
    """Rows of one repeat, the one that has `key` first."""
    by_repeat = [{row[key]: row for row in rows if row["repeat"] == repeat} for repeat in range(REPEATS)]
    return [(own[True], own[False]) for own in by_repeat if len(own) == 2]


def _with_range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


# ---- all rows


def train_key(depth: int, repeat: int, kept: bool) -> str:
    return f"trainings, depth {depth}, repeat {repeat}, store {'on' if kept else 'off'}, {name_of_machine()}"


def command_key(depth: int, repeat: int, prune: bool) -> str:
    return f"command, depth {depth}, repeat {repeat}, {'prune' if prune else 'no-prune'}, {name_of_machine()}"


def rows() -> list[tuple[str, Callable[[], results.Row]]]:
    """Key and function of every row; the two sides of a pair follow each other, and take turns in being first."""
    found: list[tuple[str, Callable[[], results.Row]]] = []
    for repeat in range(REPEATS):
        for depth in DEPTHS:
            sides = (True, False) if repeat % 2 == 0 else (False, True)
            found += [(train_key(depth, repeat, on), partial(train_all, depth, repeat, on)) for on in sides]
            found += [(command_key(depth, repeat, on), partial(time_command, depth, repeat, on)) for on in sides]
    return found


def main() -> None:
    """Run one row, or all that are missing in processes of their own, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, choices=DEPTHS)
    parser.add_argument("--repeat", type=int, default=0)
    parser.add_argument("--store", choices=("on", "off"), help="24 trainings")
    parser.add_argument("--command", choices=("prune", "no-prune"), help="the whole command")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.depth and args.store:
        results.append(PATH, train_all(args.depth, args.repeat, args.store == "on"))
    elif args.depth and args.command:
        results.append(PATH, time_command(args.depth, args.repeat, args.command == "prune"))
    else:
        results.run_missing(PATH, [] if args.tables else rows())
        print(tables(results.read(PATH)))


if __name__ == "__main__":
    main()
