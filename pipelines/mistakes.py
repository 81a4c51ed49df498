"""Single items worth reading: the surest errors, and where fine-tuned system and rival disagree."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from pipelines.records import FloatArray, IntArray

LISTED = 10
LONGEST = 400  # characters of a text that are shown


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
    text = row["text"] if len(row["text"]) <= LONGEST else row["text"][: LONGEST - 1] + "…"
    said = int(probabilities[i].argmax())
    return {
        "id": row["id"],
        "text": text,
        "label": labels[targets[i]],
        "fine_tuned": labels[said],
        "probability": float(probabilities[i, said]),
        "rival": None if others is None else labels[others[i]],
    }
