"""A copy of the training part without what the checks can decide alone; every removal is listed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.bulk.outputs import text_file
from pipelines.check.findings import Finding, Items, share
from pipelines.config import DataConfig
from pipelines.data import matching_rows
from pipelines.errors import ConfigError, DataError
from pipelines.tables import read_table, table_format

REMOVED_FOR = ("leaks", "duplicates", "contradictions")  # doubtful labels are for people to decide


class Cleaned:
    """What of the training part stays.

    Args:
        data: whose training part it is.
        items: of all parts.
        findings: of all checks.
    """

    def __init__(self, data: DataConfig, items: Items, findings: Sequence[Finding]) -> None:
        self.data = data
        self.total = len(items.of("train"))
        self.reasons: dict[int, str] = {}  # of a line
        for finding in sorted((f for f in findings if f.name in REMOVED_FOR), key=lambda f: REMOVED_FOR.index(f.name)):
            for place in finding.places:
                if place.part == "train" and not place.why.startswith("nearly the same text is"):
                    self.reasons.setdefault(place.line, f"{finding.name}: {place.why}")

    def write(self, path: Path) -> Finding:
        """Write the copy, in the format of the original, and the list. Both are there whole or not at all.

        Raises:
            DataError: they cannot be written.
        """
        table = read_table(self.data.train.path)
        rows = matching_rows(table.rows, self.data.train.where)
        kept = [row for row in rows if row.line not in self.reasons]
        removed = [row for row in rows if row.line in self.reasons]
        listed = [{"line": row.line, "why": self.reasons[row.line], "row": row.values} for row in removed]
        beside = path.with_name(path.name + ".removed.jsonl")
        unfinished = {target: target.with_name(f".{target.name}.partial") for target in (path, beside)}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(unfinished[path], table_format(path), path, table.columns, [row.values for row in kept])
            _write(unfinished[beside], "jsonl", beside, [], listed)
            for target, partial in unfinished.items():
                partial.rename(target)
        except OSError as error:
            raise DataError(path, f"cannot be written: {error.strerror or error}") from None
        finally:
            for partial in unfinished.values():
                partial.unlink(missing_ok=True)
        sentence = f"{path} has {len(kept):,} items; {share(len(removed), self.total)} are not in it, {beside} says why"
        return Finding("clean copy", "fine", sentence, {"kept": len(kept), "removed": len(removed)})


def refuse_output(path: Path, source: Path) -> None:
    """Raises ConfigError for a copy that exists or has another format than the original."""
    beside = path.with_name(path.name + ".removed.jsonl")
    for existing in (path, beside):
        if existing.exists():
            raise ConfigError(f"{existing}: exists already; name another file for --clean")
    wanted = table_format(source)
    if wanted == "dataset":
        wanted = "parquet"
    if table_format(path) != wanted:
        raise ConfigError(f"--clean {path}: expected the format of {source.name}, a name that ends in .{wanted}")


def _write(path: Path, format: str, named: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Rows as they were read; `named` is the name that the file will have."""
    if format == "parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return
    with text_file(path, named.suffix.lower() == ".gz") as file:
        if format == "jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            return
        writer = csv.DictWriter(file, columns, delimiter="\t" if format == "tsv" else ",", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
