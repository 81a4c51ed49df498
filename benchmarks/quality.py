"""Quality on three public sets, three seeds: the ladder, calibration, thresholds; and what a general stage gives.

    python -m benchmarks.quality                              run the rows that are missing, print the tables
    python -m benchmarks.quality --row edos --seed 0          one row
    python -m benchmarks.quality --tables                     print the tables only

A row is one `rootstock finetune configs/SET.yaml --set training.seed=SEED`: the seed chooses the training items, the
split, the batches and the bootstrap. `edos-after-davidson` continues the Davidson run of the same seed on the items of
the row `edos`. What is recorded comes from the run's report.json.
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
from benchmarks.sets import CONFIGS, path_overrides
from pipelines.weights import sha256_file

SEEDS = (0, 1, 2)
ROWS = ("edos", "davidson", "banking77", "edos-after-davidson")
TEXT_FEATURES = ("logistic-regression-manual", "logistic-regression-tfidf")


def run_row(name: str, seed: int, runs: Path, path: Path) -> None:
    """Fine-tune and record. A finished run directory is read, an unfinished one resumed.

    Args:
        name: of the row.
        seed: of the run.
        runs: folder for the run directories.
        path: results file.
    """
    out = runs / f"{name}-seed{seed}-{config_digest(name)}"
    if not (out / "report.json").is_file():
        data = name.split("-")[0]
        overrides = [f"training.seed={seed}", *path_overrides(data)]
        if name == "edos-after-davidson":
            run_row("davidson", seed, runs, path)
            start = runs / f"davidson-seed{seed}-{config_digest('davidson')}"
            overrides.append(f"start_from={json.dumps(str(start))}")
        options = [word for override in overrides for word in ("--set", override)]
        command = ["finetune", str(CONFIGS / f"{data}.yaml"), *options, "--out", str(out), "--resume"]
        subprocess.run([sys.executable, "-m", "service.cli", *command], check=True, stdout=sys.stderr)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    results.append(path, row_of(report, name, seed))


def row_of(report: dict[str, Any], name: str, seed: int) -> results.Row:
    """What is kept of a report."""
    shared = ("n_train", "n_validation", "n_test", "precision", "freeze_sentence", "main", "verdict")
    points = [point for point in report["operating_points"]["points"] if point["threshold"] is not None]
    calibration = report["calibration"]
    return {
        "key": key_of(name, seed),
        "set": name,
        "seed": seed,
        "config": config_digest(name),
        **{field: report[field] for field in shared},
        "systems": {
            s["name"]: {k: s["metrics"][k] for k in ("macro_f1", "macro_f1_ci", "accuracy")} for s in report["systems"]
        },
        "comparisons": [c for c in report["comparisons"] if c["system"] == report["main"]],
        "calibration": {
            "temperature": calibration["temperature"],
            **{when: {k: calibration[when][k] for k in ("ece", "ece_ci")} for when in ("before", "after")},
        },
        "thresholds": [
            {"class": p["class"], "wanted": p["wanted"], "aim": p["aim"], "holds": p["test"]["holds"]} for p in points
        ],
        "thresholds_wanted": len(report["operating_points"]["points"]),
        "versions": results.versions(),
    }


def config_digest(name: str) -> str:
    """First digits of the sha256 of a row's config: a run or row of another config is not taken for it."""
    return sha256_file(CONFIGS / f"{name.split('-')[0]}.yaml")[:8]


def key_of(name: str, seed: int) -> str:
    return f"{name}, seed {seed}"


# ---- tables


def systems_table(rows: list[results.Row]) -> str:
    """Macro-F1 of every system: mean over seeds, then each seed with its 95% interval."""
    lines = []
    for system in dict.fromkeys(name for row in rows for name in row["systems"]):
        scores = [row["systems"][system] for row in rows]
        mean = statistics.mean(score["macro_f1"] for score in scores)
        lines.append([system, f"{mean:.3f}", *(_with_interval(s["macro_f1"], s["macro_f1_ci"]) for s in scores)])
    return results.markdown(["system", "mean", *(f"seed {row['seed']}" for row in rows)], lines)


def gains_table(rows: list[results.Row]) -> str:
    """The main system less the better text-feature regression and less embeddings, in points, paired intervals.

    The better of manual features and TF-IDF is chosen *on test*, which favours it; the verdict's rival is not.
    """
    lines = []
    for row in rows:
        own = {c["baseline"]: c for c in row["comparisons"]}
        text = min((own[name] for name in own if name.startswith(TEXT_FEATURES)), key=lambda c: c["difference"])
        embeddings = min((own[n] for n in own if "embeddings" in n), key=lambda c: c["difference"])
        cells = [f"{text['baseline'].removeprefix('logistic-regression-')} {_gain(text)}", _gain(embeddings)]
        lines.append([key_of(row["set"], row["seed"]), *cells, row["verdict"]["worth_it"]])
    return results.markdown(["run", "over text features", "over embeddings", "worth it"], lines)


def calibration_table(rows: list[results.Row]) -> str:
    """Expected calibration error on test before and after temperature scaling, with 95% intervals."""
    lines = []
    for row in rows:
        c = row["calibration"]
        errors = [_with_interval(c[when]["ece"], c[when]["ece_ci"]) for when in ("before", "after")]
        scaled = c["temperature"] != 1.0
        lines.append(
            [
                key_of(row["set"], row["seed"]),
                errors[0],
                errors[1] if scaled else "scaling off",
                f"{c['temperature']:.2f}",
            ]
        )
    return results.markdown(["run", "before", "after", "temperature"], lines)


def thresholds_table(rows: list[results.Row]) -> str:
    """How many wanted precisions and recalls could be promised on validation, and how many hold on test."""
    lines, found, held = [], 0, 0
    for row in rows:
        own = [t["holds"] for t in row["thresholds"] if t["holds"] is not None]
        found, held = found + len(own), held + sum(own)
        lines.append([key_of(row["set"], row["seed"]), f"{row['thresholds_wanted']}", f"{len(own)}", f"{sum(own)}"])
    share = f"{held} ({100 * held / max(1, found):.0f}%)"
    lines.append(["all", "", f"{found}", share])
    return results.markdown(["run", "wanted", "promised on validation", "hold on test"], lines)


def _with_interval(value: float, interval: list[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"


def _gain(comparison: dict[str, Any]) -> str:
    low, high = comparison["difference_ci"]
    return f"{100 * comparison['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def tables(rows: list[results.Row]) -> str:
    """All tables as Markdown."""
    parts = []
    for name in ROWS:
        own = sorted((row for row in rows if row["set"] == name), key=lambda row: int(row["seed"]))
        if own:
            parts.append(f"### {name}\n\n{systems_table(own)}\n\n{gains_table(own)}")
    order = sorted(rows, key=lambda row: (ROWS.index(row["set"]), row["seed"]))
    parts.append(f"### Calibration\n\n{calibration_table(order)}\n\n### Thresholds\n\n{thresholds_table(order)}")
    return "\n\n".join(parts)


def main() -> None:
    """Run one row, or all that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=ROWS, help="only this row")
    parser.add_argument("--seed", type=int, choices=SEEDS, help="only this seed")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmarks"), help="folder for the run directories")
    parser.add_argument("--results", type=Path, default=results.results_file("quality"), help="JSONL file")
    args = parser.parse_args()
    wanted = [
        (name, seed)
        for seed in (SEEDS if args.seed is None else (args.seed,))
        for name in (ROWS if args.row is None else (args.row,))
    ]
    for name, seed in wanted:
        if not args.tables and not results.has(args.results, key_of(name, seed)):
            run_row(name, seed, args.runs, args.results)
    stale = [row["key"] for row in results.read(args.results) if row["config"] != config_digest(row["set"])]
    if stale:
        raise SystemExit(f"{args.results}: rows of another config, delete them: {', '.join(stale)}")
    print(tables(results.read(args.results)))


if __name__ == "__main__":
    main()
