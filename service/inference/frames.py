"""Messages on the socket: four bytes of length, big end first, then one JSON object.

::

    child:  {pid}                                          once, to greet
    client: {id, ask: "classify", model, texts}        ->  {id, labels, probabilities, tokens}
            {id, ask: "statistics"}                    ->  {id, models, weights_bytes, batches, ...}
            {id, ask: "cancel"}                            no answer; the request with this id gets none either
    any request that fails                             ->  {id, error: {code, message}}
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

MOST_BYTES = 64 << 20
_HEADER_BYTES = 4


class TooLongError(ValueError):
    """A message that the other side would not read."""


def packed(message: dict[str, Any]) -> bytes:
    """One message as it is sent. Lone surrogates stay what they are, as JSON escapes.

    Raises:
        TooLongError: more than MOST_BYTES.
    """
    body = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii")
    if len(body) > MOST_BYTES:
        raise TooLongError(f"expected at most {MOST_BYTES >> 20} MiB in a message, found {len(body) / 2**20:,.0f}")
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


async def read(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the other side is gone, or sends what no side of ours does."""
    try:
        size = int.from_bytes(await reader.readexactly(_HEADER_BYTES), "big")
        if size > MOST_BYTES:
            return None
        message = json.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return None
    return message if isinstance(message, dict) else None


class Sender:
    """Sends messages that come in one turn of the event loop by one call: a round answers many at once."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._parts: list[bytes] = []

    def send(self, data: bytes) -> None:
        """Send a packed message, at the end of this turn."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(b"".join(self._parts))
        self._parts.clear()
