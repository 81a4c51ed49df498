"""Rows in chunks: borders follow from the rows, copies are found, and what cannot be classified is said."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bulk import chunks
from pipelines.bulk.chunks import Chunk, Reader, forget, grouped
from pipelines.bulk.sources import Item


class Words:
    """Encodes a text as the lengths of its words; a text with `boom` breaks it, as a hostile one breaks a tokenizer."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if any("boom" in text for text in texts):
            raise _PanicError("not for except Exception")
        return [[len(word) for word in text.split()] for text in texts]

    def windows(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        pieces = [(n, [size]) for n, text in enumerate(texts) for size in self.encode([text])[0]]
        return [piece for _, piece in pieces], [n for n, _ in pieces]


class _PanicError(BaseException):
    pass


def items(*texts: Any, **more: Any) -> list[Item]:
    rows = [{"text": text} | {name: values[n] for name, values in more.items()} for n, text in enumerate(texts)]
    return [Item(n, "f", n + 1, row, None) for n, row in enumerate(rows)]


def reader(
    names: Sequence[str] = ("m",), route: str | None = None, windows: bool = False, cascade: Any = None
) -> Reader:
    engine: Any = SimpleNamespace(names=list(names), backbone=Words())
    return Reader("text", route, names, [engine], cascade, windows, chunks.ROWS)


def read(rows: list[Item], done: int = 0, **options: Any) -> list[Chunk]:
    return list(reader(**options).chunks(rows, done))


@given(sizes=st.lists(st.integers(0, 50), max_size=40), rows=st.integers(1, 7), characters=st.integers(1, 60))
def test_every_row_is_in_one_group_and_groups_are_bounded(sizes: list[int], rows: int, characters: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHARACTERS", characters)
        source = items(*("x" * size for size in sizes))
        groups = list(grouped(source, rows))
    assert [item for group in groups for item in group] == source
    for group in groups:
        assert 1 <= len(group) <= rows
        assert len(group) == 1 or sum(len((item.values or {})["text"]) for item in group) <= characters


def test_what_gets_no_prediction_and_why() -> None:
    rows = [*items("good", None, "  ", 7, ["x"]), Item(5, "f", 6, None, "not valid JSON")]
    (chunk,) = read(rows)
    assert list(chunk.keys) == [0]
    assert chunk.problems == {
        1: "expected text in column 'text', found none",
        2: "expected text in column 'text', found none",
        3: "expected text in column 'text', found 7",
        4: "expected text in column 'text', found ['x']",
        5: "not valid JSON",
    }


def test_copies_are_new_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 3)
    first, second = read(items("a", "b", "a", "b", "c", "c"))
    assert (first.new, second.new) == ([0, 1], [1])
    assert first.keys[0] == first.keys[2] != first.keys[1]
    assert [encoded.owners.tolist() for encoded in second.encoded] == [[0]]
    assert second.encoded[0].encodings == [[1]]


def test_committed_chunks_are_only_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "ROWS", 2)
    first, second = read(items("a", "b", "a", "c"), done=1)
    assert first.encoded == []
    assert first.new == [0, 1]
    assert second.new == [1]
    assert second.encoded[0].encodings == [[1]]


def test_a_text_that_breaks_the_tokenizer_costs_only_itself() -> None:
    (chunk,) = read(items("one", "a boom", "two words", "boom", "three more words"))
    assert chunk.encoded[0].owners.tolist() == [0, 2, 4]
    assert chunk.encoded[0].encodings == [[3], [3, 5], [5, 4, 5]]


def test_what_the_output_cannot_hold_is_said() -> None:
    engine: Any = SimpleNamespace(names=["m"], backbone=Words())
    rows = [Item(0, "f", 1, {"text": "a"}, None), Item(1, "f", 2, {"text": "b", "more": 1}, None)]
    rows.append(Item(2, "f", 3, {"text": "c", "predicted_label": "x"}, None))
    own = Reader("text", None, ["m"], [engine], None, False, 10, ["text"], ["predicted_label"])
    (chunk,) = own.chunks(rows, 0)
    assert chunk.left_out == {1, 2}
    assert chunk.problems == {
        1: "the key 'more' is not in the first row, so there is no column; write .jsonl",
        2: "the key 'predicted_label' is one that the output adds; rename it",
    }


def test_windows_know_their_text() -> None:
    (chunk,) = read(items("one two", "three"), windows=True)
    assert chunk.encoded[0].encodings == [[3], [3], [5]]
    assert chunk.encoded[0].owners.tolist() == [0, 0, 1]


def test_routes_decide_who_wants_a_text() -> None:
    rows = items("x", "x", "y", "z", client=["a", "b", "a", "c"])
    (chunk,) = read(rows, names=("a", "b"), route="client")
    assert chunk.problems == {3: "expected one of a, b in column 'client', found 'c'"}
    assert chunk.new == [0, 1, 2]  # the same text for two models is not a copy
    wanted = chunk.wanted(["a", "b"])
    assert (wanted["a"].tolist(), wanted["b"].tolist()) == ([True, False, True], [False, True, False])


def test_what_a_cascade_answers_is_not_encoded() -> None:
    class Sure:
        def answer(self, texts: Sequence[str]) -> tuple[Any, Any]:
            return np.full((len(texts), 2), 0.5), np.array(["sure" in text for text in texts])

    (chunk,) = read(items("sure thing", "hard", "so sure"), cascade=Sure())
    assert chunk.encoded[0].owners.tolist() == [1]
    assert chunk.answers is not None
    assert chunk.answers[1].tolist() == [True, False, True]


def test_content_tells_rows_apart() -> None:
    (one,), (two,), (same,) = read(items("a", "b")), read(items("a", "c")), read(items("a", "b"))
    assert one.content() == same.content() != two.content()
    assert read(items("\ud800"))[0].content()  # half a character is no reason to fail


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "REMEMBERED", 2)
    known = {b"a": 1, b"b": 2, b"c": 3}
    forget(known)
    assert known == {b"b": 2, b"c": 3}
