"""Exact and near duplicates, found so that they never straddle two parts. Nothing is removed here.

Near duplicates: MinHash signatures of character 5-grams, bucketed by LSH (Broder 1997; Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3; library: datasketch), then confirmed by their exact Jaccard similarity.
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import regex
from datasketch import MinHash, MinHashLSH
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipelines.records import IntArray

SIMILARITY = 0.8  # Jaccard similarity of character 5-grams from which two texts count as near duplicates
NGRAM = 5
SIGNATURE = 128  # hash functions
CANDIDATES = (
    0.5  # similarity that LSH aims at: it then misses less than 1 in 1,000 pairs at SIMILARITY (confirmed exactly)
)

_NOISE = regex.compile(r"https?://\S+|www\.\S+|@\w+|[\p{P}\p{S}\p{C}]")  # marks stay: they are part of letters


def normalise(text: str) -> str:
    """What exact duplicates share: lower case, without URLs, @mentions, punctuation and extra white space."""
    words = _NOISE.sub(" ", unicodedata.normalize("NFC", text).casefold()).split()
    return " ".join(words) or text


def exact_groups(texts: Sequence[str]) -> IntArray:
    """Number of the normalised text of each item, (N,)."""
    return number_by([normalise(text) for text in texts])


def near_duplicate_pairs(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of positions whose normalised texts have a Jaccard similarity of at least SIMILARITY.

    Not all of them: a pair that earlier pairs connect already is left out, or 2,000 copies of one template would take
    two million comparisons.
    """
    ngrams = [_ngrams(normalise(text)) for text in texts]
    index = MinHashLSH(threshold=CANDIDATES, num_perm=SIGNATURE)  # recall here, precision below
    pairs: list[tuple[int, int]] = []
    parent = list(range(len(texts)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = position = parent[parent[position]]
        return position

    for position, signature in enumerate(MinHash.generator(ngrams, num_perm=SIGNATURE, hashfunc=zlib.crc32)):
        for other in sorted(index.query(signature)):
            if root(other) != root(position) and _jaccard(ngrams[other], ngrams[position]) >= SIMILARITY:
                pairs.append((other, position))
                parent[root(position)] = root(other)
        index.insert(position, signature, check_duplication=False)
    return pairs


def group_items(texts: Sequence[str], keys: Iterable[Sequence[Hashable]] = ()) -> IntArray:
    """Group numbers, (N,): items are in one group if they are duplicates or share a key, directly or over others.

    Args:
        texts: N texts.
        keys: further groupings, each with N values; None and "" group nothing.
    """
    exact = exact_groups(texts)
    _, first = np.unique(exact, return_index=True)  # near duplicates are sought among distinct texts only
    edges = [(int(first[number]), position) for position, number in enumerate(exact)]
    edges += [(int(first[a]), int(first[b])) for a, b in near_duplicate_pairs([texts[i] for i in first])]
    for values in keys:
        seen: dict[Hashable, int] = {}
        edges += [(seen.setdefault(v, i), i) for i, v in enumerate(values) if v is not None and v != ""]
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(texts), len(texts)))
    _, groups = connected_components(graph, directed=False)
    return np.asarray(groups, dtype=np.int64)


def number_by(values: Sequence[Hashable]) -> IntArray:
    """Numbers 0.. in order of first appearance, (N,)."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _ngrams(text: str) -> set[bytes]:
    return {text[i : i + NGRAM].encode() for i in range(max(1, len(text) - NGRAM + 1))}


def _jaccard(a: set[bytes], b: set[bytes]) -> float:
    return len(a & b) / len(a | b)
