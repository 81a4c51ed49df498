"""Items that are there more than once: duplicates, leaks between parts, the same text under different labels."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pipelines.check.findings import Finding, Items, Place, members, share

ORDER = ("test", "validation", "train")  # an item is dropped from a part if an earlier one holds its like


def duplicates(items: Items) -> Finding:
    """Items whose text, or nearly the same, an earlier item of the same part has."""
    places = []
    exact = 0
    for part in reversed(ORDER):
        first_exact: dict[int, int] = {}
        first_near: dict[int, int] = {}
        labelled: set[tuple[int, str]] = set()
        for number in items.of(part).tolist():
            text, near = int(items.exact[number]), int(items.near[number])
            same = int(items.same[number]), items.labels[number]
            if text in first_exact:
                exact += 1
                other = first_exact[text]
                but = "" if items.same[other] == items.same[number] else " but for case, punctuation, links or symbols"
                places.append(items.place(number, f"same text as {items.named(other)}{but}", same in labelled))
            elif near in first_near:
                other = first_near[near]
                places.append(
                    items.place(number, f"nearly the same text as {items.named(other)}, directly or by others")
                )
            first_exact.setdefault(text, number)
            first_near.setdefault(near, number)
            labelled.add(same)
    values = {"exact": exact, "near": len(places) - exact}
    if not places:
        return Finding("duplicates", "fine", "no item is there twice", values)
    sentence = (
        f"{share(len(places), len(items))} items repeat an earlier one ({exact:,} exactly, {len(places) - exact:,} "
        "nearly): they teach nothing new, and inflate a score if they straddle a split"
    )
    return Finding("duplicates", "note", sentence, values, tuple(places))


def leaks(items: Items) -> Finding:
    """Items of one part that a part which must not know them holds too, or that share a group with one there."""
    places, counts = [], Counter[str]()
    for position, part in enumerate(ORDER):
        barred = np.concatenate([items.of(earlier) for earlier in ORDER[:position]] or [np.array([], dtype=np.int64)])
        first: dict[int, int] = {}
        for number in barred.tolist():
            first.setdefault(int(items.groups[number]), number)
        for number in items.of(part).tolist():
            other = first.get(int(items.groups[number]))
            if other is not None:
                counts[f"{part} from {items.parts[other]}"] += 1
                places.append(items.place(number, f"like {items.named(other)}", removable=True))
    if not places:
        parts = len(set(items.parts))
        sentence = "one part was given: what is cut off it shares nothing with the rest" if parts == 1 else "none found"
        return Finding("leaks", "fine", sentence)
    told = ", ".join(f"{count:,} of {pair.replace(' from', ' known from')}" for pair, count in counts.items())
    sentence = (
        f"items are in more than one part, or in a group that is: {told}; training drops them from the later part"
    )
    return Finding("leaks", "problem", sentence, dict(counts), tuple(places))


def contradictions(items: Items) -> Finding:
    """The same text under different labels; nearly the same is a hint, since a word or a symbol can decide."""
    same: list[Place] = []
    near: list[Place] = []
    for groups, found, how in ((items.same, same, "the same"), (items.near, near, "nearly the same")):
        for own in members(groups):
            first: dict[str, int] = {}
            for number in own.tolist():
                first.setdefault(items.labels[number], number)
            for number in own.tolist() if len(first) > 1 else []:
                other = next(i for label, i in first.items() if label != items.labels[number])
                if found is near and items.same[other] == items.same[number]:
                    continue
                found.append(items.place(number, f"{how} text is {items.labels[other]!r} at {items.named(other)}"))
    values = {"same_text": len(same), "nearly_the_same": len(near)}
    if not same and not near:
        return Finding("contradictions", "fine", "no text has two labels", values)
    sentence = (
        f"{share(len(same), len(items))} items have a text that is labelled differently elsewhere, and {len(near):,} "
        "nearly such a text: decide which label is right, or a model is taught both"
    )
    return Finding("contradictions", "problem" if same else "note", sentence, values, (*same, *near))
