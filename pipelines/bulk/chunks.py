"""Input rows -> chunks, and of each chunk what has to be computed.

A chunk is the window inside which rows are sorted by length, and what is committed at once. Its borders are a function
of the rows alone. A text that was seen among the last REMEMBERED distinct ones is not computed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash

from pipelines.backbones.base import Encoding
from pipelines.bulk.cascade import Cascade
from pipelines.bulk.encoding import encoded
from pipelines.bulk.engines import Engine
from pipelines.bulk.outputs import without_column
from pipelines.bulk.sources import Item
from pipelines.records import BoolArray, FloatArray, IntArray

ROWS = 4096
FURTHER = 4  # times as many where order does not matter: less padding, but more is lost at a kill
CHARACTERS = 16 << 20  # of all values in a chunk: long articles make short chunks, so that memory stays bounded
REMEMBERED = 100_000
KEY_BYTES = 16


@dataclass(frozen=True)
class Encodings:
    """Texts of a chunk as an engine wants them.

    Attributes:
        encodings: M; several of one text where it is split into windows.
        owners: which of the new texts each belongs to, (M,).
    """

    encodings: list[Encoding]
    owners: IntArray


@dataclass
class Chunk:
    """Some rows that follow each other.

    Attributes:
        number: of the chunk.
        items: its rows.
        problems: why a row gets no prediction, by its place in the chunk.
        keys: of every row that gets one; the same for copies.
        routes: name of the one model that a row goes to; empty without routing.
        new: places of the rows that are the first of their text, U of them.
        left_out: rows that the output cannot hold.
        answers: what the regression of a cascade says of the new texts, (U, C), and where it is sure, (U,).
        encoded: what is left for every engine.
    """

    number: int
    items: list[Item]
    problems: dict[int, str] = field(default_factory=dict)
    keys: dict[int, bytes] = field(default_factory=dict)
    routes: dict[int, str] = field(default_factory=dict)
    new: list[int] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    answers: tuple[FloatArray, BoolArray] | None = None
    encoded: list[Encodings] = field(default_factory=list)

    def content(self) -> str:
        """Digest of the rows, by which an input that cannot be read twice is recognised."""
        digest = xxhash.xxh3_128()
        for item in self.items:
            digest.update(repr((item.values, item.problem)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def wanted(self, names: Sequence[str]) -> dict[str, BoolArray]:
        """For every model, which of the new texts it is to classify, (U,)."""
        routes = [self.routes.get(place) for place in self.new]
        return {name: np.array([route in (None, name) for route in routes], dtype=bool) for name in names}


@dataclass(frozen=True)
class Reader:
    """How rows become chunks that are ready to be computed.

    Attributes:
        text: column.
        route: column with the name of the model that a row goes to.
        names: of the models.
        engines: each with what it makes of a text.
        cascade: asked first.
        windows: whether longer texts are split instead of cut.
        rows: of a chunk at most.
        columns: of the output; a row with another key would lose it. None where rows name their own.
        added: columns that the output adds; a row that has one would lose it.
    """

    text: str
    route: str | None
    names: Sequence[str]
    engines: Sequence[Engine]
    cascade: Cascade | None
    windows: bool
    rows: int
    columns: Sequence[str] | None = None
    added: Sequence[str] = ()

    def chunks(self, items: Iterable[Item], done: int) -> Iterator[Chunk]:
        """All chunks; the first `done` are committed, and nothing is prepared for them."""
        known: dict[bytes, None] = {}
        for number, rows in enumerate(grouped(items, self.rows)):
            chunk = Chunk(number, rows)
            self._look(chunk)
            first: dict[bytes, int] = {}
            for place, key in chunk.keys.items():
                if key not in known:
                    first.setdefault(key, place)
            chunk.new = list(first.values())
            known |= dict.fromkeys(first)
            forget(known)
            if number >= done:
                self._prepare(chunk)
            yield chunk

    def _look(self, chunk: Chunk) -> None:
        """Find the rows that get a prediction."""
        for place, item in enumerate(chunk.items):
            if item.values is None:
                chunk.problems[place] = item.problem or "cannot be read"
                continue
            if reason := self._unwritable(item.values):
                chunk.problems[place] = reason
                chunk.left_out.add(place)
                continue
            text = item.values.get(self.text)
            if not (isinstance(text, str) and text.strip()):
                chunk.problems[place] = f"expected text in column {self.text!r}, found {_found(text)}"
                continue
            route = "" if self.route is None else item.values.get(self.route)
            if self.route is not None and route not in self.names:
                known = ", ".join(self.names)
                chunk.problems[place] = f"expected one of {known} in column {self.route!r}, found {_found(route)}"
                continue
            if route:
                chunk.routes[place] = route
            content = f"{route}\0{text}".encode("utf-8", "surrogatepass")
            chunk.keys[place] = hashlib.blake2b(content, digest_size=KEY_BYTES).digest()

    def _unwritable(self, values: dict[str, Any]) -> str | None:
        """Why the output cannot hold a row as it is."""
        taken = sorted(values.keys() & set(self.added))
        if taken:
            return f"the key {taken[0]!r} is one that the output adds; rename it"
        return None if self.columns is None else without_column(values, self.columns)

    def _prepare(self, chunk: Chunk) -> None:
        texts = [text_of(chunk.items[place], self.text) for place in chunk.new]
        left = np.ones(len(texts), dtype=bool)
        if self.cascade is not None and texts:
            chunk.answers = self.cascade.answer(texts)
            left = ~chunk.answers[1]
        numbers = np.flatnonzero(left)
        for engine in self.engines:
            own = engine.names
            wanted = np.any(list(chunk.wanted(own).values()), axis=0)
            chunk.encoded.append(self._encode(engine, texts, [int(i) for i in numbers if wanted[i]]))

    def _encode(self, engine: Engine, texts: Sequence[str], numbers: Sequence[int]) -> Encodings:
        own = [texts[i] for i in numbers]
        encodings, places = encoded(engine.backbone, own, self.windows)
        return Encodings(encodings, np.asarray(numbers, dtype=np.int64)[places])


def grouped(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    """Rows in groups of at most `most` and about CHARACTERS."""
    rows: list[Item] = []
    total = 0
    for item in items:
        own = size(item)
        if rows and (len(rows) == most or total + own > CHARACTERS):
            yield rows
            rows, total = [], 0
        rows.append(item)
        total += own
    if rows:
        yield rows


def size(item: Item) -> int:
    """About how many characters a row has."""
    return sum(len(v) if isinstance(v, str) else len(repr(v)) for v in (item.values or {}).values())


def forget(known: dict[bytes, Any]) -> None:
    """Drop the oldest beyond REMEMBERED."""
    while len(known) > REMEMBERED:
        del known[next(iter(known))]


def text_of(item: Item, column: str) -> str:
    """The text of a row that gets a prediction."""
    assert item.values is not None
    text: str = item.values[column]
    return text


def _found(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "none"
    return repr(value)[:80]
