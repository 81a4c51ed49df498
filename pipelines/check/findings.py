"""What the checks look at, and what they find."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from pipelines.duplicates import exact_groups, group_items, number_by
from pipelines.records import IntArray, column

EXCERPT, LABEL = 160, 80  # characters of a text and of a label that a finding shows
Level = Literal["fine", "note", "problem"]


@dataclass(frozen=True)
class Place:
    """An item that a finding is about.

    Attributes:
        number: of the item among all.
        part: train, validation or test.
        line: where it stands in its file.
        why: for people.
        text: its beginning; empty where it must not be repeated.
        removable: a clean copy does without it.
    """

    number: int
    part: str
    line: int
    label: str
    why: str
    text: str
    removable: bool = False


@dataclass(frozen=True)
class Finding:
    """One check's outcome.

    Attributes:
        name: such as `leaks`.
        level: fine; note: know it; problem: it will mislead training or its figures.
        sentence: for people.
        values: figures, as JSON.
        places: the items, the most telling first.
    """

    name: str
    level: Level
    sentence: str
    values: dict[str, Any] = field(default_factory=dict)
    places: tuple[Place, ...] = ()


class Items:
    """All labelled items of all parts.

    Args:
        items: with text, label, line, group (of the user's column, or "") and part.
        near: numbers that near duplicates have in common, (N,), where they are known already.
    """

    def __init__(self, items: Dataset, near: IntArray | None = None) -> None:
        self._near = near
        self.texts: list[str] = column(items, "text")
        self.labels: list[str] = column(items, "label")
        self.lines: list[int] = column(items, "line")
        self.parts: list[str] = column(items, "part")
        self._keys: list[str] = column(items, "group")

    def __len__(self) -> int:
        return len(self.texts)

    def of(self, part: str) -> IntArray:
        """Numbers of the items of a part."""
        return np.flatnonzero(np.array(self.parts) == part)

    @cached_property
    def same(self) -> IntArray:
        """Equal for items with the same text but for white space, (N,)."""
        return number_by([" ".join(unicodedata.normalize("NFC", text).split()) for text in self.texts])

    @cached_property
    def exact(self) -> IntArray:
        """Equal for items whose texts differ in case, punctuation, links and symbols at most, (N,)."""
        return exact_groups(self.texts)

    @cached_property
    def groups(self) -> IntArray:
        """Equal for near duplicates and for items of one group of the user's, (N,)."""
        if self._near is not None and not any(self._keys):
            return self._near
        return group_items(self.texts, [self._keys] if any(self._keys) else [])

    @cached_property
    def near(self) -> IntArray:
        """Equal for near duplicates, (N,)."""
        return group_items(self.texts) if any(self._keys) else self.groups

    def place(self, number: int, why: str, removable: bool = False) -> Place:
        text, label = _cut(self.texts[number], EXCERPT), _cut(self.labels[number], LABEL)
        return Place(int(number), self.parts[number], self.lines[number], label, why, text, removable)

    def named(self, number: int) -> str:
        """Where an item stands, for people."""
        return f"{self.parts[number]} line {self.lines[number]}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def without_personal_data(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, with the texts blanked that may hold personal data."""
    hidden = {(p.part, p.line) for found in findings if found.name == "personal data" for p in found.places}

    def blanked(place: Place) -> Place:
        return replace(place, text="") if (place.part, place.line) in hidden else place

    return [replace(found, places=tuple(map(blanked, found.places))) for found in findings]


def share(count: int, total: int) -> str:
    """`12 (3.4%)`."""
    return f"{count:,} ({count / total:.1%})" if total else f"{count:,}"


def members(groups: IntArray) -> Iterable[IntArray]:
    """Numbers of the items of every group that has more than one, in the order of the items."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return (own for own in np.split(order, starts[1:]) if len(own) > 1)
