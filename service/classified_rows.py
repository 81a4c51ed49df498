"""What `pipelines.classify` made of the rows of a batch, taken request by request: none is lost, none comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from pipelines.bulk.ledger import ERRORS
from pipelines.errors import DataError
from pipelines.tables import RowError, open_lines, read_jsonl

Values = dict[str, Any]
# Columns that classify adds; the module that names them loads torch.
LABEL, SCORES = "predicted_label", "predicted_scores"
NO_REASON = "the model gave no prediction for this text"


class ClassifiedRows:
    """Rows in the order of the rows file, and the reasons beside them.

    Args:
        path: JSONL; it may be missing where there was no row.

    Raises:
        DataError: a row too few or too many, in any method.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = objects(path)
        self._reasons = objects(path.with_name(path.name + ERRORS))
        self._row = next(self._rows, None)
        self._reason = next(self._reasons, None)
        self._number = 0  # of the row in the rows file, by which a reason names it

    def take(self, line: int, parts: int) -> tuple[list[Values], tuple[int, str] | None]:
        """The rows of a request that have a prediction; which of its texts is the first without one, and why."""
        rows: list[Values] = []
        failed: tuple[int, str] | None = None
        for part in range(parts):
            row, reason = self._take(line, part)
            if row is None or row[LABEL] is None:
                failed = failed or (part, reason or NO_REASON)
            else:
                rows.append(row)
        return rows, failed

    def close(self) -> None:
        """Check that nothing is left."""
        if self._row is not None or self._reason is not None:
            raise self._another("expected no more rows")

    def _take(self, line: int, part: int) -> tuple[Values | None, str | None]:
        """One row, which may be missing where there is a reason."""
        self._number += 1
        reason = None
        if self._reason is not None and self._reason["line"] == self._number:
            reason, self._reason = self._reason["reason"], next(self._reasons, None)
        if self._row is not None and (self._row["line"], self._row["part"]) == (line, part):
            row, self._row = self._row, next(self._rows, None)
            return row, reason
        if reason is None:
            raise self._another(f"expected text {part} of line {line}")
        return None, reason

    def _another(self, expected: str) -> DataError:
        row = self._row
        found = f"text {row['part']} of line {row['line']}" if row else "a reason" if self._reason else "the end"
        return DataError(self._path, f"{expected}, found {found}; classify the rows of this batch again")


def objects(path: Path) -> Iterator[Values]:
    """The objects of a JSONL file of our own; none where it does not exist. Raises DataError for a damaged one."""
    if not path.exists():
        return
    with closing(read_jsonl(open_lines(path))) as records:
        for record in records:
            if isinstance(record, RowError):
                raise record
            yield record.values
