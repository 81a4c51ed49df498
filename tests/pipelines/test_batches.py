"""Batches: every item once, the same for any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.batches import epoch_batches, padded_length, share, stream_seed, token_batches

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@settings(max_examples=30, deadline=None)
@given(LENGTHS, st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_an_epoch_holds_every_item_once_in_full_batches(lengths: list[int], size: int, seed: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(lengths) // size - (len(lengths) % size == 0))
    assert 1 <= len(batches[-1]) <= size


@pytest.mark.parametrize(
    ("longest", "most", "expected"),
    [(1, 512, 1), (7, 512, 7), (8, 512, 8), (9, 512, 16), (16, 512, 16), (33, 35, 35), (40, 35, 40)],
)
def test_a_batch_is_padded_to_few_lengths_that_the_model_takes(longest: int, most: int, expected: int) -> None:
    assert padded_length(longest, most) == expected


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = list(np.random.default_rng(0).integers(1, 200, 400))

    def order(seed: int, epoch: int) -> list[int]:
        return list(np.concatenate(epoch_batches(lengths, 16, seed, epoch)))

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_batches_pad_less_than_a_random_order_would() -> None:
    lengths = np.random.default_rng(0).integers(1, 256, 2000)

    def padded(batches: list[np.ndarray]) -> int:
        return sum(len(batch) * int(lengths[batch].max()) for batch in batches)

    random = np.array_split(np.random.default_rng(1).permutation(2000), 125)
    assert padded(epoch_batches(lengths.tolist(), 16, 0, 0)) < 0.7 * padded(random)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 70), st.integers(1, 9))
def test_shares_are_equally_long_and_weigh_every_item_once(items: int, world: int) -> None:
    batch = np.arange(100, 100 + items)
    weights = np.random.default_rng(items).uniform(0.5, 2, (items, 2))
    shares = [share(batch, weights, rank, world) for rank in range(world)]
    assert {len(own) for own, _ in shares} == {-(-items // world)}
    total = np.zeros((items, 2))
    for own, own_weights in shares:
        np.add.at(total, own - 100, own_weights)
    np.testing.assert_allclose(total, weights, rtol=0, atol=0)


@settings(max_examples=50, deadline=None)
@given(LENGTHS, st.integers(1, 2000))
def test_token_batches_hold_every_item_once_within_the_bound(lengths: list[int], most: int) -> None:
    batches = token_batches(lengths, most)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert [lengths[i] for i in order] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= most


def test_token_batches_by_hand() -> None:
    assert [batch.tolist() for batch in token_batches([2, 9, 4, 4], 8)] == [[1], [3, 2], [0]]
    assert token_batches([], 8) == []
    assert [batch.tolist() for batch in token_batches([0, 0, 0], 2)] == [[2, 1], [0]]  # texts without tokens


def test_stream_seeds_differ_in_every_place() -> None:
    seeds = {stream_seed(seed, step, rank) for seed in range(5) for step in range(20) for rank in range(4)}
    assert len(seeds) == 400
    assert stream_seed(3, 1) == int(np.random.SeedSequence([3, 1]).generate_state(1)[0])
