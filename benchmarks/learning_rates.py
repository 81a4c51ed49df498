"""Which learning rate suits which frozen share: the evidence behind `config.auto_learning_rate`.

    python -m benchmarks.learning_rates                                  run what is missing, print the table
    python -m benchmarks.learning_rates --setting lora-2 --rate 8e-4     one row

2,000 EDOS training texts (configs/edos.yaml), three epochs, one seed; scored on the official dev part, never on test.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.sets import CONFIG, data_file, path_overrides
from pipelines import lora
from pipelines.backbones import load_text_backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import load_config
from pipelines.data import load_splits
from pipelines.device import resolve_precision, start_accelerator
from pipelines.encoded import Encoded
from pipelines.loop import TrainingData
from pipelines.records import Validation, column
from pipelines.train import train
from pipelines.trunk import Trunk

SETTINGS: dict[str, tuple[Any, str]] = {"lora-2": (2, "lora"), "head": ("all", "none")}  # freeze, adapter
RATES: dict[str, tuple[float, ...]] = {"lora-2": (3e-4, 8e-4, 2e-3), "head": (1e-3, 3e-3, 1e-2)}


def best_on_dev(setting: str, rate: float) -> float:
    """Best macro-F1 on the dev part over the epochs of one run."""
    freeze, adapter = SETTINGS[setting]
    dev = [f"data.validation.path={json.dumps(str(data_file('edos')))}", "data.validation.where.split=dev"]
    options = [f"backbone.freeze={freeze}", f"adapter.type={adapter}", f"training.learning_rate={rate}"]
    config = load_config(CONFIG, [*path_overrides("edos"), *dev, *options])
    splits = load_splits(config.data, config.training.seed)
    backbone = load_text_backbone(config.backbone, splits.labels, config.data.max_length, config.training.seed)
    trunk = Trunk(backbone, freeze)
    if adapter == "lora":
        lora.attach(trunk, config.adapter)
    precision = resolve_precision("auto")
    training, validation = (
        TrainingData(Encoded(backbone, backbone.encode(column(part, "text"))), splits.targets(part))
        for part in (splits.train, splits.validation)
    )
    with tempfile.TemporaryDirectory() as scratch:
        accelerator = start_accelerator(precision, (), Path(scratch))
        checkpoints = Checkpoints(Path(scratch) / "checkpoints")
        data = (training, validation)
        events = train(trunk, *data, config.training, accelerator, precision, checkpoints, None, lambda: False)
        return max(event.macro_f1 for event in events if isinstance(event, Validation))


def table(rows: list[results.Row]) -> str:
    """Markdown: one line per setting and rate."""
    lines = [[row["setting"], f"{row['rate']:g}", f"{row['dev_macro_f1']:.3f}"] for row in rows]
    return results.markdown(["setting", "learning rate", "best macro-F1 on dev"], lines)


def main() -> None:
    """Run one row, or all that are missing in processes of their own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=list(SETTINGS))
    parser.add_argument("--rate", type=float)
    args = parser.parse_args()
    path = results.results_file("learning_rates")
    if args.setting:
        row = {"setting": args.setting, "rate": args.rate, "dev_macro_f1": best_on_dev(args.setting, args.rate)}
        results.append(path, {"key": f"{args.setting}, {args.rate:g}"} | row | {"versions": results.versions()})
        return
    for setting, rates in RATES.items():
        for rate in rates:
            if not results.has(path, f"{setting}, {rate:g}"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.learning_rates",
                    "--setting",
                    setting,
                    "--rate",
                    f"{rate:g}",
                ]
                subprocess.run(command, check=True)
    print(table(results.read(path)))


if __name__ == "__main__":
    main()
