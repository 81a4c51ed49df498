"""Logits -> probabilities of every text -> the columns of the output."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from pipelines.bulk.chunks import Chunk, Encodings
from pipelines.bulk.predictions import Layout, probabilities

LABELS = {"m": ("no", "yes")}
TWO = {"m": ("no", "yes"), "n": ("a", "b", "c")}


def engine(**logits: Any) -> Any:
    """Gives these logits, (N, C), to the models of these names."""
    return SimpleNamespace(names=list(logits), logits=lambda _, __: {n: np.array(z, float) for n, z in logits.items()})


def chunk(owners: list[int], texts: int, **more: Any) -> Chunk:
    encoded = Encodings([[0]] * len(owners), np.array(owners, dtype=np.int64))
    return Chunk(0, [], new=list(range(texts)), encoded=[encoded], **more)


def test_a_text_has_the_softmax_of_its_logits_and_windows_are_averaged() -> None:
    found = probabilities(chunk([0, 1, 1], 2), [engine(m=[[0, 1], [2, 0], [0, 4]])], Layout(LABELS))
    p = softmax([[0, 1], [2, 0], [0, 4]], axis=1)
    np.testing.assert_allclose(found[:, :2], [p[0], (p[1] + p[2]) / 2], rtol=1e-6)
    assert found[:, 2].tolist() == [0, 0]


def test_what_was_not_encoded_is_not_a_number() -> None:
    found = probabilities(chunk([1], 2), [engine(m=[[0, 0]])], Layout(LABELS))
    assert np.isnan(found[0, :2]).all()
    assert found[1].tolist() == [0.5, 0.5, 0]
    assert np.isnan(probabilities(chunk([], 2), [engine(m=[])], Layout(LABELS))[:, :2]).all()


def test_one_model_of_several_may_give_nothing() -> None:
    row = np.array([[np.nan, np.nan, 0.2, 0.5, 0.3, 0]], dtype=np.float32)
    (found,) = Layout(TWO).predictions(row, [None])
    assert found["m/predicted_label"] is found["m/predicted_score"] is found["m/predicted_scores"] is None
    assert found["n/predicted_label"] == "b"


def test_the_regression_of_a_cascade_is_noted() -> None:
    answers = np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([True, False])
    layout = Layout(LABELS, staged=True)
    found = probabilities(chunk([1], 2, answers=answers), [engine(m=[[0, 0]])], layout)
    np.testing.assert_allclose(found, [[0.9, 0.1, 1], [0.5, 0.5, 0]], rtol=1e-6)
    rows = layout.predictions(found, [None, None])
    assert [row["predicted_by_stage"] for row in rows] == ["regression", "transformer"]
    assert layout.columns[-1] == "predicted_by_stage"


def test_routed_texts_have_one_model() -> None:
    layout = Layout(TWO, routed=True)
    both = chunk([0, 1], 2, routes={0: "m", 1: "n"})
    engines = [engine(m=[[0, 0], [np.nan, np.nan]], n=[[np.nan] * 3, [0, 0, 9]])]
    found = probabilities(both, engines, layout)
    rows = layout.predictions(found, ["m", "n"])
    assert [row["predicted_by_model"] for row in rows] == ["m", "n"]
    assert rows[1]["predicted_label"] == "c"
    assert set(rows[0]["predicted_scores"]) == {"no", "yes"}


def test_columns_of_one_and_of_many() -> None:
    row = np.array([[0.25, 0.75, 0]], dtype=np.float32)
    assert Layout(LABELS).predictions(row, [None]) == [
        {"predicted_label": "yes", "predicted_score": 0.75, "predicted_scores": {"no": 0.25, "yes": 0.75}}
    ]
    many = Layout(TWO, top_k=2, thresholds={"m": {"no": 0.2}, "n": {}})
    (found,) = many.predictions(np.array([[0.25, 0.75, 0.2, 0.5, 0.3, 0]], dtype=np.float32), [None])
    assert list(found) == many.columns
    assert found["m/predicted_flags"] == ["no"]
    assert found["n/predicted_flags"] == []
    assert found["n/predicted_scores"] == {"b": 0.5, "c": pytest.approx(0.3)}
    assert list(found["n/predicted_scores"]) == ["b", "c"]  # best first


def test_scores_are_rounded_to_six_digits() -> None:
    (found,) = Layout(LABELS).predictions(np.array([[1 / 3, 2 / 3, 0]], dtype=np.float32), [None])
    assert found["predicted_scores"] == {"no": 0.333333, "yes": 0.666667}
