"""Which languages texts are in. py3langid: Lui and Baldwin 2012, "langid.py", aclanthology.org/P12-3005."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import regex

from pipelines.check.findings import Finding, Items, Level, share

LETTERS = 25  # below, a language cannot be told
SURE = 0.95  # probability from which it counts
MIXED = 0.02  # share of other languages from which it is said

_NOT_WORDS = regex.compile(r"https?://\S+|www\.\S+|[@#]\w+|[^\p{L}\p{M}' ]+")


def languages(items: Items) -> Finding:
    """Language of every text that is long enough; URLs, mentions and hashtags are left out."""
    told = [_language(text) for text in items.texts]
    counts = Counter(name for name in told if name)
    known = sum(counts.values())
    if not known:
        return Finding("languages", "fine", "the texts are too short to tell", {"counts": {}})
    main, number = counts.most_common(1)[0]
    others = [i for i, name in enumerate(told) if name not in (None, main)]
    sentence = f"{share(number, known)} of the texts that are long enough to tell are in {main!r}"
    if others:
        listed = ", ".join(f"{name!r} {count:,}" for name, count in counts.most_common(6)[1:])
        sentence += f"; others: {listed}. A backbone for one language knows little of others"
    level: Level = "note" if len(others) > MIXED * known else "fine"
    places = tuple(items.place(i, f"looks like {told[i]!r}") for i in others)
    return Finding("languages", level, sentence, {"counts": dict(counts), "not_told": len(items) - known}, places)


def _language(text: str) -> str | None:
    words = " ".join(_NOT_WORDS.sub(" ", text).split())
    if sum(map(str.isalpha, words)) < LETTERS:
        return None
    name, probability = _identifier().classify(words)
    return name if probability >= SURE else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
