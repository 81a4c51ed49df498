"""How long regressions take: measured whole where they are few, scaled where they are many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.activation_store import ActivationStore
from pipelines.baselines.base import EMBEDDINGS
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.baselines.logistic import ONE_FOLD
from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.estimate import regressions
from pipelines.estimate.regressions import Fits, measure_fits
from pipelines.records import Splits, column
from pipelines.tune import prepare
from tests.runs import TFIDF

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "store", 1 << 30)


def measured(
    config: RunConfig, splits: Splits, folder: Path, store: ActivationStore | None = None, begun: int = 0
) -> Fits:
    scratch = ActivationStore(folder / f"scratch{len(list(folder.iterdir()))}", 1 << 30)
    return measure_fits(config, splits.train, splits, "fp32", store, begun, scratch)


def test_few_items_are_all_fitted(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    found = measured(config, load_splits(config.data, 0), tmp_path)
    assert set(found.seconds) == {TFIDF}  # the majority takes no time
    assert found.seconds[TFIDF] > 0
    assert (found.scale, found.embedding, found.store_bytes) == (1.0, 0.0, 0)


def test_of_many_some_are_fitted_and_scaled(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that moves by 2 s whenever it is read: what is measured is 2 s, whatever the items."""
    config = make_config()
    splits = load_splits(config.data, 0)
    monkeypatch.setattr(regressions, "ITEMS", 19)
    now = [0.0]

    def clock() -> float:
        now[0] += 2.0
        return now[0]

    monkeypatch.setattr("pipelines.score.time.perf_counter", clock)
    found = measured(config, splits, tmp_path)
    assert found.scale == 2.0  # 38 items of 19, five folds each
    assert found.seconds == {TFIDF: 4.0}


def test_many_items_times_classes_have_one_fold(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = load_splits(make_config().data, 0)
    assert regressions._work(splits.train, splits, 0) == 38 * 5
    monkeypatch.setattr(regressions, "ONE_FOLD", 2 * 38 - 1)
    assert regressions._work(splits.train, splits, 0) == 38
    assert ONE_FOLD > 76


def test_embeddings_that_are_there_cost_nothing(
    make_config: MakeConfig, tmp_path: Path, store: ActivationStore
) -> None:
    config = make_config(baselines=[EMBEDDINGS])
    splits = load_splits(config.data, 0)
    without, cold = (measured(config, splits, tmp_path, kept_in) for kept_in in (None, store))
    assert without.embedding > 0
    assert without.store_bytes == 0
    assert cold.embedding > 0
    assert cold.store_bytes == 2 * 16 * 38
    backbone = prepare(config, splits.labels, None).backbone
    EmbeddingFeatures(backbone, "fp32", store).fit_transform(column(splits.train, "text")[:30])
    assert measured(config, splits, tmp_path, store).store_bytes == 2 * 16 * 8
    EmbeddingFeatures(backbone, "fp32", store).fit_transform(column(splits.train, "text"))
    warm = measured(config, splits, tmp_path, store)
    assert (warm.embedding, warm.store_bytes) == (0.0, 0)
    assert warm.seconds[EMBEDDINGS] > 0


def test_embeddings_go_on_from_the_states_that_training_keeps(
    make_config: MakeConfig, tmp_path: Path, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(np.arange(1, 10_000, dtype=float))
    monkeypatch.setattr("pipelines.estimate.regressions.time.perf_counter", lambda: next(ticks))
    config = make_config(baselines=[EMBEDDINGS])
    splits = load_splits(config.data, 0)
    from_the_text, from_two = (measured(config, splits, tmp_path, store, begun).embedding for begun in (0, 2))
    assert from_two / from_the_text == pytest.approx(1 / 3, rel=0.2)
