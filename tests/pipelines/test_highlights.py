"""Shaded pieces: all of the text, in order, whatever the words; the strongest of each sign."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.highlights import DARKEST, FAINT, NAMED, Piece, pieces, strongest

TEXT = "the bee, the bee sings"
WORDS = [("the", 0.01), ("bee", -2.0), (",", 0.0), ("the", 1.0), ("bee", 4.0), ("sings", 0.1)]


def test_words_are_shaded_by_sign_and_share_of_the_strongest() -> None:
    found = pieces(TEXT, WORDS)
    assert [(piece.text, piece.share) for piece in found] == [
        ("the ", 0.0), ("bee", -0.5), (", ", 0.0), ("the", 0.25), (" ", 0.0), ("bee", 1.0), (" sings", 0.0),
    ]  # fmt: skip
    assert [piece.shade for piece in found if piece.share] == [DARKEST / 2, round(DARKEST / 4, 3), DARKEST]


def test_a_faint_word_is_passed_over_not_looked_for_again() -> None:
    """Else the shade of the second `the` would fall on the first."""
    assert [piece.text for piece in pieces("the the", [("the", FAINT / 2), ("the", 1.0)])] == ["the ", "the"]


def test_words_that_are_not_in_the_text_are_left_out() -> None:
    """A report cuts its texts."""
    assert pieces("a bee", [("bee", 1.0), ("gone", 3.0)]) == [Piece("a ", 0.0), Piece("bee", 1 / 3)]


def test_without_words_or_weight_nothing_is_shaded() -> None:
    assert pieces(TEXT, []) == pieces(TEXT, [("the", 0.0), ("bee", 0.0)]) == [Piece(TEXT, 0.0)]
    assert pieces("", [("a", 1.0)]) == []


@given(st.text(max_size=30), st.lists(st.tuples(st.text(max_size=3), st.floats(-5, 5)), max_size=8))
def test_the_pieces_are_the_text(text: str, words: list[tuple[str, float]]) -> None:
    found = pieces(text, words)
    assert "".join(piece.text for piece in found) == text
    assert all(-1 <= piece.share <= 1 and 0 <= piece.shade <= DARKEST for piece in found)


def test_the_strongest_of_a_sign_come_first_and_are_few() -> None:
    many = [(f"w{number}", float(number)) for number in range(-9, 10)]
    assert strongest(many, 1) == [("w9", 9.0), ("w8", 8.0), ("w7", 7.0)]
    assert strongest(many, -1) == [("w-9", -9.0), ("w-8", -8.0), ("w-7", -7.0)]
    assert len(strongest(many, 1)) == NAMED
    assert strongest([("a", 0.0)], 1) == []
