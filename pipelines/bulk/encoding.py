"""Texts -> encodings, where a hostile text costs only itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.backbones import Backbone
from pipelines.backbones.base import Encoding
from pipelines.errors import BackboneError
from pipelines.records import IntArray

SUSPICIOUS = 8  # texts of which none can be encoded: then it is not the texts' fault


def encoded(backbone: Backbone, texts: Sequence[str], windows: bool = False) -> tuple[list[Encoding], IntArray]:
    """Encodings of N texts and the text of each, (M,). A text that breaks the tokenizer has none.

    Args:
        windows: whether longer texts are split into several encodings instead of cut.

    Raises:
        BackboneError: no text can be encoded.
    """
    failures: list[BaseException] = []
    encodings, owners = _encoded(backbone, texts, windows, failures)
    if len(texts) >= SUSPICIOUS and not encodings:
        raise BackboneError(f"{backbone.name}: its tokenizer fails on every text: {failures[0]!r}") from None
    return encodings, np.array(owners, dtype=np.int64)


def _encoded(
    backbone: Backbone, texts: Sequence[str], windows: bool, failures: list[BaseException]
) -> tuple[list[Encoding], list[int]]:
    """All at once; if that fails, each half by itself."""
    try:
        return backbone.windows(texts) if windows else (backbone.encode(texts), list(range(len(texts))))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a tokenizer raises pyo3's PanicException, which is no Exception
        failures.append(error)
    if len(texts) < 2:
        return [], []
    middle = len(texts) // 2
    first, first_owners = _encoded(backbone, texts[:middle], windows, failures)
    second, second_owners = _encoded(backbone, texts[middle:], windows, failures)
    return first + second, first_owners + [middle + owner for owner in second_owners]
