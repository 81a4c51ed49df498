"""Many requests on one connection, held against a server that does as it is told."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.inference import frames
from service.inference.connection import Connection, ConnectionLost

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[Connection]:
    """A connection to a server that greets and then does what the handler does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frames.packed({"pid": 7}))
        await handler(reader, writer)
        writer.close()

    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.start_unix_server(serve, Path(folder) / "s")
        connection = await Connection.open(Path(folder) / "s")
        try:
            yield connection
        finally:
            await connection.close()
            server.close()


async def nobody(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Hangs up."""


def test_answers_find_their_requests_in_any_order() -> None:
    async def backwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages: list[Any] = [await frames.read(reader) for _ in range(5)]
        for message in reversed(messages):
            writer.write(frames.packed({"id": message["id"], "echo": message["value"]}))
        await frames.read(reader)

    async def main() -> None:
        async with connected(backwards) as connection:
            assert connection.pid == 7
            replies = await asyncio.gather(*(connection.ask({"value": n}) for n in range(5)))
            assert [reply["echo"] for reply in replies] == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_a_caller_that_goes_away_takes_its_request_back() -> None:
    seen: list[Any] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend([await frames.read(reader), await frames.read(reader)])
        writer.write(frames.packed({"id": seen[0]["id"], "late": True}))  # nobody waits for it
        seen.append(await frames.read(reader))
        writer.write(frames.packed({"id": seen[2]["id"], "fine": True}))

    async def main() -> None:
        async with connected(note) as connection:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(connection.ask({"ask": "slow"}), 0.05)
            assert (await connection.ask({"ask": "next"}))["fine"]
        assert seen[1] == {"id": seen[0]["id"], "ask": "cancel"}

    asyncio.run(main())


def test_when_the_other_side_is_gone_everyone_learns_it() -> None:
    async def two_and_no_more(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await frames.read(reader)
        await frames.read(reader)

    async def main() -> None:
        async with connected(two_and_no_more) as connection:
            asked = [connection.ask({"n": n}) for n in range(2)]
            assert [type(e) for e in await asyncio.gather(*asked, return_exceptions=True)] == [ConnectionLost] * 2
            assert connection.lost
            with pytest.raises(ConnectionLost):
                await connection.ask({"n": 3})

    asyncio.run(main())


def test_without_a_greeting_there_is_no_connection() -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "s"
            with pytest.raises(FileNotFoundError):
                await Connection.open(path)

            async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.close()

            server = await asyncio.start_unix_server(silent, path)
            with pytest.raises(ConnectionResetError):
                await Connection.open(path)
            server.close()

    asyncio.run(main())
