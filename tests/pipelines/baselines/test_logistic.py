"""The logistic regression: chosen by cross-validation that keeps groups together, saved without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pipelines.baselines.logistic import CS, FOLDS, LogisticRegressionBaseline, folds_of
from pipelines.baselines.tfidf import TfidfFeatures
from pipelines.metrics import macro_f1
from tests.toys import toy_rows

ROWS = toy_rows(80)
TEXTS = [row["text"] for row in ROWS]
TARGETS = np.array([int(row["label"] == "harsh") for row in ROWS])


@pytest.fixture(scope="module")
def baseline() -> LogisticRegressionBaseline:
    fitted = LogisticRegressionBaseline(TfidfFeatures())
    fitted.fit(TEXTS, TARGETS, np.arange(80), classes=2, seed=0)
    return fitted


def test_separable_classes_are_separated(baseline: LogisticRegressionBaseline) -> None:
    new = toy_rows(60, seed=1)
    probabilities = baseline.predict_probabilities([row["text"] for row in new])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert macro_f1(np.array([int(row["label"] == "harsh") for row in new]), probabilities.argmax(axis=1)) > 0.95


def test_what_was_chosen_is_recorded_and_is_what_predicts(baseline: LogisticRegressionBaseline) -> None:
    details = baseline.details
    assert details["C"] in CS
    assert details["class_weight"] in (None, "balanced")
    assert details["cross_validated_macro_f1"] > 0.9
    assert details["folds"] == FOLDS
    X = baseline.features.transform(TEXTS)
    assert details["features"] == X.shape[1]
    same = LogisticRegression(C=details["C"], class_weight=details["class_weight"], max_iter=500).fit(X, TARGETS)
    np.testing.assert_allclose(baseline.predict_probabilities(TEXTS), same.predict_proba(X), atol=0.01)


def test_rare_classes_are_weighted_where_that_scores_better() -> None:
    """Nine to one, told by one shared weak feature: without weights the rare class is never said."""
    rng = np.random.default_rng(0)
    targets = (np.arange(150) % 10 == 0).astype(int)
    texts = ["hint" if rng.random() < (0.8 if c else 0.3) else "none" for c in targets]
    fitted = LogisticRegressionBaseline(TfidfFeatures())
    fitted.fit(texts, targets, np.arange(150), classes=2, seed=0)
    assert fitted.details["class_weight"] == "balanced"
    assert set(fitted.predict_probabilities(["hint", "none"]).argmax(axis=1)) == {0, 1}


def test_three_classes_of_which_one_is_not_in_training() -> None:
    targets = np.array([0, 2] * 10)
    fitted = LogisticRegressionBaseline(TfidfFeatures())
    fitted.fit([f"word{c}" for c in targets], targets, np.arange(20), classes=3, seed=0)
    probabilities = fitted.predict_probabilities(["word0", "word2"])
    assert probabilities.argmax(axis=1).tolist() == [0, 2]
    assert probabilities[:, 1].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_saved_and_loaded_it_predicts_the_same_without_pickle(
    baseline: LogisticRegressionBaseline, tmp_path: Path
) -> None:
    baseline.save(tmp_path / "b")
    loaded = LogisticRegressionBaseline(TfidfFeatures())
    loaded.load(tmp_path / "b")
    texts = [*TEXTS[:20], "", "never seen"]
    np.testing.assert_array_equal(baseline.predict_probabilities(texts), loaded.predict_probabilities(texts))
    assert loaded.details == baseline.details
    assert {path.suffix for path in (tmp_path / "b").iterdir()} == {".json", ".safetensors"}


# ---- folds


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=2, max_size=60), st.integers(0, 5))
def test_folds_never_split_a_group_nor_train_without_a_class(items: list[tuple[int, int]], seed: int) -> None:
    targets, groups = np.array(items).T
    folds = folds_of(targets, groups, seed)
    assert 1 <= len(folds) <= FOLDS
    for train, test in folds:
        assert set(targets[train]) == set(targets)
        assert len(test)
        if len(folds) > 1:
            assert not set(groups[train]) & set(groups[test])
            assert sorted([*train, *test]) == list(range(len(items)))


def test_every_item_of_a_class_with_several_groups_is_held_out_once() -> None:
    targets, groups = np.arange(40) % 2, np.arange(40) // 4
    folds = folds_of(targets, groups, 0)
    assert len(folds) == FOLDS
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(40))


def test_as_many_folds_as_the_rarest_class_has_groups() -> None:
    targets = np.array([0] * 20 + [1] * 9)
    groups = np.array([*range(20), *([100] * 3 + [101] * 3 + [102] * 3)])
    assert len(folds_of(targets, groups, 0)) == 3


def test_classes_with_one_group_are_trained_on_in_every_fold() -> None:
    targets = np.array([0] * 10 + [1] * 10 + [2, 3, 3])
    groups = np.array([*range(20), 20, 21, 21])
    folds = folds_of(targets, groups, 0)
    assert len(folds) == FOLDS
    assert all({20, 21, 22} <= set(train.tolist()) for train, _ in folds)


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 0, 1, 1]])
def test_without_anything_to_hold_out_the_training_items_are_the_fold(groups: list[int]) -> None:
    targets = np.array([0, 0, 1, 1])
    ((train, test),) = folds_of(targets, np.array(groups), 0)
    assert train.tolist() == test.tolist() == [0, 1, 2, 3]
    fitted = LogisticRegressionBaseline(TfidfFeatures())
    fitted.fit(["one", "one", "two", "two"], targets, np.array(groups), classes=2, seed=0)
    assert fitted.predict_probabilities(["one", "two"]).argmax(axis=1).tolist() == [0, 1]
