"""Single items worth reading: the surest errors, and where fine-tuned system and rival disagree; what moved it."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.activation_store import ActivationStore
from pipelines.attributions import attribute
from pipelines.backbones import Backbone
from pipelines.device import Precision
from pipelines.errors import BackboneError
from pipelines.nearest import nearest_items
from pipelines.records import FloatArray, IntArray, column

LISTED = 10
COMPARED = 2_000  # training items that a report can spare time for
LONGEST = 400  # characters of a text that are shown
STEPS = 16  # of the integral; explain takes 32 and more, until it adds up
LISTS = ("worst_errors", "only_rival_right", "only_fine_tuned_right")
SHADED = (
    "Shaded words moved the score towards what the fine-tuned system said, or away from it (integrated gradients, "
    "against the same text blanked): an approximation, no cause. rootstock explain says how good it is."
)


def mistakes_section(
    test: Dataset, labels: tuple[str, ...], targets: IntArray, probabilities: FloatArray, rival: FloatArray | None
) -> dict[str, Any]:
    """The surest errors, and disagreements in both directions.

    Args:
        test: N items.
        labels: C classes.
        targets: (N,).
        probabilities, rival: (N, C) of the fine-tuned system and of its rival, if there is one.
    """
    predicted = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    wrong = predicted != targets
    others = None if rival is None else rival.argmax(axis=1)
    said = predicted if others is None else others
    split = predicted != said
    chosen = {
        "worst_errors": wrong,
        "only_fine_tuned_right": split & ~wrong,
        "only_rival_right": split & (said == targets),
    }

    def shown(own: Any) -> list[dict[str, Any]]:
        positions = np.flatnonzero(own)
        return [
            _item(test, int(i), labels, targets, probabilities, others)
            for i in positions[np.argsort(-sure[positions], kind="stable")][:LISTED]
        ]

    return {
        "counts": {name: int(own.sum()) for name, own in chosen.items()} | {"disagreements": int(split.sum())},
        **{name: shown(own) for name, own in chosen.items()},
        "caveat": f"At most {LISTED} of each, the surest first; texts are cut at {LONGEST} characters. A sure error is "
        "often a wrong label: read it before you blame the model.",
    }


def _item(
    test: Dataset,
    i: int,
    labels: tuple[str, ...],
    targets: IntArray,
    probabilities: FloatArray,
    others: IntArray | None,
) -> dict[str, Any]:
    row = test[i]
    said = int(probabilities[i].argmax())
    return {
        "id": row["id"],
        "text": _shown(row["text"]),
        "label": labels[targets[i]],
        "fine_tuned": labels[said],
        "probability": float(probabilities[i, said]),
        "rival": None if others is None else labels[others[i]],
    }


def _shown(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def listed_items(section: dict[str, Any], items: Dataset) -> dict[tuple[str, str], tuple[str, list[dict[str, Any]]]]:
    """Id and shown text of what the section lists -> the whole text, and the entries that are about it.

    Args:
        section: as in report.json.
        items: with id and text, those of the test part among them.
    """
    texts = {(id, _shown(text)): text for id, text in zip(column(items, "id"), column(items, "text"), strict=True)}
    found: dict[tuple[str, str], tuple[str, list[dict[str, Any]]]] = {}
    for entry in (entry for name in LISTS for entry in section[name]):
        key = entry["id"], entry["text"]
        found.setdefault(key, (texts[key], []))[1].append(entry)
    return found


def add_nearest(
    section: dict[str, Any],
    test: Dataset,
    train: Dataset,
    backbone: Backbone,
    precision: Precision,
    store: ActivationStore | None,
) -> None:
    """Add to what the section lists the `nearest` training items, as the fine-tuned model sees them.

    Args:
        section: of `mistakes_section`; changed in place.
        train: the items that they are chosen from; of more than COMPARED the first.
        store: of their states.
    """
    listed = listed_items(section, test)
    some = train.select(range(min(COMPARED, len(train))))
    found = nearest_items(backbone, some, [text for text, _ in listed], precision, store)
    for (_, entries), own in zip(listed, found, strict=True):
        for entry in entries.values():
            entry["nearest"] = own


def highlight(section: dict[str, Any], test: Dataset, backbone: Backbone) -> None:
    """Add to what the section lists the `words` that are shown, [word, weight in logits], and say so in its caveat.

    Measured TODO

    Args:
        section: of `mistakes_section`; changed in place.
        test: its items.
        backbone: the fine-tuned one.
    """
    try:
        for text, entries in listed_items(section, test).values():
            said = backbone.labels.index(entries[0]["fine_tuned"])
            found = attribute(backbone, text, said, STEPS, STEPS)
            end = len(text) if len(text) <= LONGEST else LONGEST - 1
            pairs = zip(found.words, found.weights.tolist(), strict=True)
            words = [[text[word.start : word.end], round(weight, 4)] for word, weight in pairs if word.end <= end]
            for entry in entries:
                entry["words"] = words
    except BackboneError as error:
        section["caveat"] += f" Words are not shaded: {error}."
        return
    section["caveat"] += f" {SHADED}"
