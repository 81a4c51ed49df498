"""The cascade: which regression, the items that certify it, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.bulk.cascade import Cascade, calibration_items, load_quick, quick_baseline
from pipelines.bulk.certificate import Certificate
from pipelines.errors import ConfigError, DataError
from pipelines.records import FloatArray
from pipelines.saved_run import SavedRun
from tests.runs import TFIDF, client_config, first_run, run, table
from tests.toys import toy_rows, write_csv

MANUAL = "logistic-regression-manual"
NAME = TFIDF
EPS = 0.002


class Fixed:
    """A baseline with given probabilities."""

    details: dict[str, Any]

    def __init__(self, found: FloatArray) -> None:
        self.found = found

    def predict_probabilities(self, texts: Sequence[str]) -> FloatArray:
        return self.found[: len(texts)]


def test_items_from_the_threshold_on_are_answered_with_calibrated_probabilities() -> None:
    certificate = Certificate(NAME, 2.0, 0.8, 0.5, EPS, 0.0, EPS, 2000, "")
    raw = np.array([[0.8, 0.2, 0.0], [0.1, 0.1, 0.8], [0.79, 0.21, 0.0], [0.0, 1.0, 0.0]])
    found, answered = Cascade(certificate, Fixed(raw)).answer(["a", "b", "c", "d"])  # type: ignore[arg-type]
    assert answered.tolist() == [True, True, False, True]
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    assert found[0, 0] == pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5))
    assert (found.argmax(axis=1) == raw.argmax(axis=1)).all()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_run(tmp_path_factory.mktemp("cascade"), baselines=["majority", MANUAL, TFIDF])


@pytest.fixture(scope="module")
def second(first: Path) -> Path:
    run(client_config(first.parent, first, baselines=[TFIDF, "majority"]), first.parent / "second")
    return first.parent / "second"


def test_the_regression_that_validation_prefers_is_taken(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = SavedRun(first)
    for better, worse in ((MANUAL, TFIDF), (TFIDF, MANUAL)):
        scores = {better: 0.8, worse: 0.7, "majority": 0.9}
        monkeypatch.setattr(saved, "system", lambda name, s=scores: {"validation_macro_f1": s[name]})
        assert quick_baseline(saved) == better


def test_of_a_continued_run_it_is_one_trained_on_both_sets(second: Path) -> None:
    assert quick_baseline(SavedRun(second)) == f"{TFIDF}-client"


def test_a_run_without_one_is_refused(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = SavedRun(first)
    monkeypatch.setattr(SavedRun, "baselines", ["majority", "logistic-regression-embeddings"])
    with pytest.raises(ConfigError, match="the run saved majority, logistic-regression-embeddings"):
        quick_baseline(saved)


def test_it_is_loaded_without_a_backbone(first: Path) -> None:
    reported = table(first)
    baseline = load_quick(SavedRun(first), TFIDF)
    np.testing.assert_allclose(
        baseline.predict_probabilities(reported["text"]), reported[f"{TFIDF}/probabilities"], atol=1e-9
    )


# ---- the items


def test_the_validation_part_serves_where_no_file_is_given(first: Path, second: Path) -> None:
    seen = table(first, "training_items")
    texts, targets, groups = calibration_items(SavedRun(first), None)
    expected = [(t, y) for t, y, p in zip(seen["text"], seen["label"], seen["part"], strict=True) if p == "validation"]
    assert len(expected) == 10
    assert [(text, ("calm", "harsh")[c]) for text, c in zip(texts, targets, strict=True)] == expected
    assert len(groups) == 10
    continued = calibration_items(SavedRun(second), None)[0]
    assert continued
    assert not set(continued) & set(seen["text"])


def test_of_a_file_what_was_trained_on_is_left_out(first: Path, tmp_path: Path) -> None:
    seen = table(first, "training_items")
    rows = [{"body": t, "verdict": y} for t, y in zip(seen["text"], seen["label"], strict=True)]
    rows.append({"body": f"{seen['text'][0].upper()}!", "verdict": seen["label"][0]})  # a near duplicate
    rows += [{"body": row["text"], "verdict": row["label"]} for row in toy_rows(12, seed=7)[-6:]]
    file = write_csv(tmp_path / "new.csv", rows)
    texts, targets, groups = calibration_items(SavedRun(first), file, "body", "verdict")
    trained = {t for t, p in zip(seen["text"], seen["part"], strict=True) if p == "train"}
    assert seen["part"][0] == "train"
    assert sorted(texts) == sorted([t for t in seen["text"] if t not in trained] + [row["body"] for row in rows[-6:]])
    assert targets[-6:].tolist() == [0, 1, 0, 1, 0, 1]
    assert len(texts) == len(targets) == len(groups) == len(set(groups.tolist()))


def test_a_file_with_nothing_new_or_another_label_is_refused(first: Path, tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": row["label"]} for row in toy_rows(4, seed=7)]
    with pytest.raises(DataError, match=r"other\.csv, line 3: the model does not know the label 'odd'; it knows: calm"):
        calibration_items(SavedRun(first), write_csv(tmp_path / "other.csv", [rows[0], rows[1] | {"label": "odd"}]))
    seen = table(first, "training_items")
    own = {"text": seen["text"][0], "label": seen["label"][0]}
    with pytest.raises(DataError, match="trained on every item"):
        calibration_items(SavedRun(first), write_csv(tmp_path / "same.csv", [own]))
