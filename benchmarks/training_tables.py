"""The tables of `benchmarks.training`, from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from benchmarks import results

Row = results.Row
PAIRS = (  # what is compared, peer, ours, aim
    ("Trainer out of the box", "trainer-default", "ours-k4", 14.0),
    ("Trainer tuned, all layers", "trainer-tuned", "ours-k3", 3.0),
    ("Trainer tuned, all layers", "trainer-tuned", "ours-k4", 5.0),
    ("Trainer tuned, same frozen layers", "trainer-tuned-k4", "ours-k4", 3.0),
    ("Trainer tuned, same frozen layers", "trainer-tuned-k5", "ours-k5", 4.0),
    ("ourselves without the store", "ours-k5-without-store", "ours-k5", 1.5),
    ("PEFT LoRA by Trainer tuned, all layers", "trainer-lora", "ours-lora-k4", 2.5),
)
SWEEP_PAIRS = (
    ("12 runs, Trainer tuned", "trainer-tuned-k4", "ours-k4", 3.5),
    ("12 runs, ourselves without the store", "ours-k5-without-store", "ours-k5", 2.2),
)
GAINS = (  # what is gained, from, to
    ("freezing 5 of 6 layers (Trainer tuned)", "trainer-tuned", "trainer-tuned-k5"),
    ("our loop, frozen layers run in every step", "trainer-tuned-k5", "ours-k5-without-store"),
    ("the store", "ours-k5-without-store", "ours-k5"),
)


def tables(rows: Sequence[Row]) -> str:
    """Markdown, one set for each machine."""
    return "\n\n".join(_tables(own) for own in results.by_machine(rows))


def _tables(rows: Sequence[Row]) -> str:
    return "\n\n".join([results.environments(rows), _ratios(rows), _gains(rows), _systems(rows), _sizes(rows)])


def _ratios(rows: Sequence[Row]) -> str:
    lines = []
    for kind, pairs in (("run", PAIRS), ("sweep", SWEEP_PAIRS)):
        for what, peer, ours, aim in pairs:
            found = _paired(rows, kind, peer, ours)
            if found:
                ratios = [a["seconds"] / b["seconds"] for a, b in found]
                quality = _difference([b["macro_f1"] - a["macro_f1"] for a, b in found]) if kind == "run" else "–"
                lines.append([f"{what} / `{ours}`", str(len(found)), _spread(ratios), f"≥ {aim:g}", quality])
    header = ["against / ours", "repeats", "times faster, median (range)", "aim", "macro-F1, ours less peer's (95%)"]
    return results.markdown(header, lines)


def _gains(rows: Sequence[Row]) -> str:
    lines = []
    for what, before, after in GAINS:
        found = _paired(rows, "run", before, after)
        if found:
            lines.append([what, _spread([a["seconds"] / b["seconds"] for a, b in found])])
    return results.markdown(["gain of", "times faster, median (range)"], lines)


def _systems(rows: Sequence[Row]) -> str:
    lines = []
    for name in dict.fromkeys(row["system"] for row in rows if row["kind"] == "run"):
        own = [row for row in rows if row["kind"] == "run" and row["system"] == name]
        warm = [row["warm_seconds"] for row in own if row["warm_seconds"]]
        disk = [row["store_bytes"] / row["store_bound_bytes"] for row in own if row["store_bytes"]]
        lines.append(
            [
                f"`{name}`",
                str(len(own)),
                _spread([row["seconds"] for row in own], 1),
                f"{statistics.median(warm):.1f}" if warm else "–",
                f"{own[0]['rate']:g}",
                f"{statistics.mean(row['macro_f1'] for row in own):.3f}",
                f"{statistics.median(row['peak_rss_mib'] for row in own):,.0f}",
                f"{100 * statistics.median(disk):.1f}%" if disk else "–",
                own[0]["precision"],
            ]
        )
    header = [
        "system", "runs", "seconds from an empty store, median (range)", "from a full one", "learning rate",
        "macro-F1, mean", "peak RSS, MiB", "disk, of 2 bytes x width x tokens", "precision",
    ]  # fmt: skip
    return results.markdown(header, lines)


def _sizes(rows: Sequence[Row]) -> str:
    lines = [
        [
            f"{row['items']:,}",
            f"{row['seconds']:.1f}",
            f"{1000 * row['seconds'] / row['items']:.2f}",
            f"{1e6 * row['seconds'] / row['tokens']:.1f}",
        ]
        for row in rows
        if row["kind"] == "size"
    ]
    return results.markdown(["texts, one epoch, k = 5", "seconds", "ms a text", "µs a token"], lines)


def _paired(rows: Sequence[Row], kind: str, peer: str, ours: str) -> list[tuple[Row, Row]]:
    """Rows of the same repeat."""
    own = {row["repeat"]: row for row in rows if row["kind"] == kind and row["system"] == ours}
    theirs = [row for row in rows if row["kind"] == kind and row["system"] == peer]
    return [(row, own[row["repeat"]]) for row in theirs if row["repeat"] in own]


def _spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _difference(values: Sequence[float]) -> str:
    """Mean with its t interval over seeds."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.3f}"
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values)) if np.ptp(values) else (mean, mean)
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
