"""Hand-written features: known values on known texts, finite ones on any text, and never the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.baselines.manual import ManualFeatures, _readability, manual_features, word_lists

HOSTILE = {
    "empty": "",
    "blank": " \t\n\u00a0",
    "emoji": "😀🏳️‍🌈👍🏽",
    "long word": "a" * 100_000,
    "cjk": "这是一个没有空格的句子。日本語のテキストです。",
    "zero bytes": "\x00\x00",
    "marks": "!?…—“”'’*_",
    "right to left": "\u202eשלום عليكم\u200f",
    "superscripts": "x² ½ Ⅻ ١٢٣",
    "lone surrogate": "\ud800",
    "letters of two": "ǅ ŉ ß ﬀ",
}


def test_values_by_hand() -> None:
    found = manual_features("Hello WORLD, it's 5 O'CLOCK! Why not? @you #now https://x.org")
    words = ["Hello", "WORLD", "it's", "5", "O'CLOCK", "Why", "not", "you", "now", "https", "x", "org"]
    expected = {
        "log words": np.log1p(12),
        "words per sentence": 12 / 2,
        "letters per word": sum(map(len, words)) / 12,
        "share of distinct words": 1.0,
        "share of capitals": 13 / 40,
        "words in capitals": 200 / 12,
        "words with a capital": 400 / 12,
        "digits": 100 / 12,
        "not ASCII": 0.0,
        "exclamation marks": 100 / 12,
        "question marks": 100 / 12,
        "commas": 100 / 12,
        "quotes": 200 / 12,
        "colons": 100 / 12,
        "links": 100 / 12,
        "mentions": 100 / 12,
        "hashtags": 100 / 12,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_readability_by_hand() -> None:
    """Six words of 26 characters (two full stops among them) in two sentences; no word has more than six letters."""
    found = manual_features("This cat sings. That dog barks.")
    assert found["automated readability index"] == pytest.approx(4.71 * 26 / 6 + 0.5 * 6 / 2 - 21.43)
    assert found["LIX"] == pytest.approx(6 / 2)


def test_word_lists_are_counted_per_100_words_in_any_case() -> None:
    lists = word_lists()
    assert len(lists) == 15
    assert "can't" in lists["negation"]
    found = manual_features("I CAN’T see it")  # the typographic apostrophe counts as the plain one
    assert found["list: negation"] == 25.0
    assert found["list: first_person"] == 25.0
    assert found["list: weapons"] == 0.0


def test_word_lists_hold_words_as_they_are_looked_up() -> None:
    for name, words in word_lists().items():
        assert words, name
        for word in words:
            assert word == word.casefold().strip(), f"{name}: {word!r}"
            assert manual_features(word)[f"list: {name}"] == 100.0, f"{name}: {word!r} is not one word"


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_texts_have_finite_features(text: str) -> None:
    found = manual_features(text)
    assert found.keys() == manual_features("plain").keys()
    assert all(np.isfinite(value) for value in found.values())


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_has_finite_features(text: str) -> None:
    assert np.isfinite(list(manual_features(text).values())).all()


def test_features_are_standardised_by_the_training_texts_and_survive_constants() -> None:
    features = ManualFeatures()
    training = ["One two.", "One two three four!", "ONE, two"]
    features.fit_transform(training)
    X = features.transform(training)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-9)
    assert set(np.round(X.std(axis=0), 9)) == {0.0, 1.0}  # zero where all training texts agree
    assert np.isfinite(features.transform(list(HOSTILE.values()))).all()


def test_saved_and_loaded_it_is_equal_without_pickle(tmp_path: Path) -> None:
    saved, loaded = ManualFeatures(), ManualFeatures()
    saved.fit_transform(["One two.", "THREE four five! 6"])
    saved.save(tmp_path)
    loaded.load(tmp_path)
    texts = ["Some other text?", "😀"]
    np.testing.assert_array_equal(saved.transform(texts), loaded.transform(texts))
    assert [path.name for path in tmp_path.iterdir()] == ["scaler.safetensors"]


def test_textstat_never_reaches_the_network(tmp_path: Path) -> None:
    """In a fresh process without any corpus at hand, in which every connection fails the test."""
    names = [measure.__name__ for measure in _readability().values()]
    assert len(names) == 3
    program = f"""
import socket, sys
def refuse(*arguments, **options):
    print("reached for the network:", arguments, file=sys.stderr)
    sys.exit(3)
socket.socket.connect = socket.socket.connect_ex = refuse
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
import textstat
for name in {names}:
    print(getattr(textstat, name)("This is extraordinarily readable. It is!"))
"""
    environment = {"HOME": str(tmp_path), "NLTK_DATA": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 3
    assert list(tmp_path.iterdir()) == []  # nothing was downloaded


def test_columns_have_the_names_of_the_features() -> None:
    features = ManualFeatures()
    assert features.names() == list(manual_features("Hello"))
    assert len(features.names()) == features.fit_transform(["a", "b c"]).shape[1]
