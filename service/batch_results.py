"""A labelled table -> what its page shows, and the items that a person should look at.

The queue of a decision holds the items nearest to it: between the two classes with the highest scores, or at a
threshold that the model's report promises. Their labels teach most (uncertainty sampling: Lewis and Gale 1994,
https://arxiv.org/abs/cmp-lg/9407020).
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.bulk.outputs import inert
from pipelines.bulk.sources import open_source
from pipelines.durable import sync, write_json
from pipelines.errors import Interrupted
from pipelines.tables import Row, open_lines, read_jsonl
from service.phases.batch_names import ITEMS, PREVIEW, QUEUE

ROWS, PROBLEMS, CELL = 10, 50, 300  # rows and errors that a page shows, characters of each
NEAREST, DECISIONS = 200, 25  # items of a queue; queues
CHARACTERS = 20_000  # of a text that is put before a person whole: others are left out
SCORES = 20  # of an item, the highest, and those that a queue is about


@dataclass(frozen=True)
class Labelled:
    """A row of the output that has a prediction. `number` is its place in the output, from 1."""

    number: int
    text: str
    label: str
    scores: Mapping[str, float]


@dataclass
class Queue:
    """The items nearest to one decision, no text twice. Without a class: between the two highest scores."""

    name: str
    label: str | None = None
    threshold: float = 0.0
    _heap: list[tuple[float, int, Labelled]] = field(default_factory=list)
    _texts: set[str] = field(default_factory=set)

    def add(self, item: Labelled) -> None:
        entry = (-self._distance(item.scores), -item.number, item)
        full = len(self._heap) == NEAREST
        if item.text in self._texts or (full and entry <= self._heap[0]):
            return
        if full:
            self._texts.discard(heapq.heapreplace(self._heap, entry)[2].text)
        else:
            heapq.heappush(self._heap, entry)
        self._texts.add(item.text)

    @property
    def items(self) -> list[Labelled]:
        """The nearest first."""
        return [item for *_, item in sorted(self._heap, reverse=True)]

    def _distance(self, scores: Mapping[str, float]) -> float:
        if self.label is not None:
            return abs(scores[self.label] - self.threshold)
        first, second = heapq.nlargest(2, scores.values())
        return first - second


def queues(points: Sequence[Mapping[str, Any]]) -> list[Queue]:
    """One of the class that the model gives, then those of the operating points that its report promises, classes in
    turn, so that none takes all places."""
    places: Counter[str] = Counter()
    own: list[tuple[int, Queue]] = []
    for point in (point for point in points if point["threshold"] is not None):
        label = str(point["class"])
        name = f"{label}: {point['wanted']} at least {100 * float(point['aim']):g}%"
        own.append((places[label], Queue(name, label, point["threshold"])))
        places[label] += 1
    in_turn = [queue for _, queue in sorted(own, key=lambda pair: pair[0])]
    return [Queue("the class that it gives"), *in_turn][:DECISIONS]


def write_results(
    folder: Path,
    output: Path,
    errors: Path,
    text: str,
    summary: Mapping[str, Any],
    asked: Sequence[Queue],
    stop: Callable[[], bool],
) -> None:
    """Write PREVIEW, ITEMS and a QUEUE file for each decision into a new folder, durably.

    A queue names its items by their row and by the byte at which their line begins, so that one is read alone.

    Args:
        output, errors: what `pipelines.classify` has written; there may be no errors.
        text: the column of the input that was classified.
        summary: the manifest of the output.
        asked: queues, which are filled.

    Raises:
        DataError: the output cannot be read back.
        Interrupted: `stop` said so.
    """
    folder.mkdir()
    named = {queue.label for queue in asked if queue.label is not None}
    first: list[dict[str, Any]] = []
    for item in _labelled(output, text, named):
        if item.number % 1000 == 0 and stop():
            raise Interrupted("stopped while the results were read once more")
        if len(first) < ROWS:
            first.append({"text": _cut(item.text), "label": item.label, "score": item.scores[item.label]})
        if len(item.text) <= CHARACTERS:
            for queue in asked:
                queue.add(item)
    places = _write_items(folder / ITEMS, {item.number: item for queue in asked for item in queue.items})
    for number, queue in enumerate(asked):
        decision = {"name": queue.name, "class": queue.label, "threshold": queue.threshold}
        write_json(
            folder / QUEUE.format(number), decision | {"items": [[i.number, places[i.number]] for i in queue.items]}
        )
    drift = _only(summary["drift"])
    preview = {
        "rows": first,
        "errors": _problems(errors),
        "shares": _shares(_only(summary["labels"]), drift.get("reference_labels")),
        "drift": {key: drift.get(key) for key in ("sentence", "warnings", "caveat")},  # a reason may name a path
        "queues": [{"name": queue.name, "items": len(queue.items)} for queue in asked],
    }
    write_json(folder / PREVIEW, preview)
    for path in (*folder.iterdir(), folder):
        sync(path)


def _write_items(path: Path, items: Mapping[int, Labelled]) -> dict[int, int]:
    """One line for each item. Returns row -> where its line begins."""
    places = {}
    with path.open("wb") as file:
        for number, item in sorted(items.items()):
            places[number] = file.tell()
            own = {"row": number, "text": item.text, "label": item.label, "scores": item.scores}
            file.write(json.dumps(own, ensure_ascii=False).encode() + b"\n")
    return places


def _labelled(output: Path, text: str, named: Collection[str]) -> Iterator[Labelled]:
    """Rows of the output that have a text and a prediction."""
    quoted = output.suffix in (".csv", ".tsv")
    column = inert(text) if quoted else text
    for item in open_source(str(output)).items():
        values = item.values or {}
        scores, content = values.get("predicted_scores"), values.get(column)
        if not scores or not content:
            continue
        known: dict[str, float] = json.loads(scores) if isinstance(scores, str) else scores
        label = str(values["predicted_label"])
        label = label if label in known or not quoted else _original(label)
        if len(known) > SCORES:
            highest = heapq.nlargest(SCORES, known, key=lambda name: known[name])
            known = {name: known[name] for name in {*highest, *named, label} if name in known}
        yield Labelled(item.number + 1, _original(content) if quoted else str(content), label, known)


def _original(cell: str) -> str:
    """A cell without the apostrophe that keeps spreadsheets from running it."""
    return cell[1:] if cell.startswith("'") and inert(cell[1:]) == cell else cell


def _problems(errors: Path) -> list[dict[str, Any]]:
    """Where each row that has none stands, and why."""
    if not errors.exists():
        return []
    with_reasons = (record.values for record in read_jsonl(open_lines(errors)) if isinstance(record, Row))
    return [
        {"line": each.get("line") or each.get("row"), "reason": _cut(str(each["reason"]))}
        for each in islice(with_reasons, PROBLEMS)
    ]


def _only(by_model: Mapping[str, Any]) -> Any:
    (own,) = by_model.values()
    return own


def _shares(counts: Mapping[str, int], before: Mapping[str, int] | None) -> list[dict[str, Any]]:
    """How often each label was given, the most frequent first, beside how often it was in the model's test part."""
    total, total_before = sum(counts.values()), sum((before or {}).values())
    found = [
        {
            "label": label,
            "count": count,
            "share": count / total if total else 0.0,
            "before": before[label] / total_before if before and total_before else None,
        }
        for label, count in counts.items()
    ]
    return sorted(found, key=lambda each: -each["count"])


def _cut(text: str) -> str:
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
