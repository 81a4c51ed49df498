"""Pieces of a round -> probabilities. What one piece brings with it costs no other its answer."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from pipelines.backbones.base import Encoding
from pipelines.bulk.encoding import encoded
from pipelines.bulk.torch_engine import TorchEngine
from service.inference.errors import InferenceError
from service.inference.records import Answer, Piece


def classified(engine: TorchEngine, pieces: Sequence[Piece]) -> list[Answer | InferenceError]:
    """An answer, or what is wrong, for every piece. All are of models of this engine."""
    try:
        return _classified(engine, pieces)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # pyo3's PanicException is no Exception
        if len(pieces) > 1:
            return [result for piece in pieces for result in classified(engine, [piece])]
        traceback.print_exc(file=sys.stderr)
        return [InferenceError("internal_error", f"{type(error).__name__}: {error}")]


def _classified(engine: TorchEngine, pieces: Sequence[Piece]) -> list[Answer | InferenceError]:
    """All in one pass, where a text that several pieces share is computed once for each model that wants it."""
    contents = _Contents(engine, [text for piece in pieces for text in piece.texts])
    wanted = {name: np.zeros(len(contents.encodings), dtype=bool) for name in engine.names}
    places, start = [], 0
    for piece in pieces:
        places.append(contents.places[start : start + len(piece.texts)])
        wanted[piece.model][[place for place in places[-1] if place is not None]] = True
        start += len(piece.texts)
    logits = engine.logits(contents.encodings, wanted)
    lengths = [engine.backbone.length(encoding) for encoding in contents.encodings]
    return [
        _answer(piece, own, logits[piece.model], lengths, engine.backbones[piece.model].labels)
        for piece, own in zip(pieces, places, strict=True)
    ]


class _Contents:
    """N texts as distinct encodings.

    Attributes:
        encodings: M distinct ones.
        places: of every text among them; None where the tokenizer makes nothing of it.
    """

    def __init__(self, engine: TorchEngine, texts: Sequence[str]) -> None:
        self.encodings: list[Encoding] = []
        self.places: list[int | None] = [None] * len(texts)
        known: dict[bytes, int] = {}
        found, owners = encoded(engine.backbone, texts)
        for owner, encoding in zip(owners.tolist(), found, strict=True):
            if engine.backbone.length(encoding):
                place = known.setdefault(engine.backbone.content(encoding), len(known))
                self.places[owner] = place
                if place == len(self.encodings):
                    self.encodings.append(encoding)


def _answer(
    piece: Piece, places: Sequence[int | None], logits: np.ndarray, lengths: Sequence[int], labels: tuple[str, ...]
) -> Answer | InferenceError:
    """The rows of one piece out of its model's logits, (M, C)."""
    own = [place for place in places if place is not None]
    if len(own) < len(places):
        number = piece.start + places.index(None)
        return InferenceError("invalid_text", f"text {number}: the tokenizer makes nothing of it; leave it out")
    rows = logits[own]
    if not np.isfinite(rows).all():
        return InferenceError("model_unusable", f"{piece.model}: its logits are no numbers; train it again")
    probabilities: list[list[float]] = softmax(rows, axis=1).tolist()
    return Answer(labels, probabilities, sum(lengths[place] for place in own))
