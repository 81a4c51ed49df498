"""Items that are made ahead: the same, in order, with their errors, and never more than wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.bulk.overlap import ahead


def test_the_same_items_in_order() -> None:
    assert list(ahead(range(1000), 3)) == list(range(1000))
    assert list(ahead([], 3)) == []
    assert list(ahead([None, None], 1)) == [None, None]


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("third")

    found: list[int] = []
    with pytest.raises(ValueError, match="third"):
        found.extend(ahead(items(), 5))
    assert found == [1, 2]


def test_it_is_ahead_but_not_further_than_wanted() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    found = ahead(items(), 2)
    next(found)
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(made) == 4  # one given, two waiting, one that waits for room


def test_waiting_for_an_input_that_says_nothing_can_be_stopped() -> None:
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        never.wait(20)

    asked = threading.Event()
    found = ahead(items(), 2, asked.is_set)
    assert next(found) == 1
    threading.Timer(0.3, asked.set).start()
    threading.Timer(0.6, never.set).start()
    assert list(found) == []


def test_who_stops_early_leaves_no_thread_and_closes_the_items() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    found = ahead(items(), 2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert threading.active_count() == before
