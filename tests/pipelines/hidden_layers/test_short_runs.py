"""Which depths are tried, how short the runs are, and which is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import RunConfig, parse_config
from pipelines.hidden_layers.short_runs import MOST, ShortRun, _shortened, candidates, deepest_of_the_best
from tests.toys import toy_config


def short(depth: int, score: float) -> ShortRun:
    return ShortRun(depth, 1e-3, 1, 100, score, [score - 0.1, score + 0.1], 1.0)


@pytest.mark.parametrize(
    ("best", "good", "layers", "expected"),
    [(4, 3, 6, [2, 3, 4]), (6, 2, 6, [2, 4, 5]), (0, 0, 6, [0, 2]), (12, 6, 12, [4, 6, 9, 11]), (1, 1, 2, [0, 1])],
)
def test_depths_around_what_the_probe_says_are_tried(best: int, good: int, layers: int, expected: list[int]) -> None:
    assert candidates(best, good, layers) == expected


def test_of_equally_good_depths_the_deepest_is_taken() -> None:
    assert deepest_of_the_best([short(2, 0.800), short(4, 0.797), short(5, 0.79)]).depth == 4
    assert deepest_of_the_best([short(2, 0.800), short(4, 0.700)]).depth == 2


@pytest.mark.parametrize(("epochs", "items", "expected"), [(3, MOST, 1), (3, 640, 3), (8, 320, 6), (1, 50, 1)])
def test_a_short_run_has_about_sixty_steps(epochs: int, items: int, expected: int, tmp_path: Path) -> None:
    raw = toy_config(tmp_path, training={"epochs": epochs, "batch_size": 32})
    made: RunConfig = _shortened(parse_config(raw), 2, items)
    assert (made.training.epochs, made.backbone.freeze) == (expected, 2)
