"""Work on two things at once: the next items are prepared in a thread while the last ones are used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()
_PATIENCE_S = 5.0  # for the thread to end, once nobody wants items
_WAIT_S = 0.1  # between two looks at whether anybody still wants items


def ahead(items: Iterable[T], most: int, stop: Callable[[], bool] = lambda: False) -> Iterator[T]:
    """The same items, made by a thread that is at most `most` of them ahead. What it raises is raised here.

    Args:
        stop: asked while there is nothing to give; True ends the items. The thread may then wait for ever for an input
            that says nothing; it ends with the process.
    """
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
            try:
                item, error = made.get(timeout=_WAIT_S)
            except queue.Empty:
                if stop():
                    return
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        unwanted.set()
        thread.join(timeout=_PATIENCE_S)
        close = getattr(items, "close", None)
        if close is not None and not thread.is_alive():
            close()
