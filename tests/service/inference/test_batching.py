"""Requests become rounds, and every caller gets its own rows: with models that only count."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import RunDirectoryError
from service.inference import batching
from service.inference.batching import PIECE_TOKENS, ROUND_TOKENS, Batcher, pieces
from service.inference.errors import InferenceError
from service.inference.records import Answer, Piece


class Counting:
    """Models whose answer to a text is its length. `gate` holds rounds back; `lost` are dropped at their next use."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()
        self.held: list[str] = []
        self.lost: list[str] = []
        self.rounds: list[list[Piece]] = []
        self.loads = 0

    def __contains__(self, name: str) -> bool:
        return name in self.held

    def load(self, name: str, path: Path) -> str:
        self.loads += 1
        if "corrupt" in path.name:
            raise RunDirectoryError(f"{path}: the file model/config.json was changed")
        if "strange" in path.name:
            raise _PanicError("no Exception")
        return name

    def admit(self, name: str, loaded: str) -> None:
        self.held.append(loaded)

    def compute(self, pieces: Sequence[Piece]) -> list[Any]:
        self.rounds.append(list(pieces))
        self.started.set()
        assert self.gate.wait(10)
        return [self._result(piece) for piece in pieces]

    def statistics(self) -> dict[str, Any]:
        return {"models": self.held, "weights_bytes": 0}

    def _result(self, piece: Piece) -> Any:
        if piece.model in self.lost:
            self.lost.remove(piece.model)
            self.held.remove(piece.model)
            return None
        if "boom" in piece.texts:
            raise _PanicError("in a round")
        if "hostile" in piece.texts:
            return InferenceError("invalid_text", "no")
        return Answer(("size",), [[float(len(text))] for text in piece.texts], len(piece.texts))


class _PanicError(BaseException):
    """What pyo3 raises is no Exception either."""


def run(test: Callable[[Batcher, Counting], Coroutine[Any, Any, None]]) -> None:
    """A test with a batcher that runs."""

    async def main() -> None:
        models = Counting()
        batcher = Batcher(lambda: models)
        rounds = asyncio.create_task(batcher.run())
        try:
            await asyncio.wait_for(test(batcher, models), 20)
        finally:
            models.gate.set()
            rounds.cancel()

    asyncio.run(main())


def rows(answer: Answer) -> list[float]:
    return [row[0] for row in answer.probabilities]


async def busy(batcher: Batcher, models: Counting) -> asyncio.Task[Answer]:
    """A request in a round that does not end until the gate is open."""
    models.gate.clear()
    models.started.clear()
    task = asyncio.create_task(batcher.classify(Path("m"), ["first"]))
    await asyncio.to_thread(models.started.wait, 10)
    return task


async def code_of(request: Coroutine[Any, Any, Answer] | asyncio.Task[Answer]) -> str:
    with pytest.raises(InferenceError) as caught:
        await request
    return caught.value.code


def test_what_comes_during_a_round_is_the_next() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        first = await busy(batcher, models)
        requests = [asyncio.create_task(batcher.classify(Path("mn"[n % 2]), ["x" * n])) for n in range(32)]
        while "n" not in models.held:
            await asyncio.sleep(0.001)
            models.gate.set() if batcher.statistics()["waiting"] == 33 else None
        answers = await asyncio.gather(first, *requests)
        assert [rows(answer) for answer in answers] == [[5.0], *([float(n)] for n in range(32))]
        assert batcher.statistics()["batches"] == len(models.rounds) <= 3
        assert batcher.statistics()["requests"] == 33

    run(test)


def test_one_alone_starts_at_once() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        await batcher.classify(Path("m"), ["warm"])
        started = time.monotonic()
        for n in range(20):
            assert rows(await batcher.classify(Path("m"), ["x" * n])) == [float(n)]
        assert time.monotonic() - started < 1.0
        assert len(models.rounds) == 21

    run(test)


def test_a_long_request_takes_turns_with_short_ones() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        first = await busy(batcher, models)
        texts = ["y" * (1000 + n) for n in range(100)]
        long = asyncio.create_task(batcher.classify(Path("m"), texts))
        await asyncio.sleep(0)
        short = asyncio.create_task(batcher.classify(Path("m"), ["short"]))
        await asyncio.sleep(0)
        models.gate.set()
        await first
        assert rows(await short) == [5.0]
        assert not long.done()
        answer = await long
        assert rows(answer) == [float(len(text)) for text in texts]
        assert answer.tokens == 100
        assert "short" in [text for piece in models.rounds[1] for text in piece.texts]
        assert all(sum(p.tokens for p in chosen) < ROUND_TOKENS + 2 * PIECE_TOKENS for chosen in models.rounds)

    run(test)


def test_who_goes_away_is_not_computed() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        first = await busy(batcher, models)
        gone = asyncio.create_task(batcher.classify(Path("m"), ["nobody wants this"]))
        stays = asyncio.create_task(batcher.classify(Path("m"), ["stays"]))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        models.gate.set()
        await asyncio.gather(first, stays)
        assert [text for chosen in models.rounds for piece in chosen for text in piece.texts] == ["first", "stays"]
        assert batcher.statistics()["waiting"] == 0

    run(test)


def test_beyond_what_may_wait_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MOST_REQUESTS", 3)
    monkeypatch.setattr(batching, "MOST_CHARACTERS", 100)

    async def test(batcher: Batcher, models: Counting) -> None:
        first = await busy(batcher, models)
        assert await code_of(batcher.classify(Path("m"), ["z" * 96])) == "overloaded"
        more = [asyncio.create_task(batcher.classify(Path("m"), ["z"])) for _ in range(2)]
        await asyncio.sleep(0)
        assert await code_of(batcher.classify(Path("m"), ["z"])) == "overloaded"
        assert batcher.statistics()["refused"] == 2
        models.gate.set()
        await asyncio.gather(first, *more)
        assert rows(await batcher.classify(Path("m"), ["z" * 200])) == [200.0]  # alone it may be larger

    run(test)


def test_a_model_that_cannot_be_loaded_fails_its_own_requests_only() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        await batcher.classify(Path("m"), ["warm"])
        bad = [asyncio.create_task(batcher.classify(Path("corrupt"), ["x"])) for _ in range(3)]
        strange, good = batcher.classify(Path("strange"), ["x"]), batcher.classify(Path("m"), ["four"])
        assert rows(await good) == [4.0]
        assert [await code_of(task) for task in bad] == ["model_unusable"] * 3
        assert models.loads == 2  # three requests, one load
        assert await code_of(strange) == "model_unusable"

    run(test)


def test_what_fails_in_a_round_reaches_its_caller() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        assert await code_of(batcher.classify(Path("m"), ["hostile"])) == "invalid_text"
        assert await code_of(batcher.classify(Path("m"), ["boom"])) == "internal_error"
        assert rows(await batcher.classify(Path("m"), ["still here"])) == [10.0]

    run(test)


def test_a_dropped_model_is_loaded_again_but_not_for_ever() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        models.lost = ["m"]
        assert rows(await batcher.classify(Path("m"), ["once more"])) == [9.0]
        assert models.loads == 2
        models.lost = ["m"] * 10
        assert await code_of(batcher.classify(Path("m"), ["x"])) == "overloaded"

    run(test)


def test_a_directory_that_was_replaced_is_another_model(tmp_path: Path) -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        for content in ("one", "two"):
            staged = tmp_path / content
            staged.write_text(content)
            staged.rename(tmp_path / "manifest.json")
            await batcher.classify(tmp_path, ["x"])
            await batcher.classify(tmp_path, ["x"])
        assert len(set(models.held)) == models.loads == 2

    run(test)


def test_a_round_that_hangs_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "ROUND_S", 0.05)

    async def main() -> None:
        models = Counting()
        batcher = Batcher(lambda: models)
        rounds = asyncio.create_task(batcher.run())
        request = await busy(batcher, models)
        with pytest.raises(TimeoutError):
            await rounds
        models.gate.set()
        request.cancel()

    asyncio.run(main())


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), max_size=30))
def test_every_text_is_in_one_piece(sizes: list[int]) -> None:
    texts = ["x" * size for size in sizes]
    found = pieces("m", texts)
    assert [text for piece in found for text in piece.texts] == texts
    assert [piece.start for piece in found] == [sum(len(p.texts) for p in found[:n]) for n in range(len(found))]
    assert all(piece.tokens < 2 * PIECE_TOKENS for piece in found)


def test_no_texts_have_an_answer_too() -> None:
    async def test(batcher: Batcher, models: Counting) -> None:
        assert await batcher.classify(Path("m"), []) == Answer(("size",), [], 0)

    run(test)
