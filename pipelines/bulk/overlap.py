"""Work on two things at once: the next items are prepared in a thread while the last ones are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
_WAIT_S = 0.1  # between two looks at whether anybody still wants items


def ahead(items: Iterable[T], most: int) -> Iterator[T]:
    """The same items, made by a thread that is at most `most` of them ahead. What it raises is raised here."""
    made: queue.Queue[Any] = queue.Queue(most)
    unwanted = threading.Event()

    def put(value: Any) -> None:
        while not unwanted.is_set():
            try:
                made.put(value, timeout=_WAIT_S)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if unwanted.is_set():
                    return
        except BaseException as error:
            put((_END, error))
        else:
            put((_END, None))

    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        unwanted.set()
        thread.join()
        close = getattr(items, "close", None)
        if close is not None:
            close()
