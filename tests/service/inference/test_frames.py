"""Messages arrive as they were sent; what is no message ends the conversation."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.inference import frames

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def received(data: bytes) -> list[Any]:
    """What a reader makes of some bytes, until it gives up."""

    async def read() -> list[Any]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return [message async for message in _each(reader)]

    return asyncio.run(read())


async def _each(reader: asyncio.StreamReader) -> Any:
    while (message := await frames.read(reader)) is not None:
        yield message


@settings(deadline=None)
@given(messages=st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4))
def test_messages_arrive_in_order(messages: list[dict[str, Any]]) -> None:
    assert received(b"".join(map(frames.packed, messages))) == messages


def test_half_a_character_stays_half_a_character() -> None:
    assert received(frames.packed({"text": "a\ud800b"})) == [{"text": "a\ud800b"}]


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        b"\0\0\0\x09{",
        b"\0\0\0\x02[]",
        b"\0\0\0\x02{{",
        b"\0\0\0\x01\xff",
        (frames.MOST_BYTES + 1).to_bytes(4, "big") + b"{}",
    ],
    ids=["half a length", "half a message", "no object", "no JSON", "no text", "too long"],
)
def test_what_is_no_message_is_the_end(data: bytes) -> None:
    whole = frames.packed({"id": 1})
    assert received(whole + data) == [{"id": 1}]


def test_numbers_that_are_none_are_refused_by_the_sender() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        frames.packed({"value": float("nan")})


def test_what_is_sent_in_one_turn_is_written_at_once() -> None:
    written: list[bytes] = []
    writer: Any = SimpleNamespace(write=written.append, is_closing=lambda: len(written) == 2)

    async def send() -> None:
        sender = frames.Sender(writer)
        for batch in (b"ab", b"c", b"late"):  # before the last one, the other side has gone
            for letter in batch.decode():
                sender.send(letter.encode())
            await asyncio.sleep(0)

    asyncio.run(send())
    assert written == [b"ab", b"c"]


def test_a_message_that_would_not_be_read_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MOST_BYTES", 20)
    assert received(frames.packed({"a": "123456789"})) == [{"a": "123456789"}]
    with pytest.raises(frames.TooLongError, match="expected at most 0 MiB in a message"):
        frames.packed({"a": "1234567890123456"})
