"""Whole tables written at once, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.bulk.outputs import Output


def write_table(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> Path:
    """One chunk, assembled; the name says the format."""
    output, part = Output(path, columns), path.with_name(path.name + ".part")
    output.write_chunk(part, rows, first=True)
    output.assemble([part], path)
    part.unlink()
    return path
