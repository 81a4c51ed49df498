"""Texts -> lines of requests, as the batch interface wants them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import DataError


@contextmanager
def as_requests(path: Path, model: str | None, field: str) -> Iterator[Path]:
    """The file itself, or with `model` a temporary one with a request for every line of JSONL.

    Raises:
        DataError: a line that holds no text.
    """
    if model is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / f"{path.stem}.requests.jsonl"
        with path.open(encoding="utf-8") as source, made.open("w", encoding="utf-8") as target:
            for number, line in enumerate(source, start=1):
                target.write(json.dumps(_request(path, number, line, model, field), ensure_ascii=False) + "\n")
        yield made


def _request(path: Path, number: int, line: str, model: str, field: str) -> dict[str, object]:
    try:
        row = json.loads(line)
        text = row[field]
    except (ValueError, KeyError, TypeError):
        raise DataError(path, f"expected a JSON object with the field {field!r}; name it with --text", number) from None
    if not isinstance(text, str):
        raise DataError(path, f"expected text in {field!r}, found {type(text).__name__}", number)
    id = str(row.get("custom_id", number))
    return {"custom_id": id, "method": "POST", "url": "/v1/classify", "body": {"model": model, "input": text}}
