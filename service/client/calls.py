"""Calls beyond those of OpenAI's client, and their errors as one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RootstockError

if TYPE_CHECKING:
    from openai import OpenAI


class ServiceError(RootstockError):
    """The service refused, or it cannot be reached."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the client's exceptions into one line. Raises ServiceError."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise ServiceError(_plain(_message(error))) from None
    except openai.APIConnectionError as error:
        raise ServiceError(
            f"{error.request.url}: the service cannot be reached; is `rootstock serve` running?"
        ) from None


def get(client: OpenAI, path: str, **query: Any) -> Any:
    """GET of a path of ours, as JSON values."""
    return client.get(path, cast_to=object, options={"params": query} if query else {})


def post(client: OpenAI, path: str, body: Any = None) -> Any:
    """POST to a path of ours, as JSON values."""
    return client.post(path, cast_to=object, body=body)


def upload(client: OpenAI, path: Path, purpose: str) -> str:
    """Upload a file. Returns its id. Raises ServiceError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            return client.files.create(file=file, purpose=purpose).id  # type: ignore[arg-type]
    except OSError as error:
        raise ServiceError(f"{path}: {error.strerror}") from None


def follow(client: OpenAI, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and value of every server-sent event of a job, until it ends."""
    path = f"/fine_tuning/jobs/{job_id}/stream"
    with client.with_streaming_response.get(path, cast_to=object, options={"timeout": None}) as response:  # type: ignore[attr-defined]
        name = ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)


def _plain(text: str) -> str:
    """Without control characters: a server must not be able to write to the terminal as it likes."""
    return "".join(c for c in text if c.isprintable() or c == "\n")
