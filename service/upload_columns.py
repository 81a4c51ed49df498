"""An upload that is to be labelled -> its columns, the one that surely holds the text, and its first rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.tables import Row
from service.training_forms import guessed_text, word
from service.upload_rows import listed, open_upload

ROWS, SHOWN, CELL = 5, 8, 200  # rows that are shown, columns of them, characters of a value
COLUMNS, NAME = 1000, 255  # that can be chosen; characters of their names, as in a request


def columns_of(source: Path, filename: str) -> dict[str, Any]:
    """Rows that cannot be read are passed over, as a batch passes over them. Raises UploadRefused."""
    with open_upload(source, filename) as upload:
        columns = nameable(upload.columns)
        text = guessed_text(columns)
        first = ([text] if text is not None else []) + [name for name in columns if name != text]
        shown = first[:SHOWN]
        readable = (record for record in upload.records if isinstance(record, Row))
        rows = [[_shown(row.values.get(name)) for name in shown] for row in islice(readable, ROWS)]
        return {
            "format": upload.format,
            "columns": columns,
            "text": text,
            "shown": shown,
            "rows": rows,
            "sentence": f"{upload.format} with the columns {listed(upload.columns)}",
        }


def nameable(columns: Sequence[str]) -> list[str]:
    """Those that a form can offer."""
    return [name for name in columns if len(name) <= NAME][:COLUMNS]


def _shown(value: Any) -> str:
    nested = isinstance(value, dict | list)
    text = json.dumps(value, ensure_ascii=False, default=str) if nested else word(value)
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
