"""An upload that is to be labelled -> its columns, the one that surely holds the text, and its first rows."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.tables import Row
from service.training_forms import guessed_text, word
from service.upload_rows import listed, open_upload

ROWS, CELL, COLUMNS = 5, 200, 100  # rows, characters of a value, columns that are shown


def columns_of(source: Path, filename: str) -> dict[str, Any]:
    """Rows that cannot be read are passed over, as a batch passes over them. Raises UploadRefused."""
    with open_upload(source, filename) as upload:
        readable = (record for record in upload.records if isinstance(record, Row))
        columns = upload.columns[:COLUMNS]
        rows = [{name: _shown(row.values.get(name)) for name in columns} for row in islice(readable, ROWS)]
        return {
            "format": upload.format,
            "columns": columns,
            "text": guessed_text(columns),
            "rows": rows,
            "sentence": f"{upload.format} with the columns {listed(upload.columns)}",
        }


def _shown(value: Any) -> str:
    nested = isinstance(value, dict | list)
    text = json.dumps(value, ensure_ascii=False, default=str) if nested else word(value)
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
