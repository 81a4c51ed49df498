"""The table of baselines: every name in the config makes one, and what was saved is loaded by its name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from pipelines.backbones import Backbone, load_text_backbone
from pipelines.baselines import load_baseline, logistic, make_baseline
from pipelines.config import BackboneConfig
from pipelines.config import Baseline as Name
from pipelines.errors import RunDirectoryError
from tests.toys import tiny_backbone, toy_rows

ROWS = toy_rows(24)
TEXTS = [row["text"] for row in ROWS]
TARGETS = np.array([int(row["label"] == "harsh") for row in ROWS])
TFIDF, EMBEDDINGS = "logistic-regression-tfidf", "logistic-regression-embeddings"


def tiny(folder: Path, seed: int = 0) -> Backbone:
    path = tiny_backbone(folder / f"tiny{seed}", seed=seed)
    return load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 64, 0)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tiny(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> dict[str, Path]:
    """Every baseline, trained and saved below its name; with its own probabilities beside it."""
    folder = tmp_path_factory.mktemp("baselines")
    for name in get_args(Name):
        baseline = make_baseline(name, backbone, "fp32")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(logistic, "CS", (1.0,))  # the search is test_logistic's
            baseline.fit(TEXTS, TARGETS, np.arange(24), 2, 0)
        baseline.save(folder / name)
        np.save(folder / f"{name}.npy", baseline.predict_probabilities(TEXTS))
    return {name: folder / name for name in get_args(Name)}


@pytest.mark.parametrize("name", get_args(Name))
def test_loaded_baselines_predict_what_they_predicted(name: str, saved: dict[str, Path], backbone: Backbone) -> None:
    loaded = load_baseline(saved[name], backbone, "fp32")
    before = np.load(saved[name].with_name(f"{name}.npy"))
    np.testing.assert_allclose(loaded.predict_probabilities(TEXTS), before, atol=1e-12)
    np.testing.assert_allclose(before.sum(axis=1), 1.0)
    files = [path for path in saved[name].rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".json", ".safetensors"}


def test_a_baseline_of_another_backbone_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    other = tiny(tmp_path, seed=1)
    with pytest.raises(RunDirectoryError, match="its embeddings come from"):
        load_baseline(saved[EMBEDDINGS], other, "fp32")
    load_baseline(saved[TFIDF], other, "fp32")  # does not use it


def test_only_the_embeddings_need_a_backbone(saved: dict[str, Path]) -> None:
    for name in set(get_args(Name)) - {EMBEDDINGS}:
        before = np.load(saved[name].with_name(f"{name}.npy"))
        np.testing.assert_allclose(load_baseline(saved[name], None, "fp32").predict_probabilities(TEXTS), before)
    with pytest.raises(ValueError, match=f"{EMBEDDINGS} needs the pretrained backbone"):
        load_baseline(saved[EMBEDDINGS], None, "fp32")


@pytest.mark.parametrize("damage", ["cut tensors", "missing file", "cut JSON", "other keys", "other name"])
def test_what_cannot_be_read_as_a_baseline_is_named(
    saved: dict[str, Path], backbone: Backbone, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / (TFIDF if damage != "other name" else "my-baseline")
    path.mkdir()
    for file in saved[TFIDF].iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    if damage == "cut tensors":
        (path / "model.safetensors").write_bytes(b"\x00" * 5)
    elif damage == "missing file":
        (path / "idf.safetensors").unlink()
    elif damage == "cut JSON":
        (path / "model.json").write_text('{"classes": 2, "det')
    elif damage == "other keys":
        (path / "vocabulary.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match=f"{path.name}: cannot be read as a baseline"):
        load_baseline(path, backbone, "fp32")
