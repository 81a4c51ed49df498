"""Word and character TF-IDF: n-grams of 1-2 words and of 2-5 characters inside words, sublinear, cosine-normalised."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer

from pipelines.durable import write_json

MOST_FEATURES = 50_000  # of each kind, the most frequent; bounds memory and time on large data


class TfidfFeatures:
    """(N, F) sparse: words, then characters."""

    store = "off"

    def __init__(self) -> None:
        self.vectorizers = {
            "words": _vectorizer("word", (1, 2), token_pattern=r"(?u)\b\w+\b"),
            "characters": _vectorizer("char_wb", (2, 5)),
        }

    def fit_transform(self, texts: Sequence[str]) -> Any:
        return hstack([_fit_transform(vectorizer, texts) for vectorizer in self.vectorizers.values()], format="csr")

    def transform(self, texts: Sequence[str]) -> Any:
        return hstack([vectorizer.transform(texts) for vectorizer in self.vectorizers.values()], format="csr")

    def names(self) -> list[str]:
        """Such as `words: kind` and `characters: kin`; those of characters may begin or end with a space."""
        return [f"{kind}: {term}" for kind, v in self.vectorizers.items() for term in v.get_feature_names_out()]

    def save(self, path: Path) -> None:
        vocabularies = {name: list(v.get_feature_names_out()) for name, v in self.vectorizers.items()}
        write_json(path / "vocabulary.json", vocabularies)
        save_file({name: v.idf_ for name, v in self.vectorizers.items()}, path / "idf.safetensors")

    def load(self, path: Path) -> None:
        vocabularies = json.loads((path / "vocabulary.json").read_text(encoding="utf-8"))
        weights = load_file(path / "idf.safetensors")
        for name, vectorizer in self.vectorizers.items():
            vectorizer.vocabulary = {term: number for number, term in enumerate(vocabularies[name])}
            vectorizer.idf_ = weights[name]


def _fit_transform(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> Any:
    try:
        return vectorizer.fit_transform(texts)
    except ValueError:  # no n-gram occurs twice, as in a handful of very short texts
        return vectorizer.set_params(min_df=1).fit([*texts, "empty vocabulary"]).transform(texts)


def _vectorizer(analyzer: str, ngrams: tuple[int, int], **options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=ngrams,
        min_df=2,
        max_features=MOST_FEATURES,
        sublinear_tf=True,
        strip_accents=None,
        dtype=np.float64,
        **options,
    )
