"""A trained system on validation and test: class order, costs, and baselines that are kept, trained or found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import softmax
from sklearn.metrics import f1_score

from pipelines.artifacts import size_bytes
from pipelines.backbones import Backbone
from pipelines.predict import predict_logits
from pipelines.records import FloatArray, Splits, column
from pipelines.saved_run import SavedRun
from pipelines.score import all_trained_on, fit_baseline, keep_baseline, predictor, score, score_saved
from tests.runs import TFIDF, first_run, system, table
from tests.toys import toy_rows

TRAINING = {"train_seconds": 3.5, "peak_memory_bytes": 2048}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    return SavedRun(first_run(tmp_path_factory.mktemp("first")))


@pytest.fixture(scope="module")
def pretrained(first: SavedRun) -> Backbone:
    return first.pretrained()


def items(labels: Sequence[str], start: int = 0, **columns: Sequence[str]) -> Dataset:
    """Items called text 0, text 1 and so on."""
    numbers = range(start, start + len(labels))
    values = {"text": [f"text {i}" for i in numbers], "label": list(labels), "id": [str(i) for i in numbers]}
    return Dataset.from_dict(values | {"group": list(numbers), "line": list(numbers)} | columns)


def toy_splits(labels: tuple[str, ...] = ("calm", "harsh")) -> Splits:
    rows = toy_rows(60, seed=4)
    values = {name: [row[name] for row in rows] for name in ("text", "label")}
    whole = Dataset.from_dict(values | {"group": list(range(60)), "id": [""] * 60, "line": list(range(60))})
    train, validation, test = (whole.select(range(start, end)) for start, end in ((0, 30), (30, 45), (45, 60)))
    return Splits(train, validation, test, labels, {})


def test_columns_are_put_in_the_order_of_the_labels() -> None:
    """The system knows c and a; b, which it does not know, gets 0."""
    splits = Splits(items("ab"), items("cca"), items("abc"), ("a", "b", "c"), {})
    found = score("x", lambda texts: np.tile([0.7, 0.3], (len(texts), 1)), ("c", "a"), splits, 9, {}, TRAINING, 77)
    assert found.probabilities.tolist() == [[0.3, 0.0, 0.7]] * 3
    assert found.validation_probabilities is not None
    assert found.validation_probabilities.tolist() == [[0.3, 0.0, 0.7]] * 3
    assert found.validation_macro_f1 == pytest.approx(f1_score(list("cca"), list("ccc"), average="macro"))
    assert (found.name, found.trained_on) == ("x", 9)


def test_each_part_is_predicted_once_and_only_the_test_part_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    splits = Splits(items("ab"), items("ab" * 5), items("ab" * 4, start=50), ("a", "b"), {})
    now, asked = [0.0], []
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def predict(texts: Sequence[str]) -> FloatArray:
        asked.append(list(texts))
        now[0] += 2.0
        return np.tile([0.5, 0.5], (len(texts), 1))

    found = score("x", predict, ("a", "b"), splits, 2, {"C": 1.0}, TRAINING, 77)
    assert asked == [column(splits.validation, "text"), column(splits.test, "text")]
    assert found.costs.items_per_second == 8 / 2.0
    assert (found.costs.train_seconds, found.costs.peak_memory_bytes, found.costs.size_bytes) == (3.5, 2048, 77)
    assert found.details == {"C": 1.0}


def test_a_predictor_is_the_softmax_of_the_logits(first: SavedRun) -> None:
    model, texts = first.model(), table(first.path)["text"]
    expected = softmax(predict_logits(model, model.encode(texts), "fp32"), axis=1)
    np.testing.assert_allclose(predictor(model, "fp32")(texts), expected, atol=1e-12)


def test_a_saved_system_brings_its_costs_from_the_report(first: SavedRun) -> None:
    """A third class, and the model's two in another order."""
    splits = toy_splits(("harsh", "new", "calm"))
    found = score_saved(first, "fine-tuned", "old model", predictor(first.model(), "fp32"), splits)
    saved = system(first.path, "fine-tuned")
    assert found.name == "old model"
    assert found.trained_on == saved["trained_on"] == 38
    assert found.costs.train_seconds == saved["train_seconds"]
    assert found.costs.peak_memory_bytes == saved["peak_memory_bytes"]
    assert found.costs.size_bytes == saved["size_bytes"] == size_bytes(first.path / "model")
    assert found.details == saved["details"]
    direct = predictor(first.model(), "fp32")(column(splits.test, "text"))
    np.testing.assert_allclose(found.probabilities, np.column_stack([direct[:, 1], np.zeros(15), direct[:, 0]]))


def test_a_kept_baseline_is_copied_byte_for_byte_and_scored_as_it_was(
    first: SavedRun, pretrained: Backbone, tmp_path: Path
) -> None:
    (tmp_path / f".{TFIDF}").mkdir()
    (tmp_path / f".{TFIDF}/left-over").write_text("of an interrupted copy")
    splits = toy_splits()
    found = keep_baseline(first, TFIDF, "kept", splits, pretrained, "fp32", tmp_path / TFIDF)
    files = {p.name: p.read_bytes() for p in (first.path / "baselines" / TFIDF).iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / TFIDF).iterdir()} == files
    assert [p.name for p in tmp_path.iterdir()] == [TFIDF]
    direct = first.baseline(TFIDF, pretrained, "fp32").predict_probabilities(column(splits.test, "text"))
    np.testing.assert_array_equal(found.probabilities, direct)
    assert (found.name, found.trained_on) == ("kept", 38)


def test_a_baseline_is_fitted_to_the_given_items_and_saved(pretrained: Backbone, tmp_path: Path) -> None:
    """24 of 30 items are harsh: the shares that the majority says are those of the items, not of the splits."""
    splits = toy_splits()
    labels = np.array(column(splits.train, "label"))
    chosen = splits.train.select([*np.flatnonzero(labels == "harsh")[:12], *np.flatnonzero(labels == "calm")[:3]])
    found = fit_baseline("majority", "majority", chosen, splits, pretrained, "fp32", 0, tmp_path / "majority", None)
    np.testing.assert_allclose(found.probabilities, np.tile([3 / 15, 12 / 15], (15, 1)))
    assert found.trained_on == 15
    assert found.details == {}  # seconds and memory are among the costs
    assert found.costs.peak_memory_bytes > 10**6
    assert found.costs.size_bytes == size_bytes(tmp_path / "majority")
    assert [p.name for p in tmp_path.iterdir()] == ["majority"]


def test_a_baseline_that_an_interrupted_run_has_left_is_not_fitted_again(
    pretrained: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, path = toy_splits(), tmp_path / f"{TFIDF}-client"
    first = fit_baseline(path.name, TFIDF, splits.train, splits, pretrained, "fp32", 0, path, None)

    def fitted_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pipelines.score.trained_baseline", fitted_again)
    again = fit_baseline(path.name, TFIDF, splits.train, splits, pretrained, "fp32", 0, path, None)
    np.testing.assert_allclose(again.probabilities, first.probabilities, atol=1e-12)
    assert again.details == first.details
    assert again.costs.train_seconds == first.costs.train_seconds > 0


def test_a_baseline_may_lack_a_class_that_only_another_run_knows(pretrained: Backbone, tmp_path: Path) -> None:
    splits = toy_splits(("calm", "new", "harsh"))
    found = fit_baseline(TFIDF, TFIDF, splits.train, splits, pretrained, "fp32", 0, tmp_path / TFIDF, None)
    assert found.probabilities[:, 1].tolist() == [0.0] * 15
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)


def test_everything_trained_on_is_the_new_items_and_the_training_items_of_earlier_runs() -> None:
    earlier = items("abab", start=10, part=["train", "validation", "train", "validation"], origin=["own"] * 4)
    new = items("ab", kind=["long", "short"])
    alone = Splits(new, items("a"), items("a"), ("a", "b"), {})
    assert all_trained_on(alone) is new
    both = all_trained_on(Splits(new, items("a"), items("a"), ("a", "b"), {}, earlier))
    assert column(both, "text") == ["text 10", "text 12", "text 0", "text 1"]
    assert column(both, "group") == [10, 12, 0, 1]
    assert set(both.column_names) == {"text", "label", "id", "group", "line"}
