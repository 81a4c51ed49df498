"""How sure a figure is: stratified bootstrap intervals, paired differences, and McNemar's exact test.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (percentile interval); McNemar 1947, exact form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from pipelines.records import FloatArray, IntArray

LEVEL = 0.95
_CHUNK = 8_000_000  # items x resamples held at once


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of the test part, the same for every system, so that differences are paired.

    Resampling is within each class: the class shares stay as they are in the test part.

    Args:
        targets: (N,) class numbers.
        classes: C.
        resamples: R.
        seed: of the resampling.
    """

    targets: IntArray
    classes: int
    resamples: int
    seed: int

    def scores(self, predicted: IntArray) -> dict[str, FloatArray]:
        """Accuracy and macro-F1 of every resample, each (R,), for predictions (N,)."""
        C = self.classes
        cells = self.targets * C + predicted
        accuracy, macro = [], []
        for chosen in self._indices():
            R = len(chosen)
            offsets = (np.arange(R) * C * C)[:, None]
            counts = np.bincount((cells[chosen] + offsets).ravel(), minlength=R * C * C).reshape(R, C, C)
            right = np.diagonal(counts, axis1=1, axis2=2)
            present = counts.sum(axis=1) + counts.sum(axis=2)
            f1 = np.divide(2 * right, present, out=np.full(right.shape, np.nan), where=present > 0)
            accuracy.append(right.sum(axis=1) / len(self.targets))
            macro.append(np.nanmean(f1, axis=1))
        return {"accuracy": np.concatenate(accuracy), "macro_f1": np.concatenate(macro)}

    def _indices(self) -> Iterator[NDArray[np.int64]]:
        """Chunks of (r, N) positions."""
        rng = np.random.default_rng(self.seed)
        strata = [np.flatnonzero(self.targets == c) for c in range(self.classes)]
        strata = [stratum for stratum in strata if len(stratum)]
        size = max(1, min(self.resamples, _CHUNK // max(len(self.targets), self.classes**2)))
        for start in range(0, self.resamples, size):
            R = min(size, self.resamples - start)
            yield np.concatenate([rng.choice(stratum, size=(R, len(stratum))) for stratum in strata], axis=1)


def interval(values: FloatArray) -> list[float]:
    """Percentile interval [low, high] of bootstrap values (R,)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def difference_interval(values: FloatArray, observed: float, targets: IntArray) -> list[float]:
    """Interval of a paired difference in macro-F1, as wide at least as three items of the rarest class make it.

    Where two systems rarely disagree the bootstrap sees nothing but zeros, yet on n items that show no difference a rate
    of 3 / n is still possible (rule of three, Hanley and Lippman-Hand 1983); of one class among C that is a Cth in
    macro-F1.

    Args:
        values: bootstrap differences, (R,).
        observed: the difference itself.
        targets: (N,) class numbers.
    """
    counts = np.unique(targets, return_counts=True)[1]
    least = min(1.0, 3 / int(counts.min())) / len(counts)
    low, high = interval(values)
    return [min(low, observed - least), max(high, observed + least)]


def proportion_interval(successes: int, trials: int) -> list[float]:
    """Two-sided 95% interval [low, high] of a proportion (Wilson 1927), with a width also where all or none succeed."""
    found = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return [float(found.low), float(found.high)]


def mcnemar(targets: IntArray, first: IntArray, second: IntArray) -> float:
    """Two-sided exact p-value that two systems' predictions (N,) are right equally often; 1.0 if they never differ."""
    only_first = int(np.sum((first == targets) & (second != targets)))
    only_second = int(np.sum((first != targets) & (second == targets)))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
