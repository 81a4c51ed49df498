"""The majority baseline: class shares, whatever the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.baselines.majority import MajorityBaseline


def fitted(targets: list[int], classes: int) -> MajorityBaseline:
    baseline = MajorityBaseline()
    baseline.fit(["x"] * len(targets), np.array(targets), np.arange(len(targets)), classes, seed=0)
    return baseline


def test_probabilities_are_the_class_shares() -> None:
    probabilities = fitted([0, 2, 2, 2], classes=3).predict_probabilities(["a", ""])
    np.testing.assert_array_equal(probabilities, [[0.25, 0.0, 0.75]] * 2)


def test_a_class_without_training_items_has_probability_zero() -> None:
    np.testing.assert_array_equal(fitted([0, 1], classes=4).predict_probabilities(["a"]), [[0.5, 0.5, 0, 0]])


def test_a_tie_goes_to_the_first_class() -> None:
    assert fitted([1, 0, 1, 0], classes=2).predict_probabilities(["a"]).argmax() == 0


def test_no_texts_no_rows() -> None:
    assert fitted([0, 1], classes=2).predict_probabilities([]).shape == (0, 2)


def test_saved_and_loaded_it_is_the_same_without_pickle(tmp_path: Path) -> None:
    saved, loaded = fitted([0, 1, 1], classes=2), MajorityBaseline()
    saved.details["train_seconds"] = 0.5
    saved.save(tmp_path / "deep" / "majority")
    loaded.load(tmp_path / "deep" / "majority")
    np.testing.assert_array_equal(loaded.predict_probabilities(["a"]), [[1 / 3, 2 / 3]])
    assert loaded.details == {"train_seconds": 0.5}
    assert [path.name for path in (tmp_path / "deep" / "majority").iterdir()] == ["model.json"]
