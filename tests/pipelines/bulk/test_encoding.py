"""A hostile text costs only itself; a tokenizer that fails on everything is said to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bulk.encoding import SUSPICIOUS, encoded
from pipelines.errors import BackboneError


class _PanicError(BaseException):
    """What pyo3 raises is no Exception either."""


class Letters:
    """Encodes a text as its letters; one with a ! breaks it."""

    name = "letters"

    def encode(self, texts: Sequence[str]) -> list[list[str]]:
        if any("!" in text for text in texts):
            raise _PanicError("panicked")
        return [list(text) for text in texts]

    def windows(self, texts: Sequence[str]) -> tuple[list[list[str]], list[int]]:
        pieces = [(n, [letter]) for n, text in enumerate(self.encode(texts)) for letter in text]
        return [piece for _, piece in pieces], [n for n, _ in pieces]


BACKBONE: Any = Letters()


@given(texts=st.lists(st.sampled_from(["ab", "c", "!", "d!"]), max_size=7), windows=st.booleans())
def test_every_good_text_is_encoded_and_no_other(texts: list[str], windows: bool) -> None:
    encodings, owners = encoded(BACKBONE, texts, windows)
    expected = [(n, text) for n, text in enumerate(texts) if "!" not in text]
    if windows:
        expected = [(n, letter) for n, text in expected for letter in text]
    assert [(n, "".join(e)) for n, e in zip(owners, encodings, strict=True)] == expected


def test_where_nothing_can_be_encoded_it_is_not_the_texts_fault() -> None:
    with pytest.raises(BackboneError, match=r"letters: its tokenizer fails on every text: .*panicked"):
        encoded(BACKBONE, ["!"] * SUSPICIOUS)
    assert encoded(BACKBONE, ["!"] * (SUSPICIOUS - 1))[0] == []
