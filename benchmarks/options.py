"""What each option of training gains or loses where classes are uneven: EDOS, 4 and 11 kinds of sexism, three seeds.

    python -m benchmarks.options                                              run what is missing, print the tables
    python -m benchmarks.options --tables                                     print the tables only
    python -m benchmarks.options --set edos-vectors --option focal-loss --seed 0      one training

Every row is one training of `configs/SET.yaml` with one option changed; the base has class weights, two frozen layers
and the default learning rate of its depth. The best epoch is chosen on the official dev part; the test part is scored
once for each row and chooses nothing. Seeds choose initial heads, batches and dropout. Distillation rows have the depth
of `configs/edos-distilled.yaml`, and a student alone of that depth beside them. Seconds are those of training,
tokenization, hidden states and the teacher's answers included, validation not. Rows of few bits run where bitsandbytes
is installed; it is made for GPUs.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.machine import name as name_of_machine
from benchmarks.sets import CONFIGS, data_file
from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, load_config
from pipelines.data import load_splits
from pipelines.device import best_precision, start_accelerator
from pipelines.distillation import lesson_of, teacher_of
from pipelines.intervals import student_interval
from pipelines.memory import PeakMemory
from pipelines.metrics import macro_f1
from pipelines.predict import predict_logits
from pipelines.records import column, finished
from pipelines.run import finetune
from pipelines.tune import finished_model, prepare, tune, with_rate

SETS = {"edos-categories": "4 classes", "edos-vectors": "11 classes"}
SEEDS = (0, 1, 2)
BASE = "class-weights"
ALONE = "student-alone"
OPTIONS: dict[str, list[str]] = {
    BASE: [],
    "nothing": ["training.class_weights=none"],
    "focal-loss": ["training.class_weights=none", "training.loss=focal"],
    "oversampling": ["training.class_weights=none", "training.oversampling=balanced"],
    "label-smoothing": ["training.class_weights=none", "training.label_smoothing=0.1"],
    "weights-and-smoothing": ["training.label_smoothing=0.1"],
    "layer-decay": ["training.layer_decay=0.8"],
    "unfreeze-epoch": ["training.unfreeze=epoch", "training.unfreeze_layers=2"],
    "unfreeze-stall": ["training.unfreeze=stall", "training.unfreeze_layers=2"],
    "unfreeze-and-decay": ["training.unfreeze=epoch", "training.unfreeze_layers=2", "training.layer_decay=0.8"],
    "lora": ["adapter.type=lora"],
    "rslora": ["adapter.type=rslora"],
    "dora": ["adapter.type=dora"],
    "lora-8bit": ["adapter.type=lora", "backbone.quantize=8bit"],
    "lora-4bit": ["adapter.type=lora", "backbone.quantize=4bit"],
    "gradient-checkpointing": ["training.gradient_checkpointing=true"],
    ALONE: ["backbone.freeze=5"],
    "student-taught": ["backbone.freeze=5"],
    "student-taught-unlabelled": ["backbone.freeze=5"],
}
STORE_BYTES = 8 << 30
PATH = results.results_file("options")


# ---- rows


def train_one(data: str, option: str, seed: int) -> results.Row:
    """One training: seconds, memory, scores."""
    with tempfile.TemporaryDirectory() as folder:
        place, precision = Path(folder), best_precision()
        config = _config(data, option, seed, place)
        splits = load_splits(config.data, seed)
        store = ActivationStore(place / "store", STORE_BYTES)
        lesson = None
        if config.distill is not None:
            teacher = teacher_of(config, splits)
            assert teacher is not None
            lesson = lesson_of(config, teacher, splits, precision)
        accelerator = start_accelerator(precision, (), place)
        trunk = prepare(config, splits.labels, None)
        config = with_rate(config, trunk.frozen_share)
        parts = accelerator, precision, Checkpoints(place / "checkpoints"), lambda: False, store, lesson
        with PeakMemory() as peak:
            progress = finished(tune(trunk, splits, splits.train, config, *parts))
        backbone = finished_model(trunk)
        texts = column(splits.test, "text")
        predicted = predict_logits(backbone, backbone.encode(texts), precision).argmax(axis=1)
    return {
        "key": key_of(data, option, seed),
        "set": data,
        "option": option,
        "seed": seed,
        "macro_f1": macro_f1(splits.targets(splits.test), predicted),
        "validation_macro_f1": progress.best_macro_f1,
        "seconds": progress.seconds + (0.0 if lesson is None else lesson.seconds),
        "peak_memory_bytes": peak.bytes,
        "machine": name_of_machine(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "versions": results.versions(),
    }


def _config(data: str, option: str, seed: int, place: Path) -> RunConfig:
    """The config of a row; a taught student's teacher is trained first, on the same items."""
    path = str(data_file("edos"))
    files = [f"data.{part}.path={path}" for part in ("train", "validation", "test")]
    base = [*files, f"training.seed={seed}", "training.imbalance=none"]
    if option.startswith("student-taught"):
        run = place / "teacher"
        plain = ["backbone.freeze=none", "baselines=[]", f"output={run}"]
        results.run_apart(_train_teacher, load_config(CONFIGS / f"{data}.yaml", [*base, *plain]), run)
        base.append(f"distill.teacher={run}")
        if option.endswith("unlabelled"):
            base += [f"distill.unlabelled.path={path}", "distill.unlabelled.where.split=train"]
            base.append("distill.unlabelled.where.label_sexist=not sexist")
    return load_config(CONFIGS / f"{data}.yaml", [*base, *OPTIONS[option]])


def _train_teacher(config: RunConfig, run: Path) -> None:
    list(finetune(config, run))


# ---- tables


def tables(rows: Sequence[results.Row]) -> str:
    """Markdown, one set for each machine."""
    parts = []
    for own in results.by_machine(rows):
        parts += [results.environments(own), *(_set(own, data) for data in SETS)]
    return "\n\n".join(part for part in parts if part)


def _set(rows: Sequence[results.Row], data: str) -> str:
    """Mean test macro-F1 of every option, and its difference to class weights, or to the student alone, by seed."""
    found = {(row["option"], row["seed"]): row for row in rows if row["set"] == data}
    lines = []
    for option in OPTIONS:
        seeds = [seed for seed in SEEDS if (option, seed) in found]
        other = ALONE if option.startswith("student-taught") else BASE
        both = [seed for seed in seeds if (other, seed) in found]
        if not seeds:
            continue
        scores = [found[option, seed]["macro_f1"] for seed in seeds]
        gains = [100 * (found[option, seed]["macro_f1"] - found[other, seed]["macro_f1"]) for seed in both]
        validation = statistics.mean(found[option, seed]["validation_macro_f1"] for seed in seeds)
        seconds = statistics.median(found[option, seed]["seconds"] for seed in seeds)
        memory = statistics.median(found[option, seed]["peak_memory_bytes"] for seed in seeds) / 2**20
        gained = "" if option == other else _with_interval(gains)
        spread = f"{min(scores):.3f}–{max(scores):.3f}"
        lines.append(
            [option, f"{statistics.mean(scores):.3f} ({spread})", gained, f"{validation:.3f}", f"{seconds:.0f}",
             f"{memory:,.0f}"]
        )  # fmt: skip
    header = [f"EDOS, {SETS[data]}", "test macro-F1 (seeds)", "gain, points", "validation", "seconds", "MiB"]
    return results.markdown(header, lines) if lines else ""


def _with_interval(gains: Sequence[float]) -> str:
    """Mean with its 95% interval over seeds (Student's t)."""
    interval = student_interval(gains)
    told = f"{statistics.mean(gains):+.1f}" if gains else ""
    return told if interval is None else f"{told} ({interval[0]:+.1f} to {interval[1]:+.1f})"


# ---- all rows


def key_of(data: str, option: str, seed: int) -> str:
    return f"{data}, {option}, seed {seed}, {name_of_machine()}"


def main() -> None:
    """Run one row, or all that are missing in processes of their own, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=list(SETS))
    parser.add_argument("--option", choices=list(OPTIONS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.set and args.option:
        results.append(PATH, train_one(args.set, args.option, args.seed))
        return
    few_bits = importlib.util.find_spec("bitsandbytes") is not None
    options = [option for option, changes in OPTIONS.items() if few_bits or "quantize" not in " ".join(changes)]
    wanted = [(data, option, seed) for seed in SEEDS for data in SETS for option in options]
    missing = [] if args.tables else [(key_of(*row), partial(train_one, *row)) for row in wanted]
    results.run_missing(PATH, missing)
    print(tables(results.read(PATH)))


if __name__ == "__main__":
    main()
