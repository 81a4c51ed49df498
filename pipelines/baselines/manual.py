"""Features that an analyst would write by hand: lengths, punctuation, case, readability, and counts from word lists.

The word lists are the files in `wordlists/`; each says in its first line what it holds.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.preprocessing import StandardScaler

from pipelines.records import FloatArray

_WORD = re.compile(r"[\w*]+(?:['’][\w*]+)*")
_SENTENCE_END = re.compile(r"[.!?…]+(?:\s|$)")
_PUNCTUATION = {"exclamation marks": "!", "question marks": "?", "commas": ",", "quotes": "\"“”'‘’", "colons": ":;"}
_PATTERNS = {"links": re.compile(r"https?://|www\."), "mentions": re.compile(r"@\w"), "hashtags": re.compile(r"#\w")}


@functools.cache
def word_lists() -> dict[str, frozenset[str]]:
    """Name -> lower-case words of every packaged list."""
    folder = files("pipelines.baselines") / "wordlists"
    lists = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        lines = file.read_text(encoding="utf-8").splitlines()
        lists[file.name.removesuffix(".txt")] = frozenset(line for line in lines if line and not line.startswith("#"))
    return lists


def manual_features(text: str) -> dict[str, float]:
    """All features of one text by name. Word-list and punctuation features are counts per 100 words."""
    words = _WORD.findall(text)
    lower = [word.casefold().replace("’", "'") for word in words]
    letters = [c for c in text if c.isalpha()]
    per_100 = 100 / max(1, len(words))
    values = {
        "log characters": float(np.log1p(len(text))),
        "log words": float(np.log1p(len(words))),
        "words per sentence": len(words) / max(1, len(_SENTENCE_END.findall(text))),
        "letters per word": sum(map(len, words)) / max(1, len(words)),
        "share of distinct words": len(set(lower)) / max(1, len(words)),
        "share of capitals": sum(c.isupper() for c in letters) / max(1, len(letters)),
        "words in capitals": sum(w.isupper() and len(w) > 1 for w in words) * per_100,
        "words with a capital": sum(w[0].isupper() for w in words) * per_100,
        "digits": sum(c.isdigit() for c in text) * per_100,
        "not ASCII": sum(not c.isascii() for c in text) * per_100,
    }
    values |= {name: sum(c in marks for c in text) * per_100 for name, marks in _PUNCTUATION.items()}
    values |= {name: len(pattern.findall(text)) * per_100 for name, pattern in _PATTERNS.items()}
    values |= {name: measure(text) if words else 0.0 for name, measure in _readability().items()}
    values |= {f"list: {n}": sum(w in listed for w in lower) * per_100 for n, listed in word_lists().items()}
    return values


@functools.cache
def _readability() -> dict[str, Callable[[str], float]]:
    """Readability indices that need no syllable dictionary (textstat would fetch one from the network)."""
    import textstat  # takes seconds

    return {
        "automated readability index": textstat.automated_readability_index,
        "Coleman-Liau index": textstat.coleman_liau_index,
        "LIX": textstat.lix,
    }


class ManualFeatures:
    """(N, F) dense, standardised by the training texts."""

    store = "off"

    def __init__(self) -> None:
        self.scaler = StandardScaler()
        _readability()  # its import is no part of training time

    def fit_transform(self, texts: Sequence[str]) -> FloatArray:
        scaled: FloatArray = self.scaler.fit_transform(_matrix(texts))
        return scaled

    def transform(self, texts: Sequence[str]) -> FloatArray:
        scaled: FloatArray = self.scaler.transform(_matrix(texts))
        return scaled

    def names(self) -> list[str]:
        return list(manual_features(""))

    def save(self, path: Path) -> None:
        save_file({"mean": self.scaler.mean_, "scale": self.scaler.scale_}, path / "scaler.safetensors")

    def load(self, path: Path) -> None:
        arrays = load_file(path / "scaler.safetensors")
        self.scaler.mean_, self.scaler.scale_ = arrays["mean"], arrays["scale"]


def _matrix(texts: Sequence[str]) -> FloatArray:
    return np.array([list(manual_features(text).values()) for text in texts])
