"""Training seconds of Rootstock and of `transformers.Trainer`, on the same texts.

    python -m benchmarks.training_speed                          run what is missing, print the table
    python -m benchmarks.training_speed --row ours --repeat 0    one row

Three rows: `ours` (model, frozen layers and recipe of configs/edos.yaml), `trainer-default` (out of the box: fp32, all
layers, random batches padded to their longest text) and `trainer-tuned` (batches grouped by length, bf16 where it is
fast, the same frozen parameters). All have the same 2,000 texts cut at 256 tokens, weights, batch size, epochs and
hence optimizer steps; each run is a process of its own, the rows take turns, and no two run at once.

Seconds: tokenization + first batch to last optimizer step. Model loading, validation and saving are left out; only
`ours` validates (on 1,000 texts of the official dev part), because its loop keeps the best epoch.

Macro-F1 guards against speed bought with quality: a fixed sample of 1,000 texts of the official test part, scored by
the same code in each row's own precision; the training seed is the repeat's number. `trainer-default` gets Rootstock's
learning rate for an unfrozen model, as its own default (5e-5) is low for so few steps; `trainer-tuned` gets all of
Rootstock's recipe: rate, warmup, weight decay and class weights. One difference stays: Trainer leaves dropout on in
frozen layers.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks import results
from benchmarks.sets import CONFIG, data_file, path_overrides
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, TrainingConfig, auto_learning_rate, load_config
from pipelines.data import load_splits
from pipelines.device import Precision, best_precision, device, start_accelerator
from pipelines.encoded import Encoded
from pipelines.metrics import macro_f1
from pipelines.predict import predict_logits
from pipelines.records import IntArray, Splits, column
from pipelines.train import TrainingData, class_weights, train
from pipelines.trunk import Freeze, Trunk

ITEMS, EPOCHS, REPEATS = 2000, 3, 3
SCORED = 1000  # texts of the official dev and of the official test part
DATA_SEED = 0  # of the choice of texts, the same for all rows and repeats


@dataclass(frozen=True)
class Run:
    """One training run: its frozen part, precision, recipe and the encoded texts."""

    trunk: Trunk
    precision: Precision
    config: TrainingConfig
    training: TrainingData
    validation: TrainingData


@dataclass(frozen=True)
class System:
    """A row of the table."""

    train: Callable[[Run], float]  # returns seconds
    freeze: Freeze | None  # None: as the config says
    precision: Precision | None  # None: the fastest here


# ---- the three systems; each trains in place and returns seconds from the first batch to the last optimizer step


def train_ours(run: Run) -> float:
    """Rootstock's own loop; validation and checkpoints are outside its clock."""
    with tempfile.TemporaryDirectory() as scratch:
        accelerator = start_accelerator(run.precision, (), Path(scratch))
        checkpoints = Checkpoints(Path(scratch) / "checkpoints")
        events = train(
            run.trunk, run.training, run.validation, run.config, accelerator, run.precision, checkpoints, lambda: False
        )
        while True:
            try:
                next(events)
            except StopIteration as end:
                return float(end.value.seconds)


def train_default(run: Run) -> float:
    """Trainer out of the box, but for the learning rate."""
    return _train_trainer(run)


def train_tuned(run: Run) -> float:
    """Trainer at its best known settings, with Rootstock's recipe."""
    config, targets = run.config, run.training.targets
    weights = torch.tensor(
        class_weights(targets, len(run.trunk.backbone.labels), config.class_weights), dtype=torch.float32
    ).to(device())

    def weighted_loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs.logits.float(), labels, weight=weights)

    steps = -(-len(targets) // config.batch_size) * config.epochs
    return _train_trainer(
        run,
        weighted_loss,
        train_sampling_strategy="group_by_length",
        bf16=run.precision == "bf16",
        fp16=run.precision == "fp16",
        warmup_steps=round(config.warmup_frac * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
    )


def _train_trainer(run: Run, loss: Callable[..., torch.Tensor] | None = None, **options: Any) -> float:
    rows = [
        {"input_ids": ids, "labels": int(target)}
        for ids, target in zip(run.training.items.encodings, run.training.targets, strict=True)
    ]
    backbone, clock = run.trunk.backbone, _Clock()
    assert isinstance(backbone, TextBackbone)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=run.config.epochs,
            per_device_train_batch_size=run.config.batch_size,
            learning_rate=run.config.learning_rate,
            seed=run.config.seed,
            use_cpu=device().type == "cpu",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **options,
        )
        Trainer(
            model=backbone.model,
            args=arguments,
            train_dataset=rows,
            processing_class=backbone.tokenizer,  # its default collator pads each batch
            compute_loss_func=loss,
            callbacks=[clock],
        ).train()
    return clock.last_step - clock.begin


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Times, in seconds, of the first batch and of the end of the last optimizer step."""

    begin = last_step = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begin = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.last_step = time.perf_counter()


SYSTEMS = {
    "ours": System(train_ours, None, None),
    "trainer-default": System(train_default, "none", "fp32"),
    "trainer-tuned": System(train_tuned, None, None),
}


# ---- one row


def measure(name: str, repeat: int, items: int, epochs: int) -> results.Row:
    """Train one system once.

    Args:
        name: a key of SYSTEMS.
        repeat: also the training seed.
        items: training texts.
        epochs: passes over them.

    Returns:
        The row: seconds, peak RSS in MiB up to the end of training, macro-F1 from 0 to 1, and what it was run with.
    """
    system, config = SYSTEMS[name], _config(items)
    splits = load_splits(config.data, DATA_SEED)
    assert len(splits.train) == items
    backbone = load_text_backbone(config.backbone, splits.labels, config.data.max_length, seed=repeat)
    trunk = Trunk(backbone, config.backbone.freeze if system.freeze is None else system.freeze)
    precision = system.precision or best_precision()
    rate = auto_learning_rate(trunk.frozen_share, lora=False)
    recipe = config.training.model_copy(update={"epochs": epochs, "seed": repeat, "learning_rate": rate})

    validation = _encoded(backbone, splits, _sample(splits.validation))
    rss_before = _peak_rss()
    started = time.perf_counter()
    training = _encoded(backbone, splits, splits.train)
    tokenization = time.perf_counter() - started
    seconds = system.train(Run(trunk, precision, recipe, training, validation))
    rss = _peak_rss()

    test = _encoded(backbone, splits, _sample(splits.test))
    predicted = predict_logits(backbone, test.items.encodings, precision).argmax(axis=1)
    return {
        "key": _key(name, repeat, items, epochs),
        "row": name,
        "repeat": repeat,
        "items": items,
        "epochs": epochs,
        "batch_size": recipe.batch_size,
        "frozen_layers": trunk.depth,
        "learning_rate": rate,
        "precision": precision,
        "seconds": tokenization + seconds,
        "tokenization_seconds": tokenization,
        "peak_rss_mib": rss,
        "peak_rss_before_training_mib": rss_before,
        "macro_f1": macro_f1(test.targets, predicted),
        "scored": len(test.targets),
        "threads": torch.get_num_threads(),
        "device": _device_name(),
        "versions": results.versions(),
    }


def _config(items: int) -> RunConfig:
    """configs/edos.yaml with `items` texts for training and the official dev part for validation."""
    validation = json.dumps({"path": str(data_file("edos")), "where": {"split": "dev"}})
    overrides = [*path_overrides("edos"), f"data.validation={validation}", f"data.max_train_items={items}"]
    return load_config(CONFIG, overrides)


def _sample(part: Dataset) -> Dataset:
    """The same SCORED items every time."""
    chosen = np.random.default_rng(DATA_SEED).choice(len(part), SCORED, replace=False)
    return part.select(np.sort(chosen))


def _encoded(backbone: Backbone, splits: Splits, part: Dataset) -> TrainingData:
    targets: IntArray = splits.targets(part)
    return TrainingData(Encoded(backbone, backbone.encode(column(part, "text"))), targets)


def _peak_rss() -> float:
    """Largest resident set of this process so far, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _device_name() -> str:
    if device().type == "cuda":
        return str(torch.cuda.get_device_name())
    return f"{device().type} {torch.backends.cpu.get_cpu_capability()}"


def _key(name: str, repeat: int, items: int, epochs: int) -> str:
    return f"{name}, {items} texts, {epochs} epochs, repeat {repeat}"


# ---- all rows


def run_missing(path: Path, repeats: int, items: int, epochs: int) -> None:
    """Run every row that is not in the file, each in a new process, the systems taking turns."""
    for repeat in range(repeats):
        for name in SYSTEMS:
            if results.has(path, _key(name, repeat, items, epochs)):
                continue
            print(f"running {name}, repeat {repeat}", file=sys.stderr)
            command = ["--row", name, "--repeat", repeat, "--items", items, "--epochs", epochs, "--results", path]
            subprocess.run(
                [sys.executable, "-m", "benchmarks.training_speed", *map(str, command)], check=True, stdout=sys.stderr
            )


def table(rows: list[results.Row]) -> str:
    """Markdown: one line per system; ratios are to `ours` of the same repeat."""
    ours = {row["repeat"]: row["seconds"] for row in rows if row["row"] == "ours"}
    lines = []
    for name in SYSTEMS:
        runs = [row for row in rows if row["row"] == name]
        if not runs:
            continue
        seconds = [row["seconds"] for row in runs]
        ratios = [row["seconds"] / ours[row["repeat"]] for row in runs if row["repeat"] in ours]
        lines.append(
            [
                name,
                str(len(runs)),
                _median_and_range(seconds, 1),
                _median_and_range(ratios, 2),
                f"{statistics.median(row['peak_rss_mib'] for row in runs):,.0f}",
                f"{statistics.mean(row['macro_f1'] for row in runs):.3f}",
                "/".join(sorted({row["precision"] for row in runs})),
                "/".join(sorted({str(row["threads"]) for row in runs})),
                "/".join(sorted({str(row["frozen_layers"] or "none") for row in runs})),
            ]
        )
    header = [
        "system",
        "runs",
        "seconds, median (range)",
        "times `ours` of the same repeat, median (range)",
        "peak RSS, MiB",
        f"macro-F1 on {SCORED:,} test texts, mean",
        "precision",
        "threads",
        "frozen layers",
    ]
    return f"{results.markdown(header, lines)}\n\n{_environments(rows)}"


def _median_and_range(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _environments(rows: list[results.Row]) -> str:
    """Device and versions, one line for each combination among the rows."""
    found = {
        f"{row['device']}; " + ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        for row in rows
    }
    return "\n".join(sorted(found))


def main() -> None:
    """Run one row, or all that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=list(SYSTEMS), help="run only this system")
    parser.add_argument("--repeat", type=int, default=0, help="number of the repeat with --row; also the training seed")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="how many, without --row")
    parser.add_argument("--items", type=int, default=ITEMS, help="training texts")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--results", type=Path, default=results.results_file("training_speed"), help="JSONL file")
    args = parser.parse_args()
    if args.row is None:
        run_missing(args.results, args.repeats, args.items, args.epochs)
        rows = results.read(args.results)
        print(table([row for row in rows if (row["items"], row["epochs"]) == (args.items, args.epochs)]))
    elif not results.has(args.results, _key(args.row, args.repeat, args.items, args.epochs)):
        results.append(args.results, measure(args.row, args.repeat, args.items, args.epochs))


if __name__ == "__main__":
    main()
