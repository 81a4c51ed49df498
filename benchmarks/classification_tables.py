"""The tables of `benchmarks.classification`, from its rows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import results

Row = results.Row
OURS = ("ours", "ours-torch", "ours-openvino")
PAIRS = (  # what is compared, peer, aim
    ("`pipeline` as most call it: batch 1, fp32", "pipeline-default", 15.0),
    ("`pipeline`, batch 32, fp32", "pipeline-32", 6.0),
    ("`pipeline`, by length, fastest precision and batch", "pipeline-sorted", 1.6),
    ("ONNX Runtime fp32, by length, best batch", "onnxruntime-fp32", 3.0),
    ("ONNX Runtime int8, by length, best batch", "onnxruntime-int8", 1.3),
    ("OpenVINO, its own precision, by length, best batch", "openvino", 1.1),
)
FAN_OUT = (
    ("10 clients against 10 runs, 4 layers frozen", "ten-runs-k4", "ours-fan-out-k4", 2.2),
    ("10 clients against 10 runs, 5 layers frozen", "ten-runs-k5", "ours-fan-out-k5", 3.2),
)
SHARE_AIM, CASCADE_AIM = 0.45, 2.0
AGREEMENT_AIM = 0.995


def tables(rows: Sequence[Row]) -> str:
    """Markdown, one set for each machine."""
    parts = [results.environments, _ratios, _fan_out, _systems, _settings, _cascades, _sizes]
    return "\n\n".join(part(own) for own in results.by_machine(rows) for part in parts)


def _ratios(rows: Sequence[Row]) -> str:
    lines = []
    for what, peer, aim in PAIRS:
        ratios = [_ratio_cell(rows, peer, ours) for ours in OURS]
        if any(cell != "–" for cell in ratios):
            lines.append([what, f"≥ {aim:g}x", *ratios, _agreement_cell(_runs(rows, peer))])
    for what, field in (("all layers for all tokens", "flops"), ("only what the head needs", "needed_flops")):
        shares = [_spread(found, 1, 100) + "%" if (found := _shares(rows, ours, field)) else "–" for ours in OURS]
        if any(cell != "–" for cell in shares):
            aim_cell = f"≥ {100 * SHARE_AIM:.0f}%" if field == "flops" else ""
            lines.append([f"share of the machine's matrix products a second, {what}", aim_cell, *shares, ""])
    lines.append(
        ["labels as in fp32", f"≥ {100 * AGREEMENT_AIM}%", *(_agreement_cell(_runs(rows, o)) for o in OURS), ""]
    )
    header = [
        "against, times faster: median (range)",
        "aim",
        *(f"`{ours}`" for ours in OURS),
        "peer's labels as in fp32",
    ]
    return results.markdown(header, lines)


def _fan_out(rows: Sequence[Row]) -> str:
    lines = []
    for what, peer, ours, aim in FAN_OUT:
        if (cell := _ratio_cell(rows, peer, ours)) != "–":
            agreements = (_agreement_cell(_runs(rows, system)) for system in (ours, peer))
            lines.append([what, cell, f"≥ {aim:g}x", *agreements])
    return results.markdown(["fan-out", "times faster", "aim", "labels as in fp32", "of the 10 runs"], lines)


def _systems(rows: Sequence[Row]) -> str:
    lines = []
    for system in dict.fromkeys(row["system"] for row in rows if row["kind"] == "run"):
        own = _runs(rows, system)
        lines.append(
            [
                f"`{system}`",
                str(len(own)),
                _spread([row["texts_per_second"] for row in own], 0),
                f"{own[0]['texts']:,}",
                _agreement_cell(own),
                _spread([row["load_seconds"] for row in own], 1),
                f"{own[0]['export_seconds']:.1f}" if own[0]["export_seconds"] else "–",
                f"{statistics.median(row['peak_rss_mib'] for row in own):,.0f}",
                _named(own[0]["setting"] | own[0]["details"]),
            ]
        )
    header = [
        "system", "repeats", "texts a second, median (range)", "texts", "labels as in fp32", "seconds to load",
        "to export", "peak RSS, MiB", "setting",
    ]  # fmt: skip
    return results.markdown(header, lines)


def _settings(rows: Sequence[Row]) -> str:
    lines = [
        [f"`{row['system']}`", _named(trial["setting"]), f"{trial['texts_per_second']:,.0f}"]
        for row in rows
        if row["kind"] == "choice" and len(row["tried"]) > 1
        for trial in row["tried"]
    ]
    return results.markdown(["settings tried", "setting", "texts a second"], lines)


def _cascades(rows: Sequence[Row]) -> str:
    lines = []
    every = [row for row in rows if row["kind"] == "cascade"]
    for data, loss in dict.fromkeys((row["set"], row["loss"]) for row in every if row["loss"] is not None):
        own = [row for row in every if (row["set"], row["loss"]) == (data, loss)]
        alone = [row for row in every if (row["set"], row["loss"]) == (data, None)]
        found = _paired(alone, [row for row in own if "summary" in row])
        refused = f"refused in {sum('refused' in row for row in own)} of {len(own)}"
        cells = _cascade_cells(found) if found else [refused, *["–"] * 5]
        aim = f"≥ {CASCADE_AIM:g}x" if loss == 0.2 and data != "edos" else ""
        lines.append([f"{data}, {loss:g} points", cells[0], aim, *cells[1:]])
    header = [
        "cascade, may lose", "times faster", "aim", "whole process, calibration included", "answered by the regression",
        "macro-F1 points lost on held-out items", "rows", "the model ran on, alone / in the cascade",
    ]  # fmt: skip
    return results.markdown(header, lines)


def _cascade_cells(found: Sequence[tuple[Row, Row]]) -> list[str]:
    """Of pairs (model alone, cascade). Each chooses its runtime; where they differ, the ratio is not the cascade's."""
    rates = [b["rows_per_second"] / a["rows_per_second"] for a, b in found]
    whole = [a["process_seconds"] / b["process_seconds"] for a, b in found]
    lost = statistics.mean(a["macro_f1"] - b["macro_f1"] for a, b in found)
    summary = found[0][1]["summary"]
    coverage = summary["answered_by_regression"] / summary["rows"]
    ran = [sorted({_runtime(pair[side]) for pair in found}) for side in (0, 1)]
    named = " / ".join(", ".join(names) for names in ran)
    shares = [f"{100 * coverage:.1f}%", f"{100 * lost:+.2f}", f"{summary['rows']:,}"]
    return [f"{_spread(rates)}x", f"{_spread(whole)}x", *shares, named]


def _runtime(row: Row) -> str:
    choice = row["summary"]["choice"]
    return f"{choice['backend']} {choice['precision']}"


def _sizes(rows: Sequence[Row]) -> str:
    sizes = sorted((row for row in rows if row["kind"] == "size"), key=lambda row: (row["model"], row["rows"]))
    smallest = {row["model"]: row for row in reversed(sizes)}
    lines = [
        [
            f"`{row['model']}`, {row['rows']:,}",
            f"{row['rows_per_second']:,.0f}",
            f"{100 * row['rows_per_second'] / smallest[row['model']]['rows_per_second']:.0f}%",
            f"{row['rows'] / row['process_seconds']:,.0f}",
            f"{row['peak_rss_first_half_mib']:,.0f}",
            f"{row['peak_rss_mib']:,.0f}",
        ]
        for row in sizes
    ]
    header = [
        "the command: model, rows", "rows a second (aim: within 10%)", "of the smallest",
        "whole process, rows a second", "peak RSS of the first half, MiB", "peak RSS, MiB (aim ≤ 1,536)",
    ]  # fmt: skip
    return results.markdown(header, lines)


# ---- cells


def _runs(rows: Sequence[Row], system: str) -> list[Row]:
    return [row for row in rows if row["kind"] == "run" and row["system"] == system]


def _paired(first: Sequence[Row], second: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same repeat."""
    own = {row["repeat"]: row for row in second}
    return [(row, own[row["repeat"]]) for row in first if row["repeat"] in own]


def _ratio_cell(rows: Sequence[Row], peer: str, ours: str) -> str:
    found = _paired(_runs(rows, peer), _runs(rows, ours))
    return f"{_spread([b['texts_per_second'] / a['texts_per_second'] for a, b in found])}x" if found else "–"


def _shares(rows: Sequence[Row], ours: str, field: str) -> list[float]:
    ceilings = [row for row in rows if row["kind"] == "ceiling"]
    found = _paired(ceilings, _runs(rows, ours))
    return [run[field] / run["seconds"] / ceiling["flops_per_second"] for ceiling, run in found]


def _agreement_cell(rows: Sequence[Row]) -> str:
    """The worst of the repeats, and whether it makes the speed void."""
    if not rows:
        return "–"
    worst = min(row["agreement"] for row in rows)
    return f"{100 * worst:.2f}%" + (" (too low)" if worst < AGREEMENT_AIM else "")


def _spread(values: Sequence[float], digits: int = 2, factor: float = 1) -> str:
    write: Callable[[float], str] = lambda value: f"{factor * value:,.{digits}f}"  # noqa: E731
    return f"{write(statistics.median(values))} ({write(min(values))}–{write(max(values))})"


def _named(setting: dict[str, Any]) -> str:
    words = (f"{name.lower()} {' '.join(v) if isinstance(v, list) else v}" for name, v in setting.items())
    return ", ".join(words) or "–"
