"""The training items that a model sees an item most like: nearest by the cosine of their last hidden states.

Case-based explanation, as in Caruana et al. 1999, "Case-based explanation of non-case-based learning methods"; library:
scikit-learn's NearestNeighbors, whose exact search takes a matrix product for each block of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from sklearn.neighbors import NearestNeighbors

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.device import Precision
from pipelines.records import column

SHOWN = 3
LONGEST = 200  # characters of a text


def nearest_items(
    backbone: Backbone,
    items: Dataset,
    texts: Sequence[str],
    precision: Precision,
    store: ActivationStore | None = None,
    most: int = SHOWN,
) -> list[list[dict[str, Any]]]:
    """For every text the items that are most like it, the likest first.

    Args:
        backbone: whose last layer says what is alike, a fine-tuned one as a rule.
        items: N, with `id`, `text` and `label`.
        texts: Q.
        store: of the items' states.
        most: items for each text.

    Returns:
        Q lists of id, text (its beginning), label and similarity, -1 to 1.
    """
    if not len(items) or not texts:
        return [[] for _ in texts]
    features = EmbeddingFeatures(backbone, precision, store)
    search = NearestNeighbors(n_neighbors=min(most, len(items)), metric="cosine", algorithm="brute")
    search.fit(features.fit_transform(column(items, "text")))
    distances, numbers = search.kneighbors(features.transform(texts))
    return [
        [_item(items[int(i)], 1 - float(d)) for i, d in zip(own, far, strict=True)]
        for own, far in zip(numbers, distances, strict=True)
    ]


def _item(row: dict[str, Any], similarity: float) -> dict[str, Any]:
    text = row["text"] if len(row["text"]) <= LONGEST else row["text"][: LONGEST - 1] + "…"
    return {"id": row["id"], "text": text, "label": row["label"], "similarity": similarity}
