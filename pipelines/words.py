"""Tokens -> words of the original text, by the Unicode rules for word boundaries.

A tokenizer's own words differ from model to model: BERT's splits "don't" into three, some of Llama's know none. Unicode
Standard Annex #29 (https://unicode.org/reports/tr29) has one rule for all scripts; the module `regex` implements it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import regex

_BOUNDARY = regex.compile(r"(?V1w)\b")


@dataclass(frozen=True)
class Word:
    """Characters `start` to `end` of a text, read as the tokens at `positions` of its encoding."""

    start: int
    end: int
    positions: tuple[int, ...]


def words_of(text: str, spans: Sequence[tuple[int, int] | None]) -> list[Word]:
    """Words in the order of the text. Every token with a span is in exactly one; words that share a token are one.

    A token of spaces only, or of no character, belongs to the word before it, the first ones to the first word; where
    there are no others, the whole text is one word.

    Args:
        text: the original.
        spans: (start, end) in characters of each of T tokens; None for special ones.
    """
    boundaries = sorted({0, len(text), *(found.start() for found in _BOUNDARY.finditer(text))})
    words: list[Word] = []
    leading: list[int] = []
    for position, span in enumerate(spans):
        if span is None:
            continue
        start, end = _without_spaces(text, *span)
        if start >= end:
            leading.append(position) if not words else _join(words, words[-1].end, position)
            continue
        first, last = boundaries[bisect_right(boundaries, start) - 1], boundaries[bisect_left(boundaries, end)]
        if words and first < words[-1].end:
            _join(words, max(last, words[-1].end), position)
        else:
            words.append(Word(first, last, (*leading, position)))
            leading = []
    return words or ([Word(0, len(text), tuple(leading))] if leading else [])


def _without_spaces(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the spaces around it, which many tokenizers count in."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())


def _join(words: list[Word], end: int, position: int) -> None:
    words[-1] = Word(words[-1].start, end, (*words[-1].positions, position))
