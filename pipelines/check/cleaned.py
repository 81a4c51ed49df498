"""A copy of the training part without what the checks can decide alone; every removal is listed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.bulk.outputs import json_line, text_file
from pipelines.check.findings import Finding, share
from pipelines.config import SplitFile
from pipelines.data import matching_rows
from pipelines.durable import sync
from pipelines.errors import ConfigError, DataError
from pipelines.tables import Row, Table, read_table, table_format


def write_clean_copy(path: Path, train: SplitFile, findings: Sequence[Finding]) -> Finding:
    """Write the training part without leaks and repeats of an earlier text under the same label, in the format that it
    has, and a list of what is not in it. Each file is there whole or not at all.

    Contradictions, near duplicates and doubtful labels stay: they are for people to decide.

    Args:
        path: the copy; `<path>.removed.jsonl` is the list.
        train: the original.
        findings: of all checks.

    Raises:
        DataError: they cannot be written.
    """
    reasons: dict[int, str] = {}  # of a line
    for finding in findings:
        for place in finding.places:
            if place.part == "train" and place.removable:
                reasons.setdefault(place.line, f"{finding.name}: {place.why}")
    table = read_table(train.path)
    rows = matching_rows(table.rows, train.where)
    kept = [row for row in rows if row.line not in reasons]
    removed = [row for row in rows if row.line in reasons]
    listed = [{"line": row.line, "why": reasons[row.line], "row": row.values} for row in removed]
    beside = path.with_name(path.name + ".removed.jsonl")
    unfinished = {target: target.with_name(f".{target.name}.partial") for target in (beside, path)}  # reasons first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if table_format(path) == "parquet":
            _copy_parquet(unfinished[path], table, kept)
        else:
            _write_text(unfinished[path], path, table.columns, [row.values for row in kept])
        _write_text(unfinished[beside], beside, [], listed)
        for target, partial in unfinished.items():
            sync(partial)
            partial.rename(target)
        sync(path.parent)
    except (OSError, pa.ArrowException) as error:
        raise DataError(path, f"cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        for partial in unfinished.values():
            partial.unlink(missing_ok=True)
    sentence = f"{path} has {len(kept):,} items; {share(len(removed), len(rows))} are not in it, {beside} says why"
    return Finding("clean copy", "fine", sentence, {"kept": len(kept), "removed": len(removed)})


def refuse_output(path: Path, source: Path, out: Path | None) -> None:
    """Raises ConfigError for a copy that exists, has another format than the original, or would lie in `out`."""
    if out is not None and out.absolute() in path.absolute().parents:
        raise ConfigError(f"--clean {path}: expected a file outside of --out {out}")
    beside = path.with_name(path.name + ".removed.jsonl")
    for existing in (path, beside):
        if existing.exists():
            raise ConfigError(f"{existing}: exists already; name another file for --clean")
    wanted = table_format(source)
    if wanted == "dataset":
        wanted = "parquet"
    if table_format(path) != wanted:
        raise ConfigError(f"--clean {path}: expected the format of {source.name}, a name that ends in .{wanted}")


def _copy_parquet(path: Path, table: Table, rows: Sequence[Row]) -> None:
    """Some rows with the types that they had; a saved data set becomes one file."""
    if table_format(table.path) == "parquet":
        pq.write_table(pq.read_table(table.path).take([row.line - 1 for row in rows]), path)
    else:
        datasets.Dataset.from_list([row.values for row in rows]).to_parquet(path)


def _write_text(path: Path, named: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Rows as they were read; `named` is the name that the file will have."""
    with text_file(path, named.suffix.lower() == ".gz") as file:
        if table_format(named) == "jsonl":
            file.writelines(json_line(row) for row in rows)
            return
        tabs = table_format(named) == "tsv"
        writer = csv.DictWriter(file, columns, delimiter="\t" if tabs else ",", lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
