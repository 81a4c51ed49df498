"""Is this content like what the model learned from? Label shares, confidence, and distance of embeddings.

The reference is the run's own test part, which is distributed as its training part and which the model has not seen;
for embeddings, its training items.

- Label shares and confidence: population stability index (Siddiqi 2006, "Credit Risk Scorecards"); above 0.2 the
  population is commonly taken to have changed.
- Embeddings: classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545): cross-validated ROC AUC of a
  logistic regression that tells this content from training content. 0.5 means that it cannot.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xxhash
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from pipelines.device import Precision
from pipelines.predict import embed
from pipelines.records import FloatArray, IntArray, column
from pipelines.saved_run import SavedRun

CHANGED = 0.2  # population stability index from which a change is warned of
APART = 0.8  # AUC from which embeddings are
FEWEST = 200  # items on either side below which nothing is said
EMBEDDED = 400  # items on either side whose embeddings are compared
BINS = 10  # of confidence
EMBEDDED_CHARACTERS = 20_000  # of a text that is kept for its embedding: more than any model reads


class Sample:
    """The EMBEDDED texts whose row numbers have the smallest hash: the same whatever the chunks were."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []  # (-hash, text)

    def add(self, numbered: Iterable[tuple[int, str]]) -> None:
        for number, text in numbered:
            entry = (-xxhash.xxh3_64_intdigest(number.to_bytes(8)), text[:EMBEDDED_CHARACTERS])
            if len(self._heap) < EMBEDDED:
                heapq.heappush(self._heap, entry)
            elif entry[0] > self._heap[0][0]:
                heapq.heapreplace(self._heap, entry)

    @property
    def texts(self) -> list[str]:
        return [text for _, text in sorted(self._heap, reverse=True)]


class Tally:
    """How often each label was given, and with which confidence."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)
        self.counts = np.zeros(len(labels), dtype=np.int64)
        self.confidence = np.zeros(BINS, dtype=np.int64)

    def add(self, probabilities: FloatArray) -> None:
        """Probabilities (N, C)."""
        if len(probabilities):
            self.counts += np.bincount(probabilities.argmax(axis=1), minlength=len(self.labels))
            self.confidence += np.bincount(_bins(probabilities), minlength=BINS)

    @property
    def by_label(self) -> dict[str, int]:
        return dict(zip(self.labels, self.counts.tolist(), strict=True))


def drift(
    run: SavedRun, tally: Tally, sample: Sequence[str], precision: Precision, own_confidence: bool = True
) -> dict[str, Any]:
    """What changed against the run's own data, with a warning for each that did.

    Args:
        run: of the model.
        tally: of the content that was classified.
        sample: some of its texts.
        precision: of the embeddings.
        own_confidence: whether all of it is the model's, not that of a regression in front of it.
    """
    reference = _reference(run)
    if min(reference.counts.sum(), tally.counts.sum()) < FEWEST:
        return {"sentence": f"Drift is not measured: it needs {FEWEST} items here and in the run's test part."}
    labels = stability_index(reference.counts, tally.counts)
    confidence = stability_index(reference.confidence, tally.confidence) if own_confidence else None
    apart = _separability(run, sample, precision)
    warnings = []
    if labels >= CHANGED:
        warnings.append(f"label shares differ from the run's test part (stability index {labels:.2f}; {CHANGED} warns)")
    if confidence is not None and confidence >= CHANGED:
        warnings.append(f"confidence differs from the run's test part (stability index {confidence:.2f})")
    if apart is not None and apart >= APART:
        warnings.append(f"texts are unlike the training texts (told apart with an AUC of {apart:.2f}; 0.5 is alike)")
    return {
        "labels": labels,
        "confidence": confidence,
        "embedding_auc": apart,
        "reference_labels": reference.by_label,
        "warnings": warnings,
        "sentence": "Drift: " + "; ".join(warnings) + "." if warnings else "No drift found against the run's own data.",
        "caveat": "A warning says that the content changed, not that labels are wrong; label some of it and compare.",
    }


def stability_index(before: IntArray, now: IntArray) -> float:
    """Population stability index of two counts (K,); half an item is added everywhere, so that none is empty."""
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def _reference(run: SavedRun) -> Tally:
    tally = Tally(run.labels)
    values = pq.read_table(run.path / "predictions.parquet", columns=[f"{run.main}/probabilities"])
    tally.add(np.array(values.column(0).to_pylist(), dtype=np.float64))
    return tally


def _separability(run: SavedRun, sample: Sequence[str], precision: Precision) -> float | None:
    """AUC of telling this content from the training items, (N, D) against (M, D)."""
    seen = run.seen()
    trained = np.flatnonzero(np.array(column(seen, "part")) == "train")
    chosen = np.random.default_rng(0).permutation(trained)[:EMBEDDED]
    training = column(seen.select(chosen), "text")
    if min(len(sample), len(training)) < FEWEST:
        return None
    backbone = run.model()
    X = embed(backbone, backbone.encode([*training, *sample]), precision)
    y = np.repeat([0, 1], [len(training), len(sample)])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.1, max_iter=1000)
    return float(roc_auc_score(y, cross_val_predict(model, X, y, cv=folds, method="predict_proba")[:, 1]))


def _bins(probabilities: FloatArray) -> IntArray:
    """Tenths between the least confidence there can be, 1 / C, and 1."""
    least = 1 / probabilities.shape[1]
    place = (probabilities.max(axis=1) - least) / (1 - least) * BINS
    found: IntArray = np.clip(place.astype(np.int64), 0, BINS - 1)
    return found
