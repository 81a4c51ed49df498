"""How many examples every class has."""

from __future__ import annotations

from collections import Counter

from pipelines.check.findings import Finding, Items
from pipelines.data import MIN_PER_CLASS

FEW = 30  # examples below which a class's score says little
UNEVEN = 10  # largest over smallest class from which it is said


def classes(items: Items) -> Finding:
    """Class counts of the training part, and labels of other parts that it lacks."""
    counts = Counter(items.labels[i] for i in items.of("train")).most_common()
    values = {"counts": dict(counts)}
    told = f"{len(counts)} classes, from {counts[-1][1]:,} to {counts[0][1]:,} examples"
    known = {label for label, _ in counts}
    unknown = [number for number, label in enumerate(items.labels) if label not in known]
    if unknown:
        places = tuple(items.place(number, "no training item has this label") for number in unknown)
        names = _names(sorted({items.labels[number] for number in unknown}))
        sentence = f"{told}; training lacks {names} of the other parts, and refuses: add examples or remove those items"
        return Finding("classes", "problem", sentence, values, places)
    rare = [label for label, count in counts if count < MIN_PER_CLASS]
    few = [label for label, count in counts if MIN_PER_CLASS <= count < FEW]
    if rare:
        sentence = (
            f"{told}; fewer than {MIN_PER_CLASS} of {_names(rare)}: training refuses, add some or merge the class"
        )
        return Finding("classes", "problem", sentence, values)
    if few:
        return Finding("classes", "note", f"{told}; fewer than {FEW} of {_names(few)}: their scores say little", values)
    if counts[0][1] >= UNEVEN * counts[-1][1]:
        return Finding("classes", "note", f"{told}: read macro-F1, not accuracy; training weights classes", values)
    return Finding("classes", "fine", told, values)


def _names(labels: list[str]) -> str:
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(repr(label) for label in labels[:5]) + more
