"""Load on an HTTP server: N connections that each send the next request when the last was answered.

Plain asyncio on prepared bytes, so that on two cores the generator leaves most of them to the server.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Answers:
    """What came back: seconds of every answer, how often each status."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    took: float = 0.0

    def summary(self) -> dict[str, float | dict[str, int]]:
        p50, p99 = np.percentile(self.seconds, [50, 99])
        return {
            "requests": len(self.seconds),
            "per_second": len(self.seconds) / self.took,
            "p50_ms": 1000 * float(p50),
            "p99_ms": 1000 * float(p99),
            "worst_ms": 1000 * max(self.seconds),
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
        }


def request(method: str, path: str, key: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    """The bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def load(port: int, make: Callable[[int], bytes], connections: int, seconds: float) -> Answers:
    """Send `make(n)` for n = 0, 1, ... over some connections for some seconds."""
    return asyncio.run(_load(port, make, connections, seconds))


async def _load(port: int, make: Callable[[int], bytes], connections: int, seconds: float) -> Answers:
    answers, started = Answers(), time.perf_counter()
    numbers = iter(range(1 << 62))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - started < seconds:
            sent = time.perf_counter()
            writer.write(make(next(numbers)))
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            answers.seconds.append(time.perf_counter() - sent)
            answers.statuses[int(head.split(b" ", 2)[1])] += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    answers.took = time.perf_counter() - started
    return answers
