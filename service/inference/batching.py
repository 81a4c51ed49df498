"""Requests of any models -> rounds of computation.

While one round computes, requests gather for the next; a request that comes alone starts at once. A long request is
cut into pieces that take turns with everyone else's. Models are loaded beside the rounds, in a thread of their own.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipelines.errors import RootstockError
from service.inference.errors import InferenceError
from service.inference.records import Answer, Piece

ROUND_TOKENS = 2048  # about what a round reads: the longest that a newcomer waits for others
PIECE_TOKENS = 512
MOST_REQUESTS = 256  # that wait
MOST_CHARACTERS = 32 << 20  # of all that wait: memory stays bounded
ROUND_S = 120.0  # a round that takes longer hangs
LOADS = 3  # of one request: its model may be dropped for others before its turn comes
_CHARACTERS_A_TOKEN = 4
_LONGEST_TOKENS = 512  # longer texts are cut by nearly every model

Result = Answer | InferenceError | None  # None: the model was dropped meanwhile
Loaded = Any  # what `Models.load` hands to `Models.admit`
T = TypeVar("T")


class Models(Protocol):
    """The models that are held. Only `load` and `in` may be called beside another call."""

    def __contains__(self, name: str) -> bool: ...

    def load(self, name: str, path: Path) -> Loaded:
        """Read a model. Raises RootstockError."""

    def admit(self, name: str, loaded: Loaded) -> None:
        """Hold it from here on, and drop others for it."""

    def compute(self, pieces: Sequence[Piece]) -> list[Result]:
        """A result for every piece."""

    def statistics(self) -> dict[str, Any]:
        """What is held."""


class Batcher:
    """Answers requests, many at a time. `run` has to run beside them.

    Args:
        open_models: called once, in the thread that loads; it may take seconds.
    """

    def __init__(self, open_models: Callable[[], Models]) -> None:
        self._open = open_models
        self._models: Models | None = None
        self._loader, self._computer = ThreadPoolExecutor(1, "load"), ThreadPoolExecutor(1, "compute")
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._waiting = self._characters = self._requests = self._refused = self._batches = 0

    async def run(self) -> None:
        """Compute rounds until cancelled. Raises TimeoutError: a round hangs, and with it this process."""
        await self._in(self._loader, self._opened)
        while True:
            await self._arrived.wait()
            chosen = self._gather()
            if not chosen:
                self._arrived.clear()
                continue
            self._batches += 1
            pieces = [piece for _, piece in chosen]
            results = await asyncio.wait_for(self._in(self._computer, self._computed, pieces), ROUND_S)
            for (job, piece), result in zip(chosen, results, strict=True):
                job.settle(piece, result)

    async def classify(self, path: Path, texts: Sequence[str]) -> Answer:
        """The answer to one request.

        Raises:
            InferenceError: see there.
        """
        with self._place(texts):
            for _ in range(LOADS):
                name = _name_of(path)
                await self._loaded(name, path)
                answer = await self._computed_in_turn(name, texts)
                if answer is not None:
                    return answer
        raise InferenceError(
            "overloaded", f"the model was dropped for others {LOADS} times before its turn; ask again later"
        )

    def statistics(self) -> dict[str, Any]:
        """Counts since the start, and what is held now."""
        counts = {"requests": self._requests, "refused": self._refused, "batches": self._batches}
        held = self._models.statistics() if self._models else {"models": [], "weights_bytes": 0}
        return counts | {"waiting": self._waiting} | held

    @contextmanager
    def _place(self, texts: Sequence[str]) -> Iterator[None]:
        """A place among those that wait, or InferenceError."""
        size = sum(map(len, texts))
        full = self._waiting >= MOST_REQUESTS or self._characters + size > MOST_CHARACTERS
        if self._waiting and full:
            self._refused += 1
            raise InferenceError("overloaded", f"{self._waiting} requests wait already; ask again later")
        self._requests += 1
        self._waiting, self._characters = self._waiting + 1, self._characters + size
        try:
            yield
        finally:
            self._waiting, self._characters = self._waiting - 1, self._characters - size

    async def _computed_in_turn(self, name: str, texts: Sequence[str]) -> Answer | None:
        job = _Job(name, texts)
        self._jobs.append(job)
        self._arrived.set()
        return await job.answer

    def _gather(self) -> list[tuple[_Job, Piece]]:
        """The pieces of the next round: one of every request in turn, and again, until there are tokens enough."""
        chosen: list[tuple[_Job, Piece]] = []
        tokens = 0
        while self._jobs and tokens < ROUND_TOKENS:
            job = self._jobs.popleft()
            if job.answer.done():  # failed, or its caller is gone
                continue
            piece = job.pieces.popleft()
            chosen.append((job, piece))
            tokens += piece.tokens
            if job.pieces:
                self._jobs.append(job)
        return chosen

    def _computed(self, pieces: Sequence[Piece]) -> Sequence[Result]:
        """In the computing thread. Whatever is raised there, nobody is left waiting."""
        assert self._models is not None
        try:
            return self._models.compute(pieces)
        except BaseException as error:
            traceback.print_exc(file=sys.stderr)
            return [InferenceError("internal_error", f"{type(error).__name__}: {error}")] * len(pieces)

    # ---- loading

    async def _loaded(self, name: str, path: Path) -> None:
        """Return when the model is held. Requests for one that is being loaded share the load, and its failure."""
        if self._models is not None and name in self._models:
            return
        if name not in self._loads:
            self._loads[name] = asyncio.create_task(self._load(name, path))
            self._loads[name].add_done_callback(lambda _: self._loads.pop(name))
        await asyncio.shield(self._loads[name])  # who goes away does not take it from the others

    async def _load(self, name: str, path: Path) -> None:
        loaded = await self._in(self._loader, self._read, name, path)
        assert self._models is not None
        await self._in(self._computer, self._models.admit, name, loaded)

    def _read(self, name: str, path: Path) -> Loaded:
        """In the loading thread."""
        try:
            return self._opened().load(name, path)
        except InferenceError:
            raise
        except RootstockError as error:
            raise InferenceError("model_unusable", str(error)) from None
        except BaseException as error:  # a tokenizer raises pyo3's PanicException, which is no Exception
            traceback.print_exc(file=sys.stderr)
            raise InferenceError("model_unusable", f"{path}: cannot be loaded: {error!r}") from None

    def _opened(self) -> Models:
        if self._models is None:
            self._models = self._open()
        return self._models

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)


class _Job:
    """A request whose model is held, on its way."""

    def __init__(self, name: str, texts: Sequence[str]) -> None:
        self.pieces = deque(pieces(name, texts))
        self.answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._whole = len(self.pieces)
        self._parts: dict[int, Answer] = {}

    def settle(self, piece: Piece, result: Result) -> None:
        """Take the result of a piece; with the last one, or with a failure, the request has its answer."""
        if self.answer.done():
            return
        if isinstance(result, InferenceError):
            self.answer.set_exception(result)
        elif result is None:
            self.answer.set_result(None)
        else:
            self._parts[piece.start] = result
            if len(self._parts) == self._whole:
                self.answer.set_result(_joined([self._parts[start] for start in sorted(self._parts)]))


def pieces(model: str, texts: Sequence[str]) -> list[Piece]:
    """N texts in pieces of about PIECE_TOKENS; at least one piece."""
    found: list[Piece] = []
    start = tokens = 0
    for stop, text in enumerate(texts, 1):
        tokens += min(len(text) // _CHARACTERS_A_TOKEN + 2, _LONGEST_TOKENS)
        if tokens >= PIECE_TOKENS or stop == len(texts):
            found.append(Piece(model, texts[start:stop], start, tokens))
            start, tokens = stop, 0
    return found or [Piece(model, [], 0, 0)]


def _joined(parts: list[Answer]) -> Answer:
    rows = [row for part in parts for row in part.probabilities]
    return Answer(parts[0].labels, rows, sum(part.tokens for part in parts))


def _name_of(path: Path) -> str:
    """A directory's path and which one it is: one that was replaced is another model."""
    try:
        manifest = os.stat(path / "manifest.json")
    except OSError:
        return f"{path}"  # loading says what is wrong
    return f"{path} {manifest.st_ino} {manifest.st_mtime_ns}"
