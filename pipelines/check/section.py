"""The report's section on the data: the checks of `rootstock check` on the parts that a run was made of."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from pipelines.activation_store import ActivationStore
from pipelines.backbones.text import TextBackbone
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.check.classes import classes
from pipelines.check.findings import Finding, Items, without_personal_data
from pipelines.check.languages import languages
from pipelines.check.lengths import lengths
from pipelines.check.personal import personal_data
from pipelines.check.repeats import contradictions, duplicates
from pipelines.check.suspects import suspects
from pipelines.device import Precision
from pipelines.records import Splits, column

MOST = 2_000  # items of a part that a report can spare time for
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
    chosen = concatenate_datasets([_some(splits, part, seed) for part in ("train", "validation", "test")])
    items = Items(chosen, None if grouped else np.array(column(chosen, "number"), dtype=np.int64))
    findings = [
        classes(items),
        duplicates(items),
        contradictions(items),
        languages(items),
        personal_data(items),
        lengths(items, backbone),
        _doubted(items, backbone, precision, seed, store),
    ]
    looked = {part: len(items.of(part)) for part in ("train", "validation", "test")}
    return {
        "items": looked,
        "all": looked == {part: len(getattr(splits, part)) for part in looked},
        "checks": [_as_json(finding) for finding in without_personal_data(findings)],
    }


def _some(splits: Splits, part: str, seed: int) -> Dataset:
    """Items of a part, with the number of their group and no key of the user's."""
    items = getattr(splits, part)
    if len(items) > MOST:
        items = items.select(np.sort(np.random.default_rng(seed).permutation(len(items))[:MOST]))
    values = {name: column(items, name) for name in ("text", "label", "line")}
    n = len(items)
    return Dataset.from_dict(values | {"number": column(items, "group"), "group": [""] * n, "part": [part] * n})


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
    return asdict(finding) | {"found": len(finding.places), "places": [asdict(p) for p in finding.places[:SHOWN]]}
