"""Words with weights -> what a page shows of them: shaded pieces of the text, and the strongest in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAINT = 0.05  # of the strongest word of a text; weaker ones are not shaded
DARKEST = 0.45  # opacity of the strongest, so that ink on it can be read in light and in dark
NAMED = 3  # of each sign

Weighed = Sequence[tuple[str, float]]  # words of a text in their order, with weights


@dataclass(frozen=True)
class Piece:
    """A part of a text: a word, or what stands between words, whose share is 0.

    Attributes:
        share: weight over that of the strongest word, -1 to 1; 0 where it is faint.
        shade: opacity.
    """

    text: str
    share: float

    @property
    def shade(self) -> float:
        return round(DARKEST * abs(self.share), 3)


def pieces(text: str, words: Weighed) -> list[Piece]:
    """All of a text in pieces. A word that is not found behind the one before it is left out of the shading."""
    most = max((abs(weight) for _, weight in words), default=0.0)
    found, shown, end = [], 0, 0
    for word, weight in words:
        start = text.find(word, end)
        if start < 0:
            continue
        end = start + len(word)
        if weight and abs(weight) >= FAINT * most:
            found += [Piece(text[shown:start], 0.0), Piece(word, weight / most)]
            shown = end
    return [piece for piece in (*found, Piece(text[shown:], 0.0)) if piece.text]


def strongest(words: Weighed, sign: int) -> list[tuple[str, float]]:
    """The NAMED strongest words of a sign, the strongest first."""
    own = [(word, weight) for word, weight in words if sign * weight > 0]
    return sorted(own, key=lambda pair: -abs(pair[1]))[:NAMED]
