"""An uploaded batch -> its requests, one line each, or why a line is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pipelines.bulk.sources import MAX_LINE_BYTES
from pipelines.errors import DataError
from pipelines.tables import Lines, Row, RowError, read_jsonl
from service.bodies import json_type
from service.refused import INVALID_VALUE, UploadRefused

_DIGEST_BYTES = 16  # of a custom_id, all of which are held in memory
_FRAME = {"custom_id": str, "method": str, "url": str, "body": dict}


@dataclass(frozen=True)
class Request:
    """A line: where it stands, what its author calls it, and what it asks for, unread."""

    line: int
    custom_id: str
    body: dict[str, Any]


def batch_requests(source: Path, endpoint: str, most: int) -> Iterator[Request | UploadRefused]:
    """Every line that is not blank, and what is wrong with the file.

    Args:
        source: the stored upload, JSONL.
        endpoint: that every request must name.
        most: requests; the first beyond them is a fault, and the end.
    """
    seen: set[bytes] = set()
    number = 0
    try:
        with closing(read_jsonl(Lines("the batch file", source.open("rb", buffering=0), MAX_LINE_BYTES))) as records:
            for number, record in enumerate(records, start=1):
                if number > most:
                    yield UploadRefused(
                        f"more than {most:,} requests; split the file", "too_many_tasks", None, record.line
                    )
                    return
                yield _request(record, endpoint, seen)
    except DataError as error:  # of the whole file, such as UTF-16
        yield UploadRefused(str(error), "invalid_file")
        return
    if not number:
        yield UploadRefused("the file holds no request; expected one JSON object per line", "empty_file")


def _request(record: Row | RowError, endpoint: str, seen: set[bytes]) -> Request | UploadRefused:
    if isinstance(record, RowError):
        return UploadRefused(record.problem, "invalid_json_line", None, record.line)
    try:
        _check_frame(record.values, endpoint)
        _check_new(record.values["custom_id"], seen)
    except UploadRefused as error:
        return UploadRefused(error.message, error.code, error.param, record.line)
    return Request(record.line, record.values["custom_id"], record.values["body"])


def _check_frame(values: dict[str, Any], endpoint: str) -> None:
    """What stands around the body. Raises UploadRefused for the first fault."""
    for name, kind in _FRAME.items():
        value = values.get(name)
        if value is None or value == "":
            raise UploadRefused(f"{name}: missing; every request has one", "missing_required_parameter", name)
        if not isinstance(value, kind):
            found = f"expected {json_type(kind())}, found {json_type(value)}"
            raise UploadRefused(f"{name}: {found}", INVALID_VALUE, name)
    if values["method"] != "POST":
        raise UploadRefused(f"method: expected POST, found {values['method'][:40]!r}", INVALID_VALUE, "method")
    if values["url"] != endpoint:
        found = f"expected {endpoint}, the endpoint of the batch, found {values['url'][:80]!r}"
        raise UploadRefused(f"url: {found}", "url_mismatch", "url")


def _check_new(custom_id: str, seen: set[bytes]) -> None:
    digest = blake2b(custom_id.encode(), digest_size=_DIGEST_BYTES).digest()
    if digest in seen:
        problem = f"custom_id: {custom_id[:80]!r} stands twice; give every request its own"
        raise UploadRefused(problem, "duplicate_custom_id", "custom_id")
    seen.add(digest)
