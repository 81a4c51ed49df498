"""How fast batch classification is, against named peers and ourselves, with label agreement beside every speed.

    python -m benchmarks.classification                                run what is missing, print the tables
    python -m benchmarks.classification --tables                       print the tables only
    python -m benchmarks.classification --prepare                      models, texts, exported graphs, settings
    python -m benchmarks.classification --system openvino --choose     try the settings of one system
    python -m benchmarks.classification --system openvino --repeat 0   one timed row
    python -m benchmarks.classification --system ceiling --repeat 0    matrix products of this machine
    python -m benchmarks.classification --cascade davidson --loss 0.2 --repeat 0    the command; or without --loss
    python -m benchmarks.classification --rows 100000 --model tiny     the command on that many rows

MiniLM fine-tuned on EDOS; distinct texts of EDOS, Davidson, CrisisLex and Banking77 mixed, cut at 128 tokens. From
strings to labels in the order of the strings, tokenization included, all threads, warm; loading, exporting and
compiling are kept apart. Every system is at the fastest of its settings, which are tried once; a slow one gets fewer
texts, with lengths distributed alike. Each row is a process of its own; systems take turns, no two run at once; a
ratio is between rows of one repeat. Rows belong to a machine; another one measures its own and has its own tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from benchmarks import results
from benchmarks.classification_inputs import (
    CLIENT_POOL,
    MAIN,
    POOL,
    SETS,
    STRATA,
    TINY,
    calibration_file,
    export_seconds,
    read_reference,
    read_texts,
    scored_file,
    sized_file,
)
from benchmarks.classification_peers import Peer
from benchmarks.classification_systems import SYSTEMS, Setting
from benchmarks.classification_tables import tables
from benchmarks.machine import machine, matmul_flops, model_flops, name, peak_rss, run_watched
from pipelines.device import best_precision

REPEATS = 3
LOSSES = (None, 0.2, 0.5, 1.0)  # points of macro-F1; None: no cascade
SIZES = (10_000, 100_000, 1_000_000)
TIMED_S, TRIED_S = 20.0, 5.0  # of a timed row, of the trial of a setting
CEILING = "ceiling"
SUMMARY = ("rows", "errors", "computed", "copies", "seconds", "choice", "certificate", "answered_by_regression")
PATH = results.results_file("classification")


# ---- rows of one process


def choose(system: str, folder: Path) -> results.Row:
    """Try every setting, and how many texts the fastest needs to take TIMED_S."""
    most = POOL if SYSTEMS[system].models == (MAIN,) else CLIENT_POOL
    tried = [{"setting": s, "texts_per_second": _rate(system, s, folder, most)} for s in SYSTEMS[system].settings]
    best: dict[str, Any] = max(tried, key=lambda trial: trial["texts_per_second"])
    return {
        "key": choice_key(system),
        "kind": "choice",
        "system": system,
        "tried": tried,
        "setting": best["setting"],
        "texts": _count(best["texts_per_second"] * TIMED_S, most),
    } | machine()


def measure(system: str, repeat: int, folder: Path) -> results.Row:
    """Time one system at its chosen setting."""
    choice = next(row for row in results.read(PATH) if row["key"] == choice_key(system))
    all_texts = read_texts(folder)
    texts, tokens = all_texts.first(choice["texts"])
    before = peak_rss()
    peer, load_seconds, _ = _loaded(system, choice["setting"], folder)
    started = time.perf_counter()
    found = peer.labels(texts)
    seconds = time.perf_counter() - started
    models = SYSTEMS[system].models
    expected = [read_reference(folder, model)[: len(texts)] for model in models]
    exported = SYSTEMS[system].exported
    flops = model_flops(AutoConfig.from_pretrained(folder / MAIN / "model"), tokens) if models == (MAIN,) else {}
    return (
        {
            "key": run_key(system, repeat),
            "kind": "run",
            "system": system,
            "repeat": repeat,
            "setting": choice["setting"],
            "details": peer.details,
            "precision": best_precision(),
            "texts": len(texts),
            "tokens": sum(tokens),
            "seconds": seconds,
            "texts_per_second": len(texts) / seconds,
            "agreement": float(np.mean(found.reshape(len(texts), -1) == np.stack(expected, axis=1))),
            "load_seconds": load_seconds,
            "export_seconds": export_seconds(folder)[exported] if exported else 0.0,
            "peak_rss_mib": peak_rss(),
            "peak_rss_before_mib": before,
        }
        | flops
        | machine()
    )


def measure_ceiling(repeat: int) -> results.Row:
    """Matrix products of this machine in the precision it is fast at."""
    row = {"key": run_key(CEILING, repeat), "kind": CEILING, "repeat": repeat, "precision": best_precision()}
    return row | {"flops_per_second": matmul_flops(best_precision())} | machine()


def _rate(system: str, setting: Setting, folder: Path, most: int) -> float:
    """Texts a second, over about TRIED_S."""
    peer, _, rough = _loaded(system, setting, folder)
    texts, _ = read_texts(folder).first(_count(rough * TRIED_S, most))
    started = time.perf_counter()
    peer.labels(texts)
    return len(texts) / (time.perf_counter() - started)


def _loaded(system: str, setting: Setting, folder: Path) -> tuple[Peer, float, float]:
    """A warm system, the seconds its loading took, and texts a second of the second half of warming up."""
    warm = read_texts(folder).warm
    started = time.perf_counter()
    peer = SYSTEMS[system].make(folder, setting)
    peer.load()
    loaded = time.perf_counter()
    peer.labels(warm[:STRATA])
    halfway = time.perf_counter()
    peer.labels(warm[STRATA:])
    return peer, loaded - started, (len(warm) - STRATA) / (time.perf_counter() - halfway)


def _count(wanted: float, most: int) -> int:
    """A whole number of STRATA, at least one."""
    return int(np.clip(round(wanted / STRATA) * STRATA, STRATA, most))


# ---- rows of the command


def measure_cascade(data: str, loss: float | None, repeat: int, folder: Path) -> results.Row:
    """`rootstock classify` on held-out items with known labels, with a cascade or without."""
    from pipelines.config import load_config
    from pipelines.metrics import macro_f1

    cascade = []
    if loss is not None:
        cascade = ["--cascade", "--loss", f"{loss:g}", "--calibrate", str(calibration_file(folder, data))]
    source = scored_file(folder, data)
    row = {"key": cascade_key(data, loss, repeat), "kind": "cascade", "set": data, "loss": loss, "repeat": repeat}
    done, predicted = _classify(folder / data, source, cascade)
    if predicted:
        classes = json.loads((folder / data / "report.json").read_text(encoding="utf-8"))["labels"]
        label = load_config(folder / data / "config.yaml").data.label
        given = [json.loads(line)[label] for line in source.open(encoding="utf-8")]
        targets, answers = (np.array([classes.index(value) for value in values]) for values in (given, predicted))
        done |= {"macro_f1": macro_f1(targets, answers), "accuracy": float(np.mean(targets == answers))}
    return row | done | machine()


def measure_size(rows: int, model: str, folder: Path) -> results.Row:
    """`rootstock classify` on that many rows."""
    done, _ = _classify(folder / model, sized_file(folder, rows), [])
    return {"key": size_key(rows, model), "kind": "size", "rows": rows, "model": model} | done | machine()


def _classify(model: Path, source: Path, options: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Rows a second as the command counts them, seconds of the whole process, memory, summary; and predicted labels.

    A cascade that cannot be certified is a result too: `refused` is its message, and there are no labels.
    """
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        out = Path(scratch) / "labelled.jsonl"
        command = [sys.executable, "-m", "service.cli", "classify", str(model), str(source), "--out", str(out)]
        done = run_watched([*command, *options, "--json"])
        if done.code and "the cascade:" in done.stderr:
            return {"refused": done.stderr.strip()}, []
        if done.code:
            raise SystemExit(done.stderr)
        labels = [json.loads(line)["predicted_label"] for line in out.open(encoding="utf-8")]
    half = len(done.rss_mib) // 2
    memory = {"peak_rss_mib": max(done.rss_mib), "peak_rss_first_half_mib": max(done.rss_mib[: half + 1])}
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    rate = {"rows_per_second": summary["rows"] / summary["seconds"], "process_seconds": done.seconds}
    return rate | memory | {"summary": {k: summary[k] for k in SUMMARY if k in summary}}, labels


# ---- all rows


def choice_key(system: str) -> str:
    return f"choice, {system}, {name()}"


def run_key(system: str, repeat: int) -> str:
    return f"run {repeat}, {system}, {name()}"


def cascade_key(data: str, loss: float | None, repeat: int) -> str:
    return f"cascade {repeat}, {data}, {'model alone' if loss is None else f'{loss:g} points'}, {name()}"


def size_key(rows: int, model: str) -> str:
    return f"size {rows}, {model}, {name()}"


def choices() -> list[tuple[str, list[str]]]:
    """Key and arguments of the rows that choose settings."""
    return [(choice_key(system), ["--system", system, "--choose"]) for system in SYSTEMS]


def commands() -> list[tuple[str, list[str]]]:
    """Key and arguments of every timed row, in the order in which they are run."""
    rows = []
    for repeat in range(REPEATS):
        again = ["--repeat", str(repeat)]
        rows += [(run_key(system, repeat), ["--system", system, *again]) for system in (*SYSTEMS, CEILING)]
    for repeat in range(REPEATS):
        for data in SETS:
            for loss in LOSSES:
                given = ["--loss", f"{loss:g}"] if loss is not None else []
                rows.append((cascade_key(data, loss, repeat), ["--cascade", data, *given, "--repeat", str(repeat)]))
    sized = [(size, model) for model in (TINY, MAIN) for size in SIZES]
    return rows + [(size_key(*pair), ["--rows", str(pair[0]), "--model", pair[1]]) for pair in sized]


def run_missing(rows: list[tuple[str, list[str]]], folder: Path) -> None:
    """Run rows that are not in the results file, one after the other."""
    for key, arguments in rows:
        if not results.has(PATH, key):
            print(f"running {key}", file=sys.stderr)
            _run([*arguments, "--models", str(folder)])


def _run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.classification", *arguments], check=True, stdout=sys.stderr)


def main() -> None:
    """Run one row, or all that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make what rows need, and choose settings")
    parser.add_argument("--system", choices=[*SYSTEMS, CEILING])
    parser.add_argument("--choose", action="store_true", help="try the settings of the system")
    parser.add_argument("--cascade", choices=SETS, help="the command on this set")
    parser.add_argument("--loss", type=float, help="points of macro-F1 that the cascade may lose")
    parser.add_argument("--repeat", type=int, help="number of the timed row")
    parser.add_argument("--rows", type=int, help="the command on that many rows")
    parser.add_argument("--model", choices=(MAIN, TINY), default=MAIN, help="which of the models classifies the rows")
    parser.add_argument("--models", type=Path, default=Path(__file__).parent / ".models", help="folder of what is made")
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.prepare:
        from benchmarks.classification_models import prepare  # what it imports is no memory of the systems

        prepare(args.models)
        run_missing(choices(), args.models)
    elif args.rows:
        results.append(PATH, measure_size(args.rows, args.model, args.models))
    elif args.cascade and args.repeat is not None:
        results.append(PATH, measure_cascade(args.cascade, args.loss, args.repeat, args.models))
    elif args.system and args.choose:
        results.append(PATH, choose(args.system, args.models))
    elif args.system == CEILING and args.repeat is not None:
        results.append(PATH, measure_ceiling(args.repeat))
    elif args.system and args.repeat is not None:
        results.append(PATH, measure(args.system, args.repeat, args.models))
    else:
        if not args.tables:
            _run(["--prepare", "--models", str(args.models)])
            run_missing(commands(), args.models)
        print(tables(results.read(PATH)))


if __name__ == "__main__":
    main()
