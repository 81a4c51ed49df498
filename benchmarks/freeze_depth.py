"""Does `freeze: auto` find a depth as good as the best fixed one, at a fraction of the cost of trying them all?

    python -m benchmarks.freeze_depth                                      run what is missing, print tables
    python -m benchmarks.freeze_depth --tables                             print the tables only
    python -m benchmarks.freeze_depth --set edos                           what is missing of a set
    python -m benchmarks.freeze_depth --set edos --seed 0 --depth 3        trainings at one depth
    python -m benchmarks.freeze_depth --set edos --seed 0 --auto           one choice of a depth
    python -m benchmarks.freeze_depth --pass                               probes against one forward pass

EDOS and Banking77, 2,000 training items each, 3 and 6 epochs, MiniLM, five seeds of splits and training. Every depth is
trained at two learning rates, once and three times the default of the depth, of which the validation part chooses; so
is the depth that `auto` chooses. Its cost is that of the choice; what the trainings at the chosen depth add is told
too. Trainings start from an empty store. The test part is scored once for each depth, with the model that
validation chose, and chooses nothing. All rows of a seed are of one machine. `OMP_NUM_THREADS=1` and one command for
each set use two cores better than one command does.
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
from pipelines.backbones import Backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, auto_learning_rate, load_config
from pipelines.data import load_splits
from pipelines.device import best_precision, start_accelerator
from pipelines.hidden_layers.depth import advise, probe_layers
from pipelines.intervals import student_interval
from pipelines.metrics import macro_f1
from pipelines.predict import embed, predict_logits
from pipelines.records import Splits, column, finished
from pipelines.tune import finished_model, prepare, tune

SEEDS = 5
DEPTHS = (0, 1, 2, 3, 4, 5, 6)  # of 6; 6 leaves the head
FACTORS = (1.0, 3.0)  # of the default learning rate of a depth; half of it was worse at depths 0 and 1 of seed 0
SETS = ("edos", "banking77")
ITEMS = 2_500  # a fifth of them validates
PASS_TEXTS = 14_000
STORE_BYTES = 8 << 30
PATH = results.results_file("freeze_depth")


# ---- rows


def train_depth(data: str, seed: int, depth: int) -> results.Row:
    """A training at every rate: seconds with validation; the test score of the one that validation chooses."""
    trained = [(*_train(data, seed, depth, factor), factor) for factor in FACTORS]
    validation, _, backbone, splits, factor = max(trained, key=lambda found: found[0])
    texts = column(splits.test, "text")
    predicted = predict_logits(backbone, backbone.encode(texts), best_precision()).argmax(axis=1)
    return {
        "key": train_key(data, seed, depth),
        "kind": "train",
        "set": data,
        "seed": seed,
        "depth": depth,
        "factor": factor,
        "seconds": sum(seconds for _, seconds, *_ in trained),
        "each": [
            {"factor": factor, "validation_macro_f1": score, "seconds": seconds}
            for score, seconds, _, _, factor in trained
        ],
        "validation_macro_f1": validation,
        "macro_f1": macro_f1(splits.targets(splits.test), predicted),
    } | _machine()


def _train(data: str, seed: int, depth: int, factor: float) -> tuple[float, float, Backbone, Splits]:
    """Best macro-F1 on the validation part, seconds, the model of that epoch, the splits."""
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
        score = finished(tune(trunk, splits, splits.train, config, *parts)).best_macro_f1
        seconds = time.perf_counter() - started
        backbone = finished_model(trunk)
        accelerator.free_memory()
    return score, seconds, backbone, splits


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
    most = [f"data.max_train_items={items or ITEMS}", "data.validation=0.2"]
    options = [f"training.seed={seed}", f"backbone.freeze={freeze}"]
    config = load_config(CONFIGS / f"{data}.yaml", [*path_overrides(data), *most, *options])
    return config, load_splits(config.data, seed)


def _machine() -> dict[str, Any]:
    return {"machine": name_of_machine(), "threads": torch.get_num_threads(), "versions": results.versions()}


# ---- tables


def tables(rows: Sequence[results.Row]) -> str:
    """Markdown."""
    parts = [results.environments(rows), *(_set(rows, data) for data in SETS), _passes(rows)]
    return "\n\n".join(part for part in parts if part)


def _set(rows: Sequence[results.Row], data: str) -> str:
    """Mean test macro-F1 of every depth at the rate that validation chose, of `auto`, and what both cost."""
    seeds = [own for seed in range(SEEDS) if (own := _complete(rows, data, seed))]
    if not seeds:
        return ""
    means = {depth: statistics.mean(own[depth]["macro_f1"] for own in seeds) for depth in DEPTHS}
    seconds = {depth: statistics.mean(own[depth]["seconds"] for own in seeds) for depth in DEPTHS}
    best = max(means, key=lambda depth: means[depth])
    by_auto = [own[own["auto"]["depth"]] for own in seeds]
    differences = [row["macro_f1"] - own[best]["macro_f1"] for row, own in zip(by_auto, seeds, strict=True)]
    lines = [[str(depth), f"{means[depth]:.3f}", f"{seconds[depth]:.0f}"] for depth in DEPTHS]
    choice = statistics.mean(own["auto"]["seconds"] for own in seeds)
    chosen = ", ".join(str(own["auto"]["depth"]) for own in seeds)
    lines.append([f"auto ({chosen})", f"{statistics.mean(row['macro_f1'] for row in by_auto):.3f}", f"{choice:.0f}"])
    shares = [own["auto"]["seconds"] / _all_seconds(own) for own in seeds]
    whole = [
        (own["auto"]["seconds"] + row["seconds"]) / _all_seconds(own) for row, own in zip(by_auto, seeds, strict=True)
    ]
    header = [f"{data}, {len(seeds)} seeds: frozen layers", "test macro-F1", "seconds"]
    told = (
        f"auto less the best fixed depth ({best}): {_with_interval(differences)}; its choice costs "
        f"{_shares(shares)} of trying all depths, {_shares(whole)} with the trainings at the chosen one"
    )
    return f"{results.markdown(header, lines)}\n\n{told}"


def _complete(rows: Sequence[results.Row], data: str, seed: int) -> dict[int | str, results.Row]:
    """Rows of a seed by depth, and of its choice, from the first machine that has all of them; or none."""
    for own in results.by_machine(rows):
        found = [row for row in own if (row.get("set"), row.get("seed")) == (data, seed)]
        by_depth = {"auto" if row["kind"] == "auto" else row["depth"]: row for row in found}
        if len(by_depth) == len(DEPTHS) + 1:
            return by_depth
    return {}


def _all_seconds(own: dict[int | str, results.Row]) -> float:
    return sum(float(own[depth]["seconds"]) for depth in DEPTHS)


def _shares(values: Sequence[float]) -> str:
    return f"{100 * statistics.mean(values):.0f}% ({100 * min(values):.0f}–{100 * max(values):.0f}%)"


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


def train_key(data: str, seed: int, depth: int) -> str:
    return f"train {data}, seed {seed}, depth {depth}, {name_of_machine()}"


def auto_key(data: str, seed: int) -> str:
    return f"auto {data}, seed {seed}, {name_of_machine()}"


def pass_key() -> str:
    return f"pass, {name_of_machine()}"


def missing(sets: Sequence[str]) -> list[tuple[str, Callable[[], results.Row]]]:
    """Key and function of the rows of every seed that no machine has completed, a seed after the other."""
    done = results.read(PATH)
    found: list[tuple[str, Callable[[], results.Row]]] = []
    for seed in range(SEEDS):
        for data in sets:
            if not _complete(done, data, seed):
                found.append((auto_key(data, seed), partial(choose_one, data, seed)))
                found += [(train_key(data, seed, depth), partial(train_depth, data, seed, depth)) for depth in DEPTHS]
    return found


def main() -> None:
    """Run one row, or all that are missing in processes of their own, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--depth", type=int, choices=DEPTHS)
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--pass", dest="passes", action="store_true")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.passes:
        results.append(PATH, time_probes())
    elif args.set and args.seed is not None and args.auto:
        results.append(PATH, choose_one(args.set, args.seed))
    elif args.set and args.seed is not None and args.depth is not None:
        results.append(PATH, train_depth(args.set, args.seed, args.depth))
    else:
        if not args.tables:
            results.run_missing(PATH, missing([args.set] if args.set else SETS))
        print(tables(results.read(PATH)))


if __name__ == "__main__":
    main()
