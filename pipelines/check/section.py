"""The report's section on the data: the checks of `rootstock check` on the parts that a run was made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from pipelines.activation_store import ActivationStore
from pipelines.backbones.text import TextBackbone
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.check.classes import trained_classes
from pipelines.check.findings import Finding, Items, without_personal_data
from pipelines.check.languages import languages
from pipelines.check.lengths import lengths
from pipelines.check.personal import personal_data, personal_kinds
from pipelines.check.repeats import contradictions, duplicates
from pipelines.check.suspects import suspects
from pipelines.device import Precision
from pipelines.records import Splits, column
from pipelines.sampling import at_most

MOST = 2_000  # items of a part that a report can spare time for; classes are counted, and repeats sought, in all
DOUBTED = 50_000  # items x classes up to which labels are doubted: a regression is trained fifteen times
SHOWN = 10  # places of a finding


def check_section(
    splits: Splits,
    backbone: TextBackbone,
    precision: Precision,
    seed: int,
    grouped: bool,
    store: ActivationStore | None,
) -> dict[str, Any]:
    """Findings on classes, repeats, languages, personal data, lengths and labels; leaks are dropped before a run.

    Args:
        backbone: pretrained; its tokens count, and its embeddings doubt labels.
        seed: of the items that are looked at, where a part has more than MOST.
        grouped: whether groups hold more than near duplicates, so that these must be looked for again.
        store: of embeddings.
    """
    some = _items(splits, MOST, seed, grouped)
    repeated = some if grouped else _items(splits, None, seed, grouped)  # finding near duplicates again takes time
    findings = [
        trained_classes(Counter(column(splits.train, "label"))),
        duplicates(repeated),
        contradictions(repeated),
        languages(some),
        personal_data(some),
        lengths(some, backbone),
        _doubted(some, backbone, precision, seed, store),
    ]
    looked = {part: len(some.of(part)) for part in ("train", "validation", "test")}
    return {
        "items": looked,
        "all": looked == {part: len(getattr(splits, part)) for part in looked},
        "checks": [_as_json(finding) for finding in without_personal_data(findings)],
    }


def _items(splits: Splits, most: int | None, seed: int, grouped: bool) -> Items:
    """Items of all parts, or some of each, with the number of their group and no key of the user's."""
    parts = []
    for part in ("train", "validation", "test"):
        items: Dataset = getattr(splits, part)
        items = items if most is None else at_most(items, most, seed)
        values = {name: column(items, name) for name in ("text", "label", "line")}
        n = len(items)
        own = {"number": column(items, "group"), "group": [""] * n, "part": [part] * n}
        parts.append(Dataset.from_dict(values | own))
    chosen = concatenate_datasets(parts)
    return Items(chosen, None if grouped else np.array(column(chosen, "number"), dtype=np.int64))


def _doubted(
    items: Items, backbone: TextBackbone, precision: Precision, seed: int, store: ActivationStore | None
) -> Finding:
    texts = [items.texts[i] for i in items.of("train")]
    if len(texts) * len(set(items.labels)) > DOUBTED:
        return Finding(
            "label errors", "fine", "not looked for: too many classes to do so in passing; `rootstock check` does"
        )
    return suspects(items, EmbeddingFeatures(backbone, precision, store).fit_transform(texts), seed)


def _as_json(finding: Finding) -> dict[str, Any]:
    shown = [asdict(p) | ({"text": ""} if personal_kinds(p.text) else {}) for p in finding.places[:SHOWN]]
    return asdict(finding) | {"found": len(finding.places), "places": shown}
