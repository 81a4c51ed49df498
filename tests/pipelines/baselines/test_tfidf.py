"""TF-IDF features: learned from training texts only, equal after a round trip, robust to odd texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from pipelines.baselines import tfidf
from pipelines.baselines.tfidf import TfidfFeatures

TEXTS = ["the cat sat down", "the cat ran", "a dog sat down", "a DOG ran, I say", "I say: façade", "façade ñ 猫"]


def fitted(texts: list[str]) -> TfidfFeatures:
    features = TfidfFeatures()
    features.fit_transform(texts)
    return features


def terms(features: TfidfFeatures, kind: str) -> set[str]:
    return set(features.vectorizers[kind].get_feature_names_out())


def test_word_features_are_those_of_scikit_learn() -> None:
    features = fitted(TEXTS)
    own = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\b\w+\b").fit(TEXTS)
    width = len(own.vocabulary_)
    np.testing.assert_array_equal(features.transform(TEXTS).toarray()[:, :width], own.transform(TEXTS).toarray())


def test_terms_are_lower_case_words_and_pairs_that_occur_in_two_texts() -> None:
    assert terms(fitted(TEXTS), "words") == {
        "the", "cat", "the cat", "sat", "down", "sat down", "ran", "a", "dog", "a dog", "i", "say", "i say", "façade",
    }  # fmt: skip


def test_characters_are_counted_inside_words_and_accents_kept() -> None:
    found = terms(fitted(TEXTS), "characters")
    assert {"ca", "cat", " cat", "çad", "façad"} <= found
    assert "t s" not in found  # across two words
    assert "fac" not in found
    assert {len(term) for term in found} == {2, 3, 4, 5}


def test_both_halves_have_unit_length() -> None:
    """Sublinear TF-IDF is cosine-normalised, so that long texts do not weigh more."""
    features = fitted(TEXTS)
    X, width = features.transform(["the cat " * 50]).toarray(), len(terms(features, "words"))
    np.testing.assert_allclose([np.linalg.norm(X[:, :width]), np.linalg.norm(X[:, width:])], 1.0)


def test_unknown_texts_are_rows_of_zeros() -> None:
    features = fitted(["one two one two", "one two"])
    X = features.transform(["", "😀", "zzz"])
    assert X.shape[0] == 3
    assert X.nnz == 0


@pytest.mark.parametrize("texts", [["a", "b"], ["😀", "!"], ["", ""], ["unique words here", "别的 内容"]])
def test_texts_that_share_nothing_still_fit(texts: list[str]) -> None:
    X = fitted(texts).transform(texts)
    assert X.shape[0] == 2
    assert np.isfinite(X.toarray()).all()


def test_the_number_of_features_is_bounded_by_the_most_frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfidf, "MOST_FEATURES", 3)
    features = fitted(["the cat", "the cat", "the dog", "the dog", "the cow", "the cow", "the end"])
    assert len(terms(features, "words")) == len(terms(features, "characters")) == 3
    assert "the" in terms(features, "words")


def test_saved_and_loaded_it_gives_equal_features_without_pickle(tmp_path: Path) -> None:
    saved, loaded = fitted([*TEXTS, '"quoted" \u2028 line', '"quoted" \u2028 line']), TfidfFeatures()
    saved.save(tmp_path)
    loaded.load(tmp_path)
    new = ["a cat sat", "façade \u2028", "", "unknown 猫"]
    difference = saved.transform(new) != loaded.transform(new)
    assert difference.nnz == 0
    assert saved.transform(new).nnz > 10
    assert {path.name for path in tmp_path.iterdir()} == {"vocabulary.json", "idf.safetensors"}


def test_every_column_has_the_name_of_its_term_after_loading_too(tmp_path: Path) -> None:
    features = fitted(TEXTS)
    names = features.names()
    X = features.transform(["cat"]).tocsr()
    assert {names[column] for column in X.indices} == {
        "words: cat", "characters: ca", "characters: at", "characters:  c", "characters: t ", "characters: cat",
        "characters:  ca", "characters: at ", "characters:  cat", "characters: cat ", "characters:  cat ",
    }  # fmt: skip
    features.save(tmp_path)
    loaded = TfidfFeatures()
    loaded.load(tmp_path)
    assert loaded.names() == names
