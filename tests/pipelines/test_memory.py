"""Peak memory of real allocations and of an invented process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from pipelines.memory import PeakMemory

MIB = 2**20


class Process:
    """A process whose resident memory is invented; after the last figure it stays there."""

    def __init__(self, *figures: int) -> None:
        self.figures: Iterator[int] = iter(figures)
        self.last = figures[-1]
        self.count = len(figures)
        self.asked = 0
        self.exhausted = threading.Event()

    def memory_info(self) -> SimpleNamespace:
        self.asked += 1
        if self.asked > self.count:
            self.exhausted.set()
        return SimpleNamespace(rss=next(self.figures, self.last))


def invented(monkeypatch: pytest.MonkeyPatch, *figures: int) -> Process:
    process = Process(*figures)
    monkeypatch.setattr(psutil, "Process", lambda: process)
    return process


def test_the_largest_figure_between_start_and_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    process = invented(monkeypatch, 10, 30, 70, 20)
    with PeakMemory() as peak:
        assert process.exhausted.wait(10)
    assert peak.bytes == 70


def test_start_and_end_count_however_short_the_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.memory.INTERVAL_S", 60)
    for figures in ((50, 40), (40, 50)):
        process = invented(monkeypatch, *figures)
        with PeakMemory() as peak:
            pass
        assert process.asked == 2
        assert peak.bytes == 50


def test_an_array_that_is_gone_at_the_end_was_seen() -> None:
    before = psutil.Process().memory_info().rss
    deadline = time.monotonic() + 10
    with PeakMemory() as peak:
        held = np.ones(200 * MIB, dtype=np.uint8)
        while peak.bytes < before + 190 * MIB and time.monotonic() < deadline:
            held += 1
        del held
    assert before + 190 * MIB <= peak.bytes < before + 400 * MIB


def test_an_error_passes_and_the_watch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    process = invented(monkeypatch, 10)
    threads = threading.active_count()
    peak = PeakMemory()
    with pytest.raises(ZeroDivisionError), peak:
        assert 1 / (threads + 1 - threading.active_count())  # one thread more
    assert threading.active_count() == threads
    assert peak.bytes == 10
    assert process.asked >= 2
