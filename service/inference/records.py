"""What passes between the parts of live inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """Predictions for N texts of one request, or of a piece of it.

    Attributes:
        labels: C names, in the model's order.
        probabilities: N rows of C.
        tokens: read in all, after texts were cut at the model's length.
    """

    labels: tuple[str, ...]
    probabilities: list[list[float]]
    tokens: int


@dataclass(frozen=True)
class Piece:
    """Texts of one request that are computed in the same round.

    Attributes:
        model: its name among those that are loaded.
        texts: some that follow each other.
        start: place of the first in its request.
        tokens: about how many they have.
    """

    model: str
    texts: Sequence[str]
    start: int
    tokens: int
