"""One connection to the inference process, for many requests at a time."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

from service.inference import frames


class ConnectionLost(Exception):
    """The other side is gone; what was asked may or may not have been computed."""


class Connection:
    """An open connection. Use `open`.

    Attributes:
        pid: of the inference process.
        lost: whether the other side is gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pid: int) -> None:
        self.pid = pid
        self.lost = False
        self._writer = writer
        self._sender = frames.Sender(writer)
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls, socket: Path) -> Connection:
        """Connect, and wait to be greeted: a process that is being killed may still accept.

        Raises:
            FileNotFoundError, ConnectionError: nobody is there.
        """
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            greeting = await frames.read(reader)
            if greeting is None:
                raise ConnectionResetError(f"{socket}: no greeting")
            return cls(reader, writer, greeting["pid"])
        except BaseException:
            writer.close()
            raise

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to one message. A caller that is cancelled takes its request back.

        Raises:
            ConnectionLost: there will be none.
            TooLongError: it was not sent.
        """
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any] | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._send(message | {"id": number})
            reply = await answer
        except asyncio.CancelledError:
            if not self.lost:
                self._sender.send(frames.packed({"id": number, "ask": "cancel"}))
            raise
        finally:
            del self._waiting[number]
        if reply is None:
            raise ConnectionLost
        return reply

    async def close(self) -> None:
        """Hang up; requests that wait are lost."""
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _send(self, message: dict[str, Any]) -> None:
        if self.lost:
            raise ConnectionLost
        self._sender.send(frames.packed(message))
        try:
            await self._writer.drain()
        except ConnectionError:
            raise ConnectionLost from None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand out answers until there are no more; then nobody may be left waiting."""
        try:
            while (message := await frames.read(reader)) is not None:
                answer = self._waiting.get(message.pop("id"))
                if answer is not None and not answer.done():
                    answer.set_result(message)
        finally:
            self.lost = True
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_result(None)
            self._writer.close()
