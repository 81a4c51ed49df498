"""Probabilities of a chunk, and the columns that they become.

A text's probabilities are one row: those of every model beside each other, then 1 where the regression of a cascade
answered. Rows of models that a text is not routed to, and of texts that could not be encoded, are not numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from pipelines.bulk.chunks import Chunk
from pipelines.bulk.engines import Engine
from pipelines.records import FloatArray, IntArray

Float32Array = NDArray[np.float32]
DIGITS = 6  # of a score
COLUMNS = ("predicted_label", "predicted_score", "predicted_scores")
FLAGS, MODEL, STAGE = "predicted_flags", "predicted_by_model", "predicted_by_stage"
STAGES = ("transformer", "regression")
NO_PREDICTION = "no prediction: the tokenizer cannot read this text, or its logits are not numbers"


@dataclass(frozen=True)
class Layout:
    """What the output adds to a row.

    Attributes:
        labels: of every model, by name.
        top_k: how many scores are written of a row; None means all.
        thresholds: score from which a label is flagged, for every model.
        routed: whether a row goes to one model, whose columns then have plain names.
        staged: whether a cascade says which stage has answered.
    """

    labels: Mapping[str, Sequence[str]]
    top_k: int | None = None
    thresholds: Mapping[str, Mapping[str, float]] | None = None
    routed: bool = False
    staged: bool = False

    @property
    def width(self) -> int:
        """F, of a row of probabilities and the stage."""
        return sum(map(len, self.labels.values())) + 1

    def place(self, name: str) -> slice:
        """Where a model's probabilities stand in a row."""
        before = 0
        for other, labels in self.labels.items():
            if other == name:
                break
            before += len(labels)
        return slice(before, before + len(self.labels[name]))

    @property
    def flagged(self) -> bool:
        return any((self.thresholds or {}).values())

    @property
    def columns(self) -> list[str]:
        """Names of the added columns."""
        own = [*COLUMNS, *([FLAGS] if self.flagged else [])]
        if self.routed:
            return [*own, MODEL]
        if len(self.labels) == 1:
            return own + ([STAGE] if self.staged else [])
        return [f"{name}/{column}" for name in self.labels for column in own]

    def predictions(self, rows: Float32Array, routes: Sequence[str | None]) -> list[dict[str, Any]]:
        """The added columns of N rows (N, F); `routes` names the model of each where rows are routed."""
        found: list[dict[str, Any]] = [{} for _ in rows]
        for name in self.labels:
            prefix = "" if self.routed or len(self.labels) == 1 else f"{name}/"
            own = [i for i, route in enumerate(routes) if route in (None, name)]
            for i, values in zip(own, self._of_model(name, rows[own]), strict=True):
                found[i] |= {prefix + column: value for column, value in values.items()}
                if self.routed:
                    found[i][MODEL] = name
        if self.staged:
            for values, stage in zip(found, rows[:, -1], strict=True):
                values[STAGE] = STAGES[int(stage)]
        return found

    def _of_model(self, name: str, rows: Float32Array) -> list[dict[str, Any]]:
        labels, flags = self.labels[name], (self.thresholds or {}).get(name, {})
        probabilities = rows[:, self.place(name)].astype(np.float64)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top_k]
        scores = probabilities.round(DIGITS).tolist()
        made: list[dict[str, Any]] = []
        missing = np.isnan(probabilities[:, 0]).tolist()
        for best, own, absent in zip(order.tolist(), scores, missing, strict=True):
            if absent:
                made.append(dict.fromkeys([*COLUMNS, *([FLAGS] if self.flagged else [])]))
                continue
            shown = best if self.top_k is not None else range(len(labels))
            values: dict[str, Any] = {
                COLUMNS[0]: labels[best[0]],
                COLUMNS[1]: own[best[0]],
                COLUMNS[2]: {labels[c]: own[c] for c in shown},
            }
            if self.flagged:
                values[FLAGS] = [label for c, label in enumerate(labels) if own[c] >= flags.get(label, 2.0)]
            made.append(values)
        return made


def probabilities(chunk: Chunk, engines: Sequence[Engine], layout: Layout) -> Float32Array:
    """Rows of the chunk's new texts, (U, F)."""
    rows = np.full((len(chunk.new), layout.width), np.nan, dtype=np.float32)
    rows[:, -1] = 0
    for engine, encoded in zip(engines, chunk.encoded, strict=True):
        wanted = chunk.wanted(engine.names)
        own = {name: chosen[encoded.owners] for name, chosen in wanted.items()}
        logits = engine.logits(encoded.encodings, own) if len(encoded.encodings) else {}
        for name, values in logits.items():
            mine = own[name]
            pooled = _pooled(values[mine], encoded.owners[mine], len(rows))
            answered = ~np.isnan(pooled[:, 0])
            rows[answered, layout.place(name)] = pooled[answered]
    if chunk.answers is not None:
        said, sure = chunk.answers
        rows[sure, :-1] = said[sure]
        rows[sure, -1] = 1
    return rows


def _pooled(logits: FloatArray, owners: IntArray, texts: int) -> FloatArray:
    """Mean of the probabilities of a text's windows, (U, C); not a number where it has none."""
    sums = np.zeros((texts, logits.shape[1]))
    np.add.at(sums, owners, softmax(logits, axis=1))
    counts = np.bincount(owners, minlength=texts)[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
