"""Macro-F1 of fine-tuning and of every baseline on the official EDOS test part, from 2,000 training items, three seeds.

    python -m benchmarks.quality_edos             run the seeds that are missing, print the tables
    python -m benchmarks.quality_edos --seed 0    one seed

A seed is one `rootstock finetune configs/edos.yaml --set training.seed=SEED`: it chooses the 2,000 items (a tenth of
which become the validation part), the batches and the bootstrap. What is recorded comes from the run's report.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.edos import CONFIG, path_overrides

SEEDS = (0, 1, 2)
TUNED = "fine-tuned"
RIVALS = ("logistic-regression-manual", "logistic-regression-tfidf")


def run_seed(seed: int, runs: Path, path: Path, overrides: list[str]) -> None:
    """Fine-tune and record every system. A finished run directory is read, an unfinished one resumed.

    Args:
        seed: of the run.
        runs: folder for the run directories.
        path: results file.
        overrides: further KEY=VALUE for `--set`; use another results file with these.
    """
    out = runs / f"edos-seed{seed}"
    if not (out / "report.json").is_file():
        options = [word for key in [f"training.seed={seed}", *path_overrides(), *overrides] for word in ("--set", key)]
        command = ["finetune", str(CONFIG), *options, "--out", str(out), "--resume"]
        subprocess.run([sys.executable, "-m", "service.cli", *command], check=True, stdout=sys.stderr)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    for row in rows_of(report, seed):
        results.append(path, row)


def rows_of(report: dict[str, Any], seed: int) -> list[results.Row]:
    """One row per system: macro-F1 (0 to 1) with its 95% interval. Fine-tuning comes last."""
    shared = {name: report[name] for name in ("n_train", "n_validation", "n_test", "precision", "freeze_sentence")}
    rows = [
        {
            "key": _key(system["name"], seed),
            "seed": seed,
            "system": system["name"],
            "macro_f1": system["metrics"]["macro_f1"],
            "macro_f1_ci": system["metrics"]["macro_f1_ci"],
            **shared,
            "versions": results.versions(),
        }
        for system in report["systems"]
    ]
    return sorted(rows, key=lambda row: row["system"] == TUNED)


def _key(system: str, seed: int) -> str:
    return f"{system}, seed {seed}"


# ---- tables


def systems_table(rows: list[results.Row]) -> str:
    """Markdown: mean macro-F1 over seeds, then each seed's with its 95% interval."""
    seeds = sorted({row["seed"] for row in rows})
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = {row["seed"]: row for row in rows if row["system"] == system}
        lines.append(
            [
                system,
                f"{statistics.mean(row['macro_f1'] for row in own.values()):.3f}",
                *(_with_interval(own[seed]) if seed in own else "–" for seed in seeds),
            ]
        )
    return results.markdown(["system", "macro-F1, mean", *(f"seed {seed} (95% interval)" for seed in seeds)], lines)


def _with_interval(row: results.Row) -> str:
    low, high = row["macro_f1_ci"]
    return f"{row['macro_f1']:.3f} ({low:.3f}–{high:.3f})"


def gain_table(rows: list[results.Row]) -> str:
    """Markdown: fine-tuning less the better of RIVALS *on test*, in points of macro-F1, per seed and mean.

    Choosing the rival on test favours the rival, so the gain is not flattered.
    """
    lines, gains = [], []
    for seed in sorted({row["seed"] for row in rows}):
        scores = {row["system"]: row["macro_f1"] for row in rows if row["seed"] == seed}
        rivals = [name for name in RIVALS if name in scores]
        if TUNED not in scores or not rivals:
            continue
        rival = max(rivals, key=scores.__getitem__)
        gains.append(100 * (scores[TUNED] - scores[rival]))
        lines.append([f"{seed}", rival, f"{gains[-1]:+.1f}"])
    if gains:
        lines.append(["mean", "", f"{statistics.mean(gains):+.1f}"])
    return results.markdown(["seed", "better of manual and tf-idf", "fine-tuned less that, points"], lines)


def main() -> None:
    """Run one seed, or all that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, help="run only this seed")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="override a config key")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="folder for the run directories")
    parser.add_argument("--results", type=Path, default=results.results_file("quality_edos"), help="JSONL file")
    args = parser.parse_args()
    for seed in SEEDS if args.seed is None else (args.seed,):
        if not results.has(args.results, _key(TUNED, seed)):
            run_seed(seed, args.runs, args.results, args.set)
    if args.seed is None:
        rows = results.read(args.results)
        print(f"{systems_table(rows)}\n\n{gain_table(rows)}")


if __name__ == "__main__":
    main()
