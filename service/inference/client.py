"""Live classification for the API process, which never loads torch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import ConfigError
from service.inference.batching import MOST_REQUESTS
from service.inference.connection import Connection, ConnectionLost
from service.inference.errors import InferenceError
from service.inference.frames import TooLongError
from service.inference.process import Process
from service.inference.records import Answer

SOCKET = "inference.sock"
MOST_CHARACTERS = 8 << 20  # of one request
START_S = 60.0
DRAIN_S = 30.0
ATTEMPTS = 2  # classifying changes nothing, so what was lost is asked again, once
_POLL_S = 0.02
_LONGEST_PATH = 107  # bytes, of a Unix socket on Linux


class Inference:
    """The inference process of this host: started on first use, and again when it died. Of one event loop.

    Args:
        directory: of the socket; processes that name the same one share the inference process.
        memory_mib: bound on the weights of all models that are held, what they share counted once.
        threads: of the computation; default: one for every core.
        precision: of the computation; `auto`: bf16 where it is fast.

    Raises:
        ConfigError: the path of the socket is too long.
    """

    def __init__(
        self,
        directory: Path,
        memory_mib: int = 2048,
        threads: int | None = None,
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    ) -> None:
        self._socket = directory.absolute() / SOCKET
        if (size := len(os.fsencode(self._socket))) > _LONGEST_PATH:
            raise ConfigError(
                f"{self._socket}: expected a path of at most {_LONGEST_PATH} bytes for a socket, found {size}; "
                "choose a shorter directory"
            )
        self._process = Process(self._socket, memory_mib, threads or os.cpu_count() or 1, precision)
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._waiting = 0
        self._quiet = asyncio.Event()
        self._closed = self._ended = False  # it takes nothing new; it starts nothing any more

    @property
    def pid(self) -> int | None:
        """Of the inference process, while it is connected."""
        return self._connection.pid if self._connection and not self._connection.lost else None

    async def classify(self, model_dir: Path, texts: Sequence[str]) -> Answer:
        """Probabilities of every text by the model of a run directory.

        Raises:
            InferenceError: see there for the codes.
        """
        if (size := sum(map(len, texts))) > MOST_CHARACTERS:
            raise InferenceError(
                "request_too_large", f"expected at most {MOST_CHARACTERS:,} characters in a request, found {size:,}"
            )
        reply = await self._ask({"ask": "classify", "model": str(model_dir.absolute()), "texts": list(texts)})
        return Answer(tuple(reply["labels"]), reply["probabilities"], reply["tokens"])

    async def statistics(self) -> dict[str, Any]:
        """Counts since the inference process started, and the models that it holds. Raises InferenceError."""
        return await self._ask({"ask": "statistics"})

    async def close(self) -> None:
        """Refuse new requests, wait for those under way, end the process."""
        self._closed = True
        if self._waiting:
            with suppress(TimeoutError):  # then they get their error when the connection ends
                await asyncio.wait_for(self._quiet.wait(), DRAIN_S)
        self._ended = True
        if self._connection:
            await self._connection.close()
        await self._process.stop()

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._place():
            for _ in range(ATTEMPTS):
                try:
                    reply = await (await self._connected()).ask(message)
                except ConnectionLost:
                    continue
                except TooLongError as error:
                    raise InferenceError("request_too_large", str(error)) from None
                if "error" in reply:
                    raise InferenceError(reply["error"]["code"], reply["error"]["message"])
                return reply
        raise InferenceError("unavailable", f"the inference process ended {ATTEMPTS} times over this request")

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place among the requests under way, those too that wait for the process to start."""
        if self._closed:
            raise _stopping()
        if self._waiting >= MOST_REQUESTS:
            raise InferenceError("overloaded", f"{self._waiting} requests wait already; ask again later")
        self._waiting += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._quiet.set()

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                try:
                    self._connection = await asyncio.wait_for(self._connect(), START_S)
                except TimeoutError:
                    raise InferenceError("unavailable", f"no inference process answers within {START_S:g} s") from None
                except OSError as error:
                    raise InferenceError("unavailable", f"{self._socket}: {error}") from None
            return self._connection

    async def _connect(self) -> Connection:
        """Connect to the process at the socket; start one where there is none."""
        self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        started = False
        while not self._ended:
            try:
                return await Connection.open(self._socket)
            except (FileNotFoundError, ConnectionError):
                pass
            if not self._process.running:
                if started and self._process.failure is not None:
                    raise InferenceError(
                        "unavailable",
                        f"the inference process ended with code {self._process.failure} before it listened; "
                        "its standard error, which is this process's, says why",
                    )
                self._process.start()
                started = True
            await asyncio.sleep(_POLL_S)
        raise _stopping()


def _stopping() -> InferenceError:
    return InferenceError("unavailable", "the service is stopping; ask again later")
