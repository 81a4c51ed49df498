"""Calls beyond those of OpenAI's client, and their errors as one line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RootstockError
from service.terminal import plain

if TYPE_CHECKING:
    from openai import OpenAI


SILENT_S = 60.0  # a stream that says nothing for so long is lost: the server sends comments meanwhile
AGAIN, AGAIN_S = 30, 1.0  # tries to connect, and seconds between them


class ServiceError(RootstockError):
    """The service refused, or it cannot be reached."""


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the client's exceptions into one line. Raises ServiceError."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise ServiceError(plain(_message(error))) from None
    except openai.APIConnectionError as error:
        raise ServiceError(
            f"{error.request.url}: the service cannot be reached; is `rootstock serve` running?"
        ) from None


def get(client: OpenAI, path: str) -> Any:
    """GET of a path of ours, as JSON values."""
    return client.get(path, cast_to=object)


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
    """Name and value of every server-sent event of a job, until it ends; a lost connection is made again.

    Raises:
        ServiceError: the job does not exist, or the service stays away.
    """
    import httpx

    client.fine_tuning.jobs.retrieve(job_id)  # a refusal in the one shape
    headers = {"Authorization": f"Bearer {client.api_key}"}
    url, failures, ended = f"{client.base_url}fine_tuning/jobs/{job_id}/stream", 0, False
    while True:
        try:
            with httpx.stream("GET", url, headers=headers, timeout=SILENT_S) as reply:
                reply.raise_for_status()
                for id, name, value in _events(reply.iter_lines()):
                    failures = 0
                    if id:
                        headers["Last-Event-ID"] = id
                    ended = ended or (name == "job" and value["finished_at"] is not None)
                    yield name, value
            if not ended:
                raise ServiceError(
                    f"{url}: ended by the service, as when a key is revoked; the job goes on without you"
                )
            return
        except httpx.HTTPError as error:
            failures += 1
            if failures > AGAIN:
                raise ServiceError(f"{url}: {error or type(error).__name__}; the job goes on without you") from None
            time.sleep(AGAIN_S)


def ended_look(client: OpenAI, id: str) -> dict[str, Any]:
    """A data check or probe at its end. Raises ServiceError for one that did not succeed."""
    while True:
        look: dict[str, Any] = get(client, f"/looks/{id}")
        if look["finished_at"] is not None:
            break
        time.sleep(AGAIN_S)
    if look["status"] != "succeeded":
        why = f": {look['error']['message']}" if look["error"] else ""
        raise ServiceError(plain(f"{id} {look['status']}{why}"))
    return look


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, name and value of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            field, _, value = line.partition(": ")
            fields[field] = value
        elif "data" in fields:
            yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
            fields = {}
        else:
            fields = {}


def _message(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)
