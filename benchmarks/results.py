"""Result files, benchmarks/results/<name>.jsonl: one JSON object per line, one line per finished row.

Every row has a `key`. A benchmark asks `has` before it runs a row, so a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

PACKAGES = ("torch", "transformers", "accelerate", "peft", "tokenizers", "scikit-learn")


def results_file(name: str) -> Path:
    """Where the rows of a benchmark are kept."""
    return Path(__file__).parent / "results" / f"{name}.jsonl"


def read(path: Path) -> list[Row]:
    """All rows, in the order they were written; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def has(path: Path, key: str) -> bool:
    """Is there a row with this key?"""
    return any(row["key"] == key for row in read(path))


def append(path: Path, row: Row) -> bool:
    """Add a row. Returns False, and leaves the file alone, if its key is there already."""
    if has(path, row["key"]):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return True


def run_missing(path: Path, rows: Iterable[tuple[str, Callable[[], Row]]]) -> None:
    """Run the rows that are not there, each in a process of its own that has the libraries already.

    Args:
        path: results file.
        rows: key and function of each.

    Raises:
        SystemExit: a row failed, and has said why.
    """
    for key, run in rows:
        if has(path, key):
            continue
        print(f"running {key}", file=sys.stderr)
        try:
            run_apart(_run, path, run)
        except ChildProcessError as error:
            raise SystemExit(f"{key}: {error}") from None


def run_apart(function: Callable[..., None], *args: Any) -> None:
    """Call it in a process of its own, so that its memory is not counted. Raises ChildProcessError if it fails."""
    from pipelines.device import device

    on_cpu = device().type == "cpu"  # CUDA does not survive a fork
    start = multiprocessing.get_context("fork").Process if on_cpu else multiprocessing.get_context("spawn").Process
    process = start(target=function, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise ChildProcessError(f"failed with exit code {process.exitcode}")


def _run(path: Path, run: Callable[[], Row]) -> None:
    append(path, run())


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is aligned left, the others right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def versions() -> dict[str, str]:
    """Versions of the packages that decide speed and scores."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def by_machine(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that name their machine, of each machine apart: no ratio or median is over two."""
    timed = [row for row in rows if "machine" in row]
    return [[row for row in timed if row["machine"] == name] for name in dict.fromkeys(row["machine"] for row in timed)]


def environments(rows: Sequence[Row]) -> str:
    """Machine, threads and versions, one line for each combination among the rows."""
    found = {
        f"{row['machine']}, {row['threads']} threads; " + ", ".join(f"{n} {v}" for n, v in row["versions"].items())
        for row in rows
        if "machine" in row
    }
    return "\n".join(sorted(found))
