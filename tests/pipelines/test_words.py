"""Words of a text from the spans of any tokenizer's tokens."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.words import Word, words_of

Spans = list[tuple[int, int] | None]


def told(text: str, spans: Spans) -> list[tuple[str, tuple[int, ...]]]:
    return [(text[word.start : word.end], word.positions) for word in words_of(text, spans)]


def test_pieces_of_a_word_are_put_together_and_special_tokens_left_out() -> None:
    """BERT: [CLS] un ##like ##ly , yes [SEP]."""
    text = "unlikely, yes"
    spans: Spans = [None, (0, 2), (2, 6), (6, 8), (8, 9), (10, 13), None]
    assert told(text, spans) == [("unlikely", (1, 2, 3)), (",", (4,)), ("yes", (5,))]


def test_an_apostrophe_or_a_point_inside_a_word_does_not_split_it() -> None:
    """BERT splits both into three."""
    text = "don't 3.5"
    spans: Spans = [(0, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)]
    assert told(text, spans) == [("don't", (0, 1, 2)), ("3.5", (3, 4, 5))]


def test_spaces_that_a_tokenizer_counts_in_belong_to_no_word() -> None:
    """As GPT-2's and Llama's do."""
    assert told("a bee sings", [(0, 1), (1, 5), (5, 11)]) == [("a", (0,)), ("bee", (1,)), ("sings", (2,))]


def test_tokens_of_spaces_or_of_nothing_join_the_word_before_and_the_first_ones_the_first_word() -> None:
    spans: Spans = [(0, 0), (0, 1), (1, 2), (2, 4), (4, 5), (4, 4)]
    assert told(" a  b", spans) == [("a", (0, 1, 2, 3)), ("b", (4, 5))]


def test_words_that_share_a_token_are_one() -> None:
    assert told("new york city", [(0, 8), (9, 13)]) == [("new york", (0,)), ("city", (1,))]
    assert told("ab cd ef", [(0, 2), (1, 5), (6, 8)]) == [("ab cd", (0, 1)), ("ef", (2,))]


def test_scripts_without_spaces_and_emoji_made_of_several_are_split_by_unicode() -> None:
    text = "日本 👩\u200d👩\u200d👧!"
    spans: Spans = [(i, i + 1) for i in range(len(text))]
    assert [word for word, _ in told(text, spans)] == ["日", "本", "👩\u200d👩\u200d👧", "!"]


def test_a_text_of_spaces_is_one_word_where_it_has_tokens_and_none_where_it_has_not() -> None:
    assert words_of(" \n", [None, (0, 1), (1, 2), None]) == [Word(0, 2, (1, 2))]
    assert words_of(" \n", [None, None]) == words_of("", []) == []


@given(st.text(max_size=30), st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_every_token_is_in_one_word_and_words_follow_each_other(text: str, lengths: list[int]) -> None:
    spans: Spans = []
    start = 0
    for length in lengths:
        spans.append((start, min(start + length, len(text))))
        start = spans[-1][1] if spans[-1] else 0
    found = words_of(text, spans)
    positions = [position for word in found for position in word.positions]
    assert positions == list(range(len(spans)))
    assert all(one.end <= two.start for one, two in pairwise(found))
    assert all(text[word.start : word.end].strip() for word in found) or len(found) == 1


def test_a_word_says_where_it_stands() -> None:
    assert words_of("a cow", [(0, 1), (2, 5)]) == [Word(0, 1, (0,)), Word(2, 5, (1,))]
