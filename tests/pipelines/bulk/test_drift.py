"""Changed content is noticed, unchanged content is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bulk import drift as module
from pipelines.bulk.drift import Sample, Tally, drift, stability_index
from pipelines.config import parse_config
from pipelines.run import finetune
from pipelines.saved_run import SavedRun
from tests.toys import toy_config, toy_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    folder = tmp_path_factory.mktemp("drift")
    raw = toy_config(folder, rows=300, baselines=["majority"])
    raw["data"]["test"] = 0.4
    list(finetune(parse_config(raw), folder / "run"))
    return SavedRun(folder / "run")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEWEST", 50)


def tally(run: SavedRun, harsh: float, confident: bool, n: int = 1000) -> Tally:
    """Of a model that calls this share harsh."""
    own = np.arange(n) < harsh * n
    sure = np.where(np.arange(n) % 2, 0.99, 0.9) if confident else np.full(n, 0.55)
    p = np.where(own, sure, 1 - sure)
    counted = Tally(run.labels)
    counted.add(np.stack([1 - p, p], axis=1))
    return counted


def as_on_test(run: SavedRun) -> Tally:
    return module._reference(run)


def test_the_same_content_has_not_changed(run: SavedRun) -> None:
    texts = [row["text"] for row in toy_rows(400, seed=77)]
    found = drift(run, as_on_test(run), texts, "fp32")
    assert found["labels"] == found["confidence"] == 0
    assert 0.3 < found["embedding_auc"] < module.APART
    assert found["warnings"] == []
    assert found["sentence"] == "No drift found against the run's own data."


def test_each_change_is_warned_of(run: SavedRun) -> None:
    texts = ["and very then " * (1 + n % 5) for n in range(400)]
    rare = 1 - int(as_on_test(run).counts.argmax())  # the class number, which is also its share
    found = drift(run, tally(run, 0.02 + 0.96 * rare, confident=False), texts, "fp32")
    assert found["labels"] > module.CHANGED
    assert found["confidence"] > module.CHANGED
    assert found["embedding_auc"] > 0.95
    labels, confidence, texts_differ = found["warnings"]
    assert "label shares differ" in labels
    assert "confidence differs" in confidence
    assert "texts are unlike the training texts" in texts_differ
    assert found["sentence"].startswith("Drift: label shares")


def test_confidence_of_a_regression_is_not_compared(run: SavedRun) -> None:
    found = drift(run, tally(run, 0.5, confident=False), [], "fp32", own_confidence=False)
    assert found["confidence"] is None
    assert not any("confidence" in warning for warning in found["warnings"])


def test_too_few_items_say_nothing(run: SavedRun) -> None:
    found: dict[str, Any] = drift(run, tally(run, 0.5, True, n=10), [], "fp32")
    assert found["sentence"].startswith("Drift is not measured: it needs 50 items")
    assert "warnings" not in found
    assert drift(run, as_on_test(run), ["one text"], "fp32")["embedding_auc"] is None


def test_stability_index_by_hand() -> None:
    p, q = np.array([60.5, 40.5]) / 101, np.array([80.5, 20.5]) / 101
    expected = (q[0] - p[0]) * np.log(q[0] / p[0]) + (q[1] - p[1]) * np.log(q[1] / p[1])
    assert stability_index(np.array([60, 40]), np.array([80, 20])) == pytest.approx(expected)
    assert stability_index(np.array([5, 0]), np.array([5, 0])) == 0
    assert np.isfinite(stability_index(np.array([5, 0]), np.array([0, 5])))


@given(n=st.integers(0, 1200), cut=st.integers(0, 1200))
def test_the_sample_does_not_depend_on_the_chunks(n: int, cut: int) -> None:
    rows = [(number, f"text {number}") for number in range(n)]
    whole, parts = Sample(), Sample()
    whole.add(rows)
    parts.add(rows[:cut])
    parts.add(rows[cut:])
    assert whole.texts == parts.texts
    assert len(whole.texts) == len(set(whole.texts)) == min(n, module.EMBEDDED)


def test_the_sample_is_spread_over_the_input() -> None:
    sample = Sample()
    sample.add((number, str(number)) for number in range(10_000))
    numbers = np.array([int(text) for text in sample.texts])
    assert 4300 < numbers.mean() < 5700
    assert sample.texts[0] != "0"


def test_long_texts_are_kept_in_part(tmp_path: Path) -> None:
    sample = Sample()
    sample.add([(0, "x" * 10**6)])
    assert len(sample.texts[0]) == module.EMBEDDED_CHARACTERS
