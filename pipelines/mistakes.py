"""Single items worth reading: the surest errors, and where fine-tuned system and rival disagree; what moved it."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.activation_store import ActivationStore
from pipelines.attributions import Attribution, attribute
from pipelines.backbones import Backbone
from pipelines.device import Precision
from pipelines.errors import BackboneError
from pipelines.nearest import nearest_items
from pipelines.records import FloatArray, IntArray, column
from pipelines.sampling import at_most

LISTED = 10
COMPARED = 2_000  # training items that a report can spare time for
LONGEST = 400  # characters of a text that are shown
SHADED = 3  # items of each list whose words are shaded
STEPS, MOST_STEPS = 16, 32  # of the integral, until it adds up; explain takes 32 and more
LISTS = ("worst_errors", "only_rival_right", "only_fine_tuned_right")
SHADING = (
    f"In the first {SHADED}, shaded words moved the score towards what the fine-tuned system said, or away from it "
    "(integrated gradients, against the same text blanked): an approximation, no cause. rootstock explain says how "
    "good it is, for all of them. None is shaded where too much of the change is left unexplained."
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


def listed_items(section: dict[str, Any], items: Dataset) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Every item that the section lists, once: its whole text, and its entry in each of the LISTS that it is in.

    Args:
        section: as in report.json.
        items: with id and text, those of the test part among them.
    """
    texts = {(id, _shown(text)): text for id, text in zip(column(items, "id"), column(items, "text"), strict=True)}
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for name in LISTS:
        for entry in section[name]:
            found.setdefault((entry["id"], entry["text"]), {})[name] = entry
    return [(texts[key], entries) for key, entries in found.items()]


def add_nearest(
    section: dict[str, Any],
    test: Dataset,
    train: Dataset,
    backbone: Backbone,
    precision: Precision,
    seed: int,
    store: ActivationStore | None,
) -> None:
    """Add to what the section lists the `nearest` training items, as the fine-tuned model sees them.

    Args:
        section: of `mistakes_section`; changed in place.
        train: the items that they are chosen from; of more than COMPARED some, stratified, and the caveat says so.
        seed: of that choice.
        store: of their states.
    """
    listed = listed_items(section, test)
    some = at_most(train, COMPARED, seed)
    if listed and len(some) < len(train):
        section["caveat"] += f" Training items like it are sought among {len(some):,} of {len(train):,}."
    found = nearest_items(backbone, some, [text for text, _ in listed], precision, store)
    for (_, entries), own in zip(listed, found, strict=True):
        for entry in entries.values():
            entry["nearest"] = own


def highlight(section: dict[str, Any], test: Dataset, backbone: Backbone) -> None:
    """Add `words`, [word, weight in logits], to the first SHADED of each list, and say so in the section's caveat.

    Eight items cost what training on about 90 does, since two of its three matrix products are needed.

    Args:
        section: of `mistakes_section`; changed in place.
        test: its items.
        backbone: the fine-tuned one.
    """
    listed = listed_items({name: section[name][:SHADED] for name in LISTS}, test)
    try:
        for text, entries in listed:
            said = backbone.labels.index(next(iter(entries.values()))["fine_tuned"])
            attribution = attribute(backbone, text, said, STEPS, MOST_STEPS)
            for entry in entries.values() if attribution.complete else ():
                entry["words"] = _weighed(attribution, text)
    except BackboneError as error:
        section["caveat"] += f" Words are not shaded: {error}."
        return
    if listed:
        section["caveat"] += f" {SHADING}"


def _weighed(found: Attribution, text: str) -> list[list[Any]]:
    """The words in what is shown of a text."""
    end = len(text) if len(text) <= LONGEST else LONGEST - 1
    pairs = zip(found.words, found.weights.tolist(), strict=True)
    return [[text[word.start : word.end], round(weight, 4)] for word, weight in pairs if word.end <= end]
