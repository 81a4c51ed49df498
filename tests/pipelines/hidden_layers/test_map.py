"""The map: classes that are apart have a high silhouette; few items are no error."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.hidden_layers.map import _silhouette, _two_dimensions


def test_classes_that_are_apart_have_a_high_silhouette() -> None:
    targets = np.arange(40) % 2
    noise = np.random.default_rng(0).normal(size=(40, 5))
    apart = noise + 20 * targets[:, None]
    assert _silhouette(apart, targets) == pytest.approx(1, abs=0.15)
    assert _silhouette(noise, targets) == pytest.approx(0, abs=0.1)


def test_one_class_or_one_item_of_each_has_no_silhouette() -> None:
    assert _silhouette(np.eye(4), np.zeros(4, dtype=np.int64)) is None
    assert _silhouette(np.eye(4), np.arange(4)) is None


def test_two_dimensions_keep_what_varies_most() -> None:
    states = np.zeros((10, 6))
    states[:, 3] = np.arange(10)
    found = _two_dimensions(states)
    assert found["variance"] == pytest.approx(1)
    assert abs(found["points"][0][0] - found["points"][9][0]) == pytest.approx(9)
    assert _two_dimensions(states[:2])["points"] == [[0, 0], [0, 0]]
