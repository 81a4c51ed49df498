"""The line through measured steps: exact where they lie on one, and wider the more they do not."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.estimate.pace import Pace, pace_of
from pipelines.estimate.plan import Epoch
from pipelines.records import FloatArray


def epoch(tokens: list[float], shapes: int = 3) -> Epoch:
    batches = [np.arange(4) for _ in tokens]
    return Epoch(batches, np.array(tokens), frozenset(range(8, 8 * shapes + 1, 8)))


def on_a_line(tokens: FloatArray) -> FloatArray:
    return 0.2 + 0.001 * tokens


def test_a_line_is_found_again_and_foretells_other_steps_exactly() -> None:
    small = epoch([100.0, 200.0, 400.0, 800.0])
    pace = pace_of((on_a_line(small.tokens[1:]), on_a_line(small.tokens)), (small, small))
    assert (pace.base, pace.per_token) == pytest.approx((0.2, 0.001))
    assert (pace.compile, pace.measured) == (pytest.approx(0.0, abs=1e-9), 4)
    whole = epoch([300.0] * 10, shapes=1)
    total, error = pace.seconds(whole, 5)
    assert total == pytest.approx(5 * 10 * 0.5)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_what_the_first_epoch_takes_above_the_line_is_put_down_to_its_lengths() -> None:
    """3 lengths cost 0.6 s more together, so 7 cost 1.4 s more, once, however many epochs there are."""
    small = epoch([100.0, 200.0, 400.0, 800.0], shapes=3)
    first = on_a_line(small.tokens[1:]) + np.array([0.6, 0.0, 0.0])
    pace = pace_of((first, on_a_line(small.tokens)), (small, small))
    assert pace.compile == pytest.approx(0.2)
    whole = epoch([300.0] * 10, shapes=7)
    for epochs in (1, 4):
        assert pace.seconds(whole, epochs)[0] == pytest.approx(epochs * 5 + 1.4)


def test_steps_of_equal_size_have_their_mean() -> None:
    small = epoch([64.0, 64.0, 64.0, 64.0], shapes=1)
    pace = pace_of((np.full(3, 2.0), np.array([1.0, 3.0, 2.0, 2.0])), (small, small))
    assert pace.line(np.array([64.0])) == pytest.approx([2.0])


def test_neither_part_of_the_line_is_below_zero() -> None:
    """Noise that falls with size must not foretell that larger steps take no time at all."""
    small = epoch([100.0, 200.0, 300.0, 400.0])
    pace = pace_of((np.full(3, 1.0), np.array([1.3, 1.1, 0.9, 0.7])), (small, small))
    assert pace.per_token == 0
    assert pace.base == pytest.approx(1.0)


def test_the_interval_covers_what_the_spread_makes_likely() -> None:
    """Of 400 trainings with noisy steps, about 95% end within the interval, and most not in its half."""
    rng = np.random.default_rng(0)
    small, whole = epoch([float(t) for t in range(100, 900, 100)]), epoch([450.0] * 60)
    inside = closer = 0
    for _ in range(400):
        second = on_a_line(small.tokens) + rng.normal(0, 0.05, 8)
        pace = pace_of((on_a_line(small.tokens[1:]), second), (small, small))
        real = float((on_a_line(whole.tokens) + rng.normal(0, 0.05, 60)).sum())
        total, error = pace.seconds(whole, 1)
        inside += abs(total - pace.compile * 3 - real) <= error
        closer += abs(total - pace.compile * 3 - real) <= error / 4
    assert 0.92 <= inside / 400 <= 0.99
    assert closer / 400 < 0.75


def test_a_step_or_two_say_little() -> None:
    small = epoch([100.0, 100.0], shapes=1)
    pace = pace_of((np.array([1.0]), np.array([1.0, 1.0])), (small, small))
    assert pace.spread == pytest.approx(0.5)
    one = epoch([100.0], shapes=1)
    assert pace_of((np.array([]), np.array([1.0])), (one, one)).spread == pytest.approx(0.5)


def test_more_measured_steps_narrow_the_interval() -> None:
    whole = epoch([300.0] * 50)
    few, many = (Pace(0.1, 0.001, 0.0, 0.05, measured).seconds(whole, 1)[1] for measured in (4, 16))
    assert many < few / 2
