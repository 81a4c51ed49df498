"""The chunks of one classification on their way: computed, counted, written, committed; at the end one file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from pipelines.artifacts import environment
from pipelines.bulk.chunks import Chunk, forget, text_of
from pipelines.bulk.drift import Sample, Tally
from pipelines.bulk.engines import Engine
from pipelines.bulk.ledger import ERRORS, Ledger
from pipelines.bulk.outputs import Output, concatenate, json_line
from pipelines.bulk.overlap import ahead
from pipelines.bulk.predictions import NO_PREDICTION, Float32Array, Layout, probabilities
from pipelines.bulk.sources import Item, Source
from pipelines.errors import Interrupted, RunDirectoryError
from pipelines.records import Event, Rows
from pipelines.weights import sha256_file

AHEAD = 2  # chunks that are read before they are computed, and computed before they are written


@dataclass(frozen=True)
class Found:
    """What a chunk gives.

    Attributes:
        computed: probabilities of its new texts, (U, F).
        places: of the rows that have a prediction, n of them.
        rows: theirs, (n, F).
    """

    computed: Float32Array
    places: list[int]
    rows: Float32Array


@dataclass
class Job:
    """The chunks of one run on their way through, and what is counted of them."""

    ledger: Ledger
    engines: Sequence[Engine]
    layout: Layout
    output: Output
    source: Source
    text: str
    known: dict[bytes, Float32Array] = field(default_factory=dict)
    chunks: int = 0
    rows: int = 0
    computed: int = 0
    copies: int = 0
    errors: int = 0
    answered: int = 0

    def __post_init__(self) -> None:
        self.tallies = {name: Tally(labels) for name, labels in self.layout.labels.items()}
        self.samples = {name: Sample() for name in self.layout.labels}
        self.seconds = 0.0

    def run(self, chunks: Iterator[Chunk], stop: Callable[[], bool]) -> Iterator[Event]:
        """Compute and commit every chunk that is not committed."""
        pending: list[Future[None]] = []
        started, before = time.perf_counter(), None
        with ThreadPoolExecutor(1, "write") as writer:
            for chunk in ahead(chunks, AHEAD, stop):
                self.chunks += 1
                found = self._found(chunk)
                self._count(chunk, found)
                if chunk.number >= len(self.ledger.committed):
                    before = self.rows - len(chunk.items) if before is None else before
                    pending.append(writer.submit(self._write, chunk, found))
                    while len(pending) > AHEAD:
                        pending.pop(0).result()
                    self.seconds = time.perf_counter() - started
                    yield self._progress(chunk.items[-1], self.rows - before)
                if stop():
                    break
            for future in pending:
                future.result()
        if stop():
            raise Interrupted(f"stopped after {self.rows:,} rows; they are kept")
        if self.chunks < len(self.ledger.committed):
            raise RunDirectoryError(self._another_input)
        if not self.chunks:  # no row: still a file with its column names
            self._write(Chunk(0, []), Found(self._none, [], self._none))
            self.chunks = 1
        self.seconds = time.perf_counter() - started

    @property
    def _none(self) -> Float32Array:
        return np.empty((0, self.layout.width), dtype=np.float32)

    @property
    def _another_input(self) -> str:
        return (
            f"{self.ledger.partial}: the input is not the one that the unfinished run has read; "
            "give it the same input, or delete the directory and start afresh"
        )

    def _progress(self, last: Item, done: int) -> Rows:
        share = self.source.share(last)
        rate = done / self.seconds
        remaining = None if not share else (self.rows / share - self.rows) / rate
        return Rows(self.rows, self.errors, rate, share, remaining)

    def _found(self, chunk: Chunk) -> Found:
        """Probabilities of every row that has some; those that have none get a problem."""
        done = chunk.number < len(self.ledger.committed)
        computed = self._recalled(chunk) if done else probabilities(chunk, self.engines, self.layout)
        self.known |= {chunk.keys[place]: row for place, row in zip(chunk.new, computed, strict=True)}
        places = list(chunk.keys)
        rows = np.stack([self.known[key] for key in chunk.keys.values()]) if places else self._none
        forget(self.known)

        asked = {name: np.array([chunk.routes.get(p) in (None, name) for p in places], bool) for name in self.tallies}
        absent = {name: np.isnan(rows[:, self.layout.place(name).start]) & asked[name] for name in asked}
        lost = np.all([absent[name] | ~asked[name] for name in asked], axis=0)
        for i in np.flatnonzero(np.any(list(absent.values()), axis=0)):
            missing = [name for name in absent if absent[name][i]]
            many = f" of {', '.join(missing)}" if len(self.tallies) > 1 else ""
            chunk.problems[places[i]] = NO_PREDICTION + many
        kept = np.flatnonzero(~lost)
        return Found(computed, [places[i] for i in kept], rows[kept])

    def _recalled(self, chunk: Chunk) -> Float32Array:
        """What a committed chunk has computed. Raises RunDirectoryError if its rows are others now."""
        record = self.ledger.committed[chunk.number]
        if len(chunk.items) != record["rows"] or (not self.source.files and chunk.content() != record["content"]):
            raise RunDirectoryError(self._another_input)
        found: Float32Array = load_file(self.ledger.path(chunk.number, "safetensors"))["rows"]
        return found

    def _count(self, chunk: Chunk, found: Found) -> None:
        self.rows += len(chunk.items)
        self.computed += len(chunk.new)
        self.copies += len(chunk.keys) - len(chunk.new)
        self.errors += len(chunk.problems)
        self.answered += int(found.rows[:, -1].sum())
        items = [chunk.items[place] for place in found.places]
        for name, tally in self.tallies.items():
            own = found.rows[:, self.layout.place(name)].astype(np.float64)
            mine = np.flatnonzero(~np.isnan(own[:, 0]))
            tally.add(own[mine])
            self.samples[name].add((items[i].number, text_of(items[i], self.text)) for i in mine)

    def _write(self, chunk: Chunk, found: Found) -> None:
        """Write a chunk's parts and commit it."""
        number, routes = chunk.number, [chunk.routes.get(place) for place in found.places]
        predicted = dict(zip(found.places, self.layout.predictions(found.rows, routes), strict=True))
        nothing = dict.fromkeys(self.layout.columns)
        rows = [
            item.values | predicted.get(place, nothing)
            for place, item in enumerate(chunk.items)
            if item.values is not None and place not in chunk.left_out
        ]
        self.output.write_chunk(self.ledger.path(number, "rows"), rows, first=number == 0)
        if chunk.problems:
            lines = [json_line(self._problem(chunk.items[p], chunk.problems[p])) for p in sorted(chunk.problems)]
            self.ledger.path(number, "errors").write_text("".join(lines), encoding="utf-8")
        self.ledger.path(number, "safetensors").write_bytes(save({"rows": found.computed}))
        record: dict[str, Any] = {"rows": len(chunk.items)}
        self.ledger.commit(number, record if self.source.files else record | {"content": chunk.content()})

    def _problem(self, item: Item, reason: str) -> dict[str, Any]:
        """A line of the error file."""
        where: dict[str, Any] = {self.source.unit: item.line}
        if len(self.source.files) > 1:
            where = {"file": self.source.name(item)} | where
        if item.values is not None and "custom_id" in item.values:
            where["custom_id"] = item.values["custom_id"]
        return where | {"reason": reason}

    def assemble(self) -> str:
        """The output and its error file, from all chunks. Returns the sha256 of the output."""
        target = self.ledger.partial / self.ledger.output.name
        numbers = range(self.chunks)
        self.output.assemble([self.ledger.path(n, "rows") for n in numbers], target)
        errors = [path for n in numbers if (path := self.ledger.path(n, "errors")).exists()]
        if errors:
            concatenate(errors, target.with_name(target.name + ERRORS))
        return sha256_file(target)

    def summary(self, plan: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        """The manifest."""
        counted = {
            "kind": "classification",
            "rows": self.rows,
            "errors": self.errors,
            "computed": self.computed,
            "copies": self.copies,
            "seconds": round(self.seconds, 3),
            "labels": {name: tally.by_label for name, tally in self.tallies.items()},
            "drift": changes,
        }
        if plan["certificate"]:
            counted["answered_by_regression"] = self.answered
        return counted | environment() | plan
