"""Models within a bound: what they share is held once, the one used last goes last."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.backbones import Backbone
from pipelines.errors import RunDirectoryError
from pipelines.predict import predict_probabilities
from service.inference.errors import InferenceError
from service.inference.pool import Pool, weights_bytes
from service.inference.records import Answer, Piece
from tests.service.inference.models import grafted, saved
from tests.toys import tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(12, seed=3)]


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    """A pool sets those of its process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """a and b share two layers, c one with both, d nothing."""
    folder = tmp_path_factory.mktemp("pool")
    base, other = tiny_backbone(folder / "tiny"), tiny_backbone(folder / "other", seed=7)
    models = {"a": grafted(base, 1, 2), "b": grafted(base, 2, 2), "c": grafted(base, 3, 1), "d": grafted(other, 4)}
    return {name: saved(folder / name, model) for name, model in models.items()}


def pool_of(runs: dict[str, Path], names: str, most_bytes: int = 1 << 30) -> Pool:
    pool = Pool(most_bytes, torch.get_num_threads(), "fp32")
    for name in names:
        pool.admit(name, pool.load(name, runs[name]))
    return pool


def ask(pool: Pool, names: str) -> list[Any]:
    return pool.compute([Piece(name, TEXTS, 0, 1) for name in names])


def backbones(pool: Pool) -> dict[str, Backbone]:
    return {name: backbone for engine in pool._engines.values() for name, backbone in engine.backbones.items()}


def test_results_are_those_of_each_model_alone(runs: dict[str, Path]) -> None:
    pool = pool_of(runs, "abcd")
    answers = ask(pool, "dabca")
    for name, answer in zip("dabca", answers, strict=True):
        own = pool_of(runs, name)
        (backbone,) = backbones(own).values()
        expected = predict_probabilities(backbone, backbone.encode(TEXTS), "fp32")
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-5)
        assert ask(own, name)[0].labels == answer.labels == ("calm", "harsh")


def test_models_that_come_one_by_one_hold_their_trunk_once(runs: dict[str, Path]) -> None:
    pool = pool_of(runs, "abcd")
    assert len(pool._engines) == 2
    places = {
        n: [layer.attention.self.query.weight.data_ptr() for layer in b.layers] for n, b in backbones(pool).items()
    }
    assert places["a"][:2] == places["b"][:2]
    assert places["a"][0] == places["c"][0]
    assert places["a"][1] != places["c"][1]
    assert len({row[2] for row in places.values()}) == 4
    assert places["d"][0] != places["a"][0]
    single = {name: pool_of(runs, name).weights_bytes for name in "abcd"}
    assert single["a"] + single["d"] < pool.weights_bytes < sum(single.values()) - 2 * (single["a"] // 2)


def test_the_model_that_was_not_used_for_longest_goes(runs: dict[str, Path]) -> None:
    one = pool_of(runs, "a").weights_bytes
    pool = pool_of(runs, "ad", 2 * one)
    ask(pool, "a")
    held = weakref.ref(backbones(pool)["d"].model)
    pool.admit("b", pool.load("b", runs["b"]))
    assert pool.statistics()["models"] == ["a", "b"]
    assert "d" not in pool
    assert held() is None  # at once, not when the collector comes by
    a, d, b = ask(pool, "adb")
    assert d is None
    assert isinstance(a, Answer)
    assert isinstance(b, Answer)
    assert pool.weights_bytes == weights_bytes(backbones(pool).values()) <= 2 * one


def test_what_remains_keeps_the_weights_that_it_shared(runs: dict[str, Path]) -> None:
    pool = pool_of(runs, "ab")
    (before,) = ask(pool, "b")
    pool._drop("a")  # b's lower layers are those that came with a
    gc.collect()
    assert pool.statistics()["models"] == ["b"]
    np.testing.assert_allclose(ask(pool, "b")[0].probabilities, before.probabilities, atol=1e-6)
    pool.admit("a", pool.load("a", runs["a"]))
    assert [isinstance(answer, Answer) for answer in ask(pool, "ab")] == [True, True]


def test_a_model_larger_than_the_bound_is_refused_before_it_is_read(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.inference.pool.SavedRun.model", lambda _: pytest.fail("it was read"))
    with pytest.raises(InferenceError, match=r"expected a model of at most 0\.0 MiB, found .*; the operator") as error:
        Pool(1000, 1, "fp32").load("a", runs["a"])
    assert error.value.code == "model_too_large"


def test_a_directory_that_is_not_what_was_written_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs["a"], copy)
    (copy / "model/config.json").write_text("{}")
    pool = pool_of(runs, "a")
    with pytest.raises(RunDirectoryError, match=r"model/config\.json was changed"):
        pool.load("copy", copy)
    with pytest.raises(RunDirectoryError, match="no such directory"):
        pool.load("nowhere", tmp_path / "nowhere")
    assert isinstance(ask(pool, "a")[0], Answer)


def test_bf16_is_close_and_half_as_large(runs: dict[str, Path]) -> None:
    exact, pool = pool_of(runs, "ab"), Pool(1 << 30, 1, "bf16")
    for name in "ab":
        pool.admit(name, pool.load(name, runs[name]))
    assert pool.weights_bytes < 0.6 * exact.weights_bytes
    for ours, theirs in zip(ask(pool, "ab"), ask(exact, "ab"), strict=True):
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=0.05)
