"""Embedding features: masked means of the backbone, tied to its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.baselines.embeddings import EmbeddingFeatures
from pipelines.config import BackboneConfig
from pipelines.errors import RunDirectoryError
from tests.toys import tiny_backbone, toy_rows

ROUNDING = 0.005  # relative; what leaves a hidden layer is rounded to bf16
TEXTS = [row["text"] for row in toy_rows(12)]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> list[Backbone]:
    """Two tiny backbones that differ in their weights only."""
    folder = tmp_path_factory.mktemp("backbones")
    paths = [tiny_backbone(folder / f"tiny{seed}", seed=seed) for seed in (0, 1)]
    return [load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 64, 0) for path in paths]


def test_features_are_the_mean_of_the_last_hidden_layer_without_padding(backbones: list[Backbone]) -> None:
    features = EmbeddingFeatures(backbones[0], "fp32", None)
    features.fit_transform(TEXTS)
    found = features.transform(TEXTS)
    assert found.shape == (12, 16)
    model = backbones[0].model.get_submodule("bert")
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([backbones[0].encode([text])[0]])  # alone, hence without padding
        with torch.inference_mode():
            alone = model(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy()
        assert np.linalg.norm(found[row] - alone) < ROUNDING * np.linalg.norm(alone)


def test_training_texts_are_kept_and_others_are_not(backbones: list[Backbone], tmp_path: Path) -> None:
    store = ActivationStore(tmp_path, 1 << 30)
    features = EmbeddingFeatures(backbones[0], "fp32", store)
    first = features.fit_transform(TEXTS)
    assert features.store == "cold"
    size = store.size()
    computed = features.transform(TEXTS)
    features.transform(["the owl sleeps"])
    assert store.size() == size > 0
    assert np.linalg.norm(first - computed) < ROUNDING * np.linalg.norm(first)
    again = EmbeddingFeatures(backbones[0], "fp32", ActivationStore(tmp_path, 1 << 30))
    np.testing.assert_array_equal(again.fit_transform(TEXTS), first)
    assert again.store == "warm"


def test_a_store_that_fails_is_said(backbones: list[Backbone], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    features = EmbeddingFeatures(backbones[0], "fp32", ActivationStore(tmp_path / "file", 1 << 30))
    np.testing.assert_array_equal(features.fit_transform(TEXTS), features.transform(TEXTS))
    assert features.store.startswith("off (")
    assert "Not a directory" in features.store


def test_another_precision_gives_nearly_the_same(backbones: list[Backbone]) -> None:
    exact, fast = (EmbeddingFeatures(backbones[0], precision, None).transform(TEXTS) for precision in ("fp32", "bf16"))
    assert 0 < np.abs(exact - fast).max() < 0.1


def test_saved_for_one_backbone_it_is_refused_with_another(backbones: list[Backbone], tmp_path: Path) -> None:
    first, second = (EmbeddingFeatures(backbone, "fp32", None) for backbone in backbones)
    first.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.json"]
    EmbeddingFeatures(backbones[0], "bf16", None).load(tmp_path)
    with pytest.raises(RunDirectoryError, match=r"come from .*tiny0 with sha256") as refused:
        second.load(tmp_path)
    assert all(backbone.weights.sha256 in str(refused.value) for backbone in backbones)


def test_dimensions_have_no_names(backbones: list[Backbone]) -> None:
    assert EmbeddingFeatures(backbones[0], "fp32", None).names() is None  # type: ignore[func-returns-value]
