"""How long the regressions take to fit: measured on some training items, and scaled."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from pipelines.activation_store import ActivationStore
from pipelines.activations import filling_work, lacking
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.baselines.base import EMBEDDINGS
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.baselines.logistic import ONE_FOLD, folds_of
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.estimate.plan import padded_tokens
from pipelines.lower_layers import LowerLayers
from pipelines.records import Splits, column
from pipelines.sampling import at_most
from pipelines.score import trained_baseline

ITEMS = 1000  # that are fitted: of fewer, what does not grow with items weighs too much
ITEMS_TIMES_CLASSES = 30_000
TOKENS = 20_000  # that are embedded


@dataclass(frozen=True)
class Fits:
    """What fitting the regressions to all training items takes.

    Attributes:
        seconds: by kind; without embedding the texts.
        embedding: seconds of embedding the texts of training items that the store lacks.
        store_bytes: that embeddings add to the store.
        scale: how much larger the whole is than what was measured.
    """

    seconds: dict[str, float]
    embedding: float
    store_bytes: int
    scale: float


def measure_fits(
    config: RunConfig,
    items: Dataset,
    splits: Splits,
    precision: Precision,
    store: ActivationStore | None,
    begun: int,
    scratch: ActivationStore,
) -> Fits:
    """Fit the regressions of a run to some of the items.

    Time grows with items times folds (measured: 1,000 items foretell 2,000 and 4,000 of EDOS and Banking77 within a
    tenth, manual features within a third).

    Args:
        items: all that the run fits them to.
        store: of the run; None where it keeps nothing.
        begun: depth at which the run will have kept the states of its training items; 0: at none.
        scratch: an empty one.
    """
    kinds, seed = [kind for kind in config.baselines if kind != "majority"], config.training.seed
    pretrained = load_text_backbone(config.backbone, splits.labels, config.data.max_length, seed)
    encodings = pretrained.encode(column(items, "text"))
    lengths = [pretrained.length(encoding) for encoding in encodings]
    C = len(splits.labels)
    most = min(ITEMS, ITEMS_TIMES_CLASSES // C, int(TOKENS / np.mean(lengths)))
    some = at_most(items, most, seed)
    scale = _work(items, splits, seed) / _work(some, splits, seed)
    embedding, added = 0.0, 0
    if EMBEDDINGS in kinds:
        texts = column(some, "text")
        started = time.perf_counter()
        EmbeddingFeatures(pretrained, precision, scratch).fit_transform(texts)
        took = time.perf_counter() - started
        embedding, added = _embedding(took, texts, encodings, pretrained, precision, store, begun)
    seconds: dict[str, float] = {}
    for kind in kinds:
        baseline = trained_baseline(kind, some, replace(splits, train=some), pretrained, precision, seed, scratch)
        seconds[kind] = scale * float(baseline.details["train_seconds"])
    return Fits(seconds, embedding, added, scale)


def _work(items: Dataset, splits: Splits, seed: int) -> int:
    """Items times folds."""
    if len(items) * len(splits.labels) > ONE_FOLD:  # which is one, so that it need not be looked for
        return len(items)
    return len(items) * len(folds_of(splits.targets(items), np.array(column(items, "group")), seed))


def _embedding(
    took: float, texts: list[str], encodings: list[object], pretrained: Backbone, precision: Precision,
    store: ActivationStore | None, begun: int,
) -> tuple[float, int]:  # fmt: skip
    """Seconds of embedding all items, and bytes that the store gains, from the seconds that some texts took."""
    lower = LowerLayers(pretrained, pretrained.depth, "mean", precision)
    own = pretrained.encode(texts)
    if store is None:
        whole, part = (padded_tokens([pretrained.length(e) for e in some]) for some in (encodings, own))
        return took * whole / part, 0
    missing = lacking(lower, encodings, store)
    work = filling_work(lower, encodings, store, begun)
    return took * work / filling_work(lower, own, None), 2 * lower.width * len(missing)
