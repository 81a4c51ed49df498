"""The interface of text features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Features(Protocol):
    """Texts -> a matrix (N, F), dense or sparse.

    Attributes:
        store: how the hidden states of the training texts were had: cold, warm, or off.
    """

    store: str

    def fit_transform(self, texts: Sequence[str]) -> Any:
        """Learn what depends on the training texts, such as a vocabulary; (N, F) of them. Labels are not seen."""

    def transform(self, texts: Sequence[str]) -> Any:
        """(N, F)."""

    def names(self) -> list[str] | None:
        """Of the F columns; None where they have no meaning by themselves."""

    def save(self, path: Path) -> None:
        """Write into an existing directory."""

    def load(self, path: Path) -> None:
        """Read what `save` wrote."""
