"""What is to be explained: what the report lists, the rows of a file, or texts of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset

from pipelines.data import cell, require_columns, texts_of
from pipelines.errors import ConfigError, DataError, RunDirectoryError
from pipelines.mistakes import LISTS, listed_items
from pipelines.saved_run import SavedRun
from pipelines.tables import read_table

WHY = dict(zip(LISTS, ("surest errors", "only the rival is right", "only the model is right"), strict=True))
ROWS = 20  # of a file, where nothing else is said


@dataclass(frozen=True)
class Item:
    """One text.

    Attributes:
        id: as in the report, of the file's column or its line, or the number of a text that was given.
        why: it is here.
        label: what it is, where that is known.
    """

    id: str
    why: str
    text: str
    label: str | None


def items_of(
    run: SavedRun, texts: Sequence[str], file: Path | None, column: str | None, limit: int | None
) -> list[Item]:
    """At least one item.

    Args:
        texts: of the command line.
        file: a table. Without texts or a file, the items are those that the run's report lists.
        column: with the text; default as in training.
        limit: rows of the file.

    Raises:
        ConfigError: texts and a file, options without the file that they are about, or a text without words.
        DataError: the file cannot be read, has no rows, lacks the column, or a text in it is empty.
        RunDirectoryError: the report lists nothing.
    """
    if texts and file is not None:
        raise ConfigError("expected --text or --input, found both; leave one out")
    if file is None and (column, limit) != (None, None):
        raise ConfigError("--column and --limit are about a file; name it with --input")
    if file is not None:
        return _rows(run, file, column or run.config.data.text, ROWS if limit is None else limit)
    return [_given(number, text) for number, text in enumerate(texts, start=1)] or _listed(run)


def _given(number: int, text: str) -> Item:
    if not text.strip():
        raise ConfigError("--text: expected a text, found nothing; put it in quotes")
    if any("\ud800" <= c <= "\udfff" for c in text):  # what Python makes of other bytes
        raise ConfigError("--text: expected UTF-8, found other bytes; put the text in a file and name it with --input")
    return Item(f"text {number}", "given", text, None)


def _rows(run: SavedRun, file: Path, column: str, limit: int) -> list[Item]:
    """The first rows of a file; its label and id where it has the columns of the run's data."""
    table, data = read_table(file), run.config.data
    require_columns(file, table.columns, [("--column", column)])
    rows = list(islice(table.rows, limit))
    if not rows:
        raise DataError(file, "expected rows below the header, found none; add rows")
    texts = texts_of(table, rows, column, "--column")
    return [
        Item(
            id=cell(row.values.get(data.id)) if data.id in table.columns else str(row.line),
            why=f"{table.unit} {row.line} of {file.name}",
            text=text,
            label=cell(row.values.get(data.label)) or None if data.label in table.columns else None,
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def _listed(run: SavedRun) -> list[Item]:
    """What the report lists, whole: its own texts are cut. An item that is in several of its lists comes once."""
    kept = pq.read_table(run.path / "predictions.parquet", columns=["id", "text"]).to_pydict()
    listed = listed_items(run.report["mistakes"], Dataset.from_dict(kept))
    if not listed:
        raise RunDirectoryError(
            f"{run.path}: its report lists neither errors nor disagreements; name a file with --input, or give a --text"
        )
    found = []
    for text, entries in listed:
        entry = next(iter(entries.values()))
        found.append(Item(entry["id"], ", ".join(WHY[name] for name in entries), text, entry["label"]))
    return found
