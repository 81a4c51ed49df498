"""Exact and near duplicates, against brute force."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.duplicates import exact_groups, group_items, near_duplicate_pairs, normalise, number_by

WORDS = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in ("lim", "ton", "rex", "sad")]
BASES = [" ".join(np.random.default_rng(seed).choice(WORDS, 30)) for seed in range(6)]
# From one word at the end (similarity above 0.9) to nine (far below 0.8).
EDITS = st.sampled_from(["{}", "{} lim", "{} http://a.b/c", "@you {}!", "{}" + " bdfg" * 9 + " lim ton rex sad"])


def jaccard(a: str, b: str) -> float:
    first, second = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (a, b))
    return len(first & second) / len(first | second)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Hello, World!", "hello world"),
        ("@anna  see https://t.co/x?y=1 now", "see NOW"),
        ("go to www.example.org", "go to"),
        ("snake_case", "snake case"),
        ("STRASSE", "straße"),
        ("a\n\tb", "a b"),
    ],
)
def test_what_is_the_same_text(text: str, same: str) -> None:
    assert normalise(text) == normalise(same)
    assert exact_groups([text, "other", same]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(("text", "other"), [("😀", "😡"), ("!!!", "???"), ("no 1", "no 2"), ("@anna", "@ben")])
def test_what_is_not_the_same_text(text: str, other: str) -> None:
    """A text of nothing but noise stays as it is, so that not all of them are one."""
    assert normalise(text) != normalise(other)


def test_numbers_by_first_appearance() -> None:
    assert number_by(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(BASES), EDITS), min_size=2, max_size=10))
def test_groups_are_the_connected_components_of_brute_force(drawn: list[tuple[str, str]]) -> None:
    texts = [edit.format(base) for base, edit in drawn]
    expected = list(range(len(texts)))
    for a, b in combinations(range(len(texts)), 2):
        if jaccard(normalise(texts[a]), normalise(texts[b])) >= 0.8:
            expected = [expected[a] if number == expected[b] else number for number in expected]
    groups = group_items(texts)
    np.testing.assert_array_equal(groups[:, None] == groups, np.array(expected)[:, None] == np.array(expected))


def test_pairs_are_confirmed_by_their_exact_similarity() -> None:
    """The index proposes pairs from about 0.7; only 0.8 counts."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(60):
        base = list(rng.choice(WORDS, 30))
        changed = [word if rng.random() < 0.9 else str(rng.choice(WORDS)) for word in base]
        texts += [" ".join(base), " ".join(changed)]
    similarity = np.array([jaccard(texts[i], texts[i + 1]) for i in range(0, 120, 2)])
    assert ((similarity > 0.7) & (similarity < 0.8)).sum() > 5  # else this shows nothing
    pairs = set(near_duplicate_pairs(texts))
    assert pairs <= {(2 * i, 2 * i + 1) for i in np.flatnonzero(similarity >= 0.8)}
    assert pairs >= {(2 * i, 2 * i + 1) for i in np.flatnonzero(similarity >= 0.9)}


def test_a_chain_of_near_duplicates_is_one_group() -> None:
    words = [f"word{number}" for number in range(60)]
    texts = [" ".join(words[start : start + 30]) for start in (0, 2, 4, 6, 8)]
    assert jaccard(texts[0], texts[1]) > 0.8 > jaccard(texts[0], texts[4])
    assert set(group_items([*texts, "something else altogether"])[:5]) == {0}
    assert group_items([texts[0], texts[4]]).tolist() == [0, 1]


def test_keys_join_items_directly_and_over_others() -> None:
    texts = ["first one here", "second of them", "a third text", "FIRST one, here!", "the fifth", "the sixth item"]
    author = ["anna", "ben", "ben", "carl", "", None]
    source = ["a", "b", "c", "c", "", None]
    groups = group_items(texts, [author, source])
    assert groups.tolist() == [0, 0, 0, 0, 1, 2]  # 0-3 by text, 3-2 by source, 2-1 by author; empty keys join nothing


def test_the_same_word_in_two_keys_joins_nothing() -> None:
    assert group_items(["one", "two"], [["x", "y"], ["y", "z"]]).tolist() == [0, 1]


def test_many_copies_of_one_template_take_seconds() -> None:
    """All pairs would be half a million comparisons, some 12 seconds."""
    started = time.process_time()
    groups = group_items([f"{BASES[0]} {number}" for number in range(1000)])
    assert set(groups.tolist()) == {0}
    assert time.process_time() - started < 8


def test_short_and_single_texts() -> None:
    assert group_items(["a", "b", "a"]).tolist() == [0, 1, 0]
    assert group_items(["a"]).tolist() == [0]
    assert near_duplicate_pairs([]) == []
