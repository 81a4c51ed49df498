"""How long optimizer steps take, by their padded tokens: a line through the measured ones, and its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import t as student

from pipelines.estimate.plan import Epoch
from pipelines.records import FloatArray

LEVEL = 0.95
FEW = 4  # steps below which their spread says nothing; half a step is taken


@dataclass(frozen=True)
class Pace:
    """Seconds of a step: `base` + `per_token` x its padded tokens; the first of a length T takes `compile` more.

    Attributes:
        spread: standard deviation of the measured steps around the line, in seconds.
        measured: how many there are.
    """

    base: float
    per_token: float
    compile: float
    spread: float
    measured: int

    def line(self, tokens: FloatArray) -> FloatArray:
        """Seconds of steps of these padded tokens, (S,), lengths seen before."""
        return self.base + self.per_token * tokens

    def seconds(self, epoch: Epoch, epochs: int) -> tuple[float, float]:
        """Of a training, and the half-width of the 95% interval that the spread of the measured steps gives."""
        steps = epochs * len(epoch.tokens)
        total = epochs * float(self.line(epoch.tokens).sum()) + self.compile * len(epoch.shapes)
        freedom = max(1, self.measured - 2)
        error = self.spread * np.sqrt(steps / self.measured * steps + steps)  # of the line, and of the steps themselves
        return total, float(student.ppf((1 + LEVEL) / 2, freedom) * error)


def pace_of(steps: tuple[FloatArray, FloatArray], epochs: tuple[Epoch, Epoch]) -> Pace:
    """The line through the steps of the second epoch; what those of the first take above it is put down to new lengths.

    Args:
        steps: seconds of the first epoch but its first step, (S - 1,), and of the second, (S,).
        epochs: their padded tokens.
    """
    first, second = steps
    tokens = epochs[1].tokens
    scale = tokens.mean()
    (base, slope), _ = nnls(np.stack([np.ones_like(tokens), tokens / scale], axis=1), second)  # neither is below 0
    residuals = second - base - slope * tokens / scale
    spread = float(np.sqrt((residuals**2).sum() / max(1, len(tokens) - 2)))
    if len(tokens) < FEW:  # a line fits them all
        spread = max(spread, float(second.mean()) / 2)
    met = len(epochs[0].shapes)
    above = float((first - base - slope * epochs[0].tokens[1:] / scale).sum())
    return Pace(float(base), float(slope / scale), max(0.0, above / met), spread, len(tokens))
