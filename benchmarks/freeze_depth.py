"""Does `freeze: auto` find a depth as good as the best fixed one, at a fraction of the cost of trying them all?

    python -m benchmarks.freeze_depth                                                  run what is missing, print tables
    python -m benchmarks.freeze_depth --tables                                         print the tables only
    python -m benchmarks.freeze_depth --set edos --seed 0 --depth 3 --factor 1         one training
    python -m benchmarks.freeze_depth --set edos --seed 0 --auto                       one choice of a depth
    python -m benchmarks.freeze_depth --pass                                           probes against one forward pass

EDOS (2,000 training items, 3 epochs) and Banking77 (3,200 items, 6 epochs), MiniLM, five seeds of splits and training.
Every depth is trained at three learning rates, half, once and twice the default of the depth, of which the validation
part chooses; so is the depth that `auto` chooses, whose cost is that of the choice and of those three. Trainings start
from an empty store. The test part is scored once for each training and chooses nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.machine import name as name_of_machine
from benchmarks.sets import CONFIGS, path_overrides
from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, auto_learning_rate, load_config
from pipelines.data import load_splits
from pipelines.device import best_precision, start_accelerator
from pipelines.hidden_layers.depth import advise, probe_layers
from pipelines.intervals import student_interval
from pipelines.metrics import macro_f1
from pipelines.predict import embed, predict_logits
from pipelines.records import Splits, Validation, column, finished
from pipelines.tune import finished_model, prepare, tune

SEEDS = 5
DEPTHS = (0, 1, 2, 3, 4, 5, 6)  # of 6; 6 leaves the head
FACTORS = (0.5, 1.0, 2.0)  # of the default learning rate of a depth
ITEMS = {"edos": 2_500, "banking77": 4_000}  # a fifth of them validates
PASS_TEXTS = 14_000
STORE_BYTES = 8 << 30
PATH = results.results_file("freeze_depth")


# ---- rows


def train_one(data: str, seed: int, depth: int, factor: float) -> results.Row:
    """One training at a depth: seconds with validation, scores."""
    config, splits = _prepared(data, seed, str(depth))
    rate = factor * auto_learning_rate(depth / max(DEPTHS), lora=False)
    config = config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": rate})})
    with tempfile.TemporaryDirectory() as folder:
        place, precision = Path(folder), best_precision()
        accelerator = start_accelerator(precision, (), place)
        started = time.perf_counter()
        trunk = prepare(config, splits.labels, None)
        store = ActivationStore(place / "store", STORE_BYTES)
        parts = accelerator, precision, Checkpoints(place / "checkpoints"), lambda: False, store
        events = tune(trunk, splits, splits.train, config, *parts)
        scores = [event.macro_f1 for event in events if isinstance(event, Validation)]
        seconds = time.perf_counter() - started
        backbone = finished_model(trunk)
        texts = column(splits.test, "text")
        predicted = predict_logits(backbone, backbone.encode(texts), precision).argmax(axis=1)
    return {
        "key": train_key(data, seed, depth, factor),
        "kind": "train",
        "set": data,
        "seed": seed,
        "depth": depth,
        "factor": factor,
        "seconds": seconds,
        "validation_macro_f1": max(scores),
        "macro_f1": macro_f1(splits.targets(splits.test), predicted),
    } | _machine()


def choose_one(data: str, seed: int) -> results.Row:
    """One choice of a depth by probes and short runs."""
    config, splits = _prepared(data, seed, "auto")
    with tempfile.TemporaryDirectory() as folder:
        place, precision = Path(folder), best_precision()
        accelerator = start_accelerator(precision, (), place)
        started = time.perf_counter()
        backbone = prepare(config, splits.labels, None).backbone
        store = ActivationStore(place / "store", STORE_BYTES)
        parts = accelerator, place / "short", lambda: False, store
        events = advise(config, splits, backbone, None, precision, *parts)
        advice = finished(events)
        seconds = time.perf_counter() - started
    return {
        "key": auto_key(data, seed),
        "kind": "auto",
        "set": data,
        "seed": seed,
        "depth": advice["depth"],
        "seconds": seconds,
        "probes": [layer["macro_f1"] for layer in advice["layers"]],
        "short_runs": advice["short_runs"],
    } | _machine()


def time_probes() -> results.Row:
    """Probes on every layer of many texts, against one forward pass over the same texts."""
    config, splits = _prepared("edos", 0, "none", PASS_TEXTS)
    precision = best_precision()
    backbone = prepare(config, splits.labels, None).backbone
    texts = column(splits.train, "text") + column(splits.validation, "text")
    embed(backbone, backbone.encode(texts[:500]), precision)  # the first call sets up what the others reuse
    started = time.perf_counter()
    embed(backbone, backbone.encode(texts), precision)
    passed = time.perf_counter()
    probe_layers(config, splits, backbone, precision)
    probed = time.perf_counter()
    row = {"key": pass_key(), "kind": "pass", "texts": len(texts)}
    return row | {"pass_seconds": passed - started, "probe_seconds": probed - passed} | _machine()


def _prepared(data: str, seed: int, freeze: str, items: int | None = None) -> tuple[RunConfig, Splits]:
    most = [f"data.max_train_items={items or ITEMS[data]}", "data.validation=0.2"]
    options = [f"training.seed={seed}", f"backbone.freeze={freeze}"]
    config = load_config(CONFIGS / f"{data}.yaml", [*path_overrides(data), *most, *options])
    return config, load_splits(config.data, seed)


def _machine() -> dict[str, Any]:
    return {"machine": name_of_machine(), "threads": torch.get_num_threads(), "versions": results.versions()}


# ---- tables


def tables(rows: Sequence[results.Row]) -> str:
    """Markdown, one set for each machine."""
    parts = []
    for own in results.by_machine(rows):
        parts += [results.environments(own), *(_set(own, data) for data in ITEMS), _passes(own)]
    return "\n\n".join(part for part in parts if part)


def _set(rows: Sequence[results.Row], data: str) -> str:
    """Mean test macro-F1 of every depth at the rate that validation chose, of `auto`, and what both cost."""
    own = [row for row in rows if row.get("set") == data]
    seeds = [seed for seed in range(SEEDS) if _complete(own, seed)]
    if not seeds:
        return ""
    chosen = {depth: [_chosen(own, seed, depth) for seed in seeds] for depth in DEPTHS}
    means = {depth: statistics.mean(row["macro_f1"] for row in found) for depth, found in chosen.items()}
    best = max(means, key=lambda depth: means[depth])
    autos = [_one(own, "auto", seed) for seed in seeds]
    by_auto = [_chosen(own, seed, auto["depth"])["macro_f1"] for seed, auto in zip(seeds, autos, strict=True)]
    differences = [a - b["macro_f1"] for a, b in zip(by_auto, chosen[best], strict=True)]
    costs = [
        (auto["seconds"] + _cost(own, seed, (auto["depth"],))) / _cost(own, seed, DEPTHS)
        for seed, auto in zip(seeds, autos, strict=True)
    ]
    lines = [
        [str(depth), f"{means[depth]:.3f}", f"{statistics.mean(_cost(own, s, (depth,)) for s in seeds):.0f}"]
        for depth in DEPTHS
    ]
    depths = ", ".join(str(auto["depth"]) for auto in autos)
    lines.append([f"auto ({depths})", f"{statistics.mean(by_auto):.3f}", f"{100 * statistics.mean(costs):.0f}% of all"])
    header = [f"{data}, {len(seeds)} seeds: frozen layers", "test macro-F1", "seconds, three rates"]
    told = f"auto less the best fixed depth ({best}): {_with_interval(differences)}"
    return f"{results.markdown(header, lines)}\n\n{told}"


def _complete(rows: Sequence[results.Row], seed: int) -> bool:
    """Whether all rows of a seed are there."""
    trained = {(row["depth"], row["factor"]) for row in rows if row["kind"] == "train" and row["seed"] == seed}
    chosen = any(row["kind"] == "auto" and row["seed"] == seed for row in rows)
    return chosen and len(trained) == len(DEPTHS) * len(FACTORS)


def _one(rows: Sequence[results.Row], kind: str, seed: int) -> results.Row:
    return next(row for row in rows if row["kind"] == kind and row["seed"] == seed)


def _at(rows: Sequence[results.Row], seed: int, depth: int) -> list[results.Row]:
    return [row for row in rows if row["kind"] == "train" and (row["seed"], row["depth"]) == (seed, depth)]


def _chosen(rows: Sequence[results.Row], seed: int, depth: int) -> results.Row:
    return max(_at(rows, seed, depth), key=lambda row: row["validation_macro_f1"])


def _cost(rows: Sequence[results.Row], seed: int, depths: Sequence[int]) -> float:
    return sum(row["seconds"] for depth in depths for row in _at(rows, seed, depth))


def _with_interval(values: Sequence[float]) -> str:
    """Mean with its 95% interval over seeds (Student's t)."""
    interval = student_interval(values)
    told = f"{statistics.mean(values):+.3f}"
    return told if interval is None else f"{told} ({interval[0]:+.3f} to {interval[1]:+.3f})"


def _passes(rows: Sequence[results.Row]) -> str:
    return "\n".join(
        f"{row['texts']:,} texts: one forward pass {row['pass_seconds']:.1f} s, probes on every layer "
        f"{row['probe_seconds']:.1f} s, {row['probe_seconds'] / row['pass_seconds']:.2f} times it (aim: less than 2)"
        for row in rows
        if row["kind"] == "pass"
    )


# ---- all rows


def train_key(data: str, seed: int, depth: int, factor: float) -> str:
    return f"train {data}, seed {seed}, depth {depth}, rate x {factor:g}, {name_of_machine()}"


def auto_key(data: str, seed: int) -> str:
    return f"auto {data}, seed {seed}, {name_of_machine()}"


def pass_key() -> str:
    return f"pass, {name_of_machine()}"


def rows() -> list[tuple[str, Callable[[], results.Row]]]:
    """Key and function of every row; a seed after the other, so that what is there can be read."""
    found: list[tuple[str, Callable[[], results.Row]]] = [(pass_key(), time_probes)]
    for seed in range(SEEDS):
        for data in ITEMS:
            found.append((auto_key(data, seed), partial(choose_one, data, seed)))
            for depth in DEPTHS:
                for factor in FACTORS:
                    one = partial(train_one, data, seed, depth, factor)
                    found.append((train_key(data, seed, depth, factor), one))
    return found


def main() -> None:
    """Run one row, or all that are missing in processes of their own, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(ITEMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--depth", type=int, choices=DEPTHS)
    parser.add_argument("--factor", type=float, choices=FACTORS, default=1.0)
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--pass", dest="passes", action="store_true")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.passes:
        results.append(PATH, time_probes())
    elif args.set and args.auto:
        results.append(PATH, choose_one(args.set, args.seed))
    elif args.set and args.depth is not None:
        results.append(PATH, train_one(args.set, args.seed, args.depth, args.factor))
    else:
        results.run_missing(PATH, [] if args.tables else rows())
        print(tables(results.read(PATH)))


if __name__ == "__main__":
    main()
