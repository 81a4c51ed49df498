"""How long texts are in tokens, and what a maximum length cuts off."""

from __future__ import annotations

import numpy as np

from pipelines.backbones.text import TextBackbone
from pipelines.check.findings import Finding, Items, Level, share

CHUNK = 1000  # texts that are tokenized at once
SHORT = 3  # tokens, special ones not counted, below which a text can hardly be classified
OFTEN = 0.05  # share of cut texts from which it is a problem


def lengths(items: Items, backbone: TextBackbone) -> Finding:
    """Tokens of every text, against the length at which texts are cut."""
    special = backbone.tokenizer.num_special_tokens_to_add()
    most = backbone.max_length
    chunks = (items.texts[start : start + CHUNK] for start in range(0, len(items), CHUNK))
    tokens = np.array([count for chunk in chunks for count in _count(chunk, backbone)])
    cut, short = np.flatnonzero(tokens + special > most), np.flatnonzero(tokens < SHORT).tolist()
    longest_first = cut[np.argsort(-tokens[cut])].tolist()
    quantiles = {f"p{q}": int(np.percentile(tokens, q)) for q in (50, 90, 99, 100)}
    values = quantiles | {"max_length": most, "cut": len(cut), "short": len(short)}
    places = [items.place(i, f"{tokens[i]:,} tokens, cut at {most - special}") for i in longest_first]
    places += [items.place(i, f"{tokens[i]} tokens") for i in short]
    told = f"half of the texts have {quantiles['p50']} tokens or fewer, the longest {quantiles['p100']:,}"
    if len(cut):
        told += f"; {share(len(cut), len(items))} are cut at {most} tokens (data.max_length)"
    if len(short):
        told += f"; {len(short):,} have fewer than {SHORT}"
    level: Level = "problem" if len(cut) > OFTEN * len(items) else "note" if places else "fine"
    return Finding("lengths", level, told, values, tuple(places))


def _count(texts: list[str], backbone: TextBackbone) -> list[int]:
    """Tokens of every text, special ones not counted."""
    found = backbone.tokenizer(texts, truncation=False, add_special_tokens=False, verbose=False)["input_ids"]
    return [len(ids) for ids in found]
