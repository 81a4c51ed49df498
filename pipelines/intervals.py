"""How sure a figure is: stratified bootstrap intervals, paired differences, and McNemar's exact test.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (percentile interval); Field and Welsh 2007,
"Bootstrapping clustered data" (whole groups are drawn); McNemar 1947, exact form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.stats import binomtest, t

from pipelines.records import FloatArray, IntArray

LEVEL = 0.95
_CHUNK = 8_000_000  # groups x resamples held at once


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of the test part, the same for every system, so that differences are paired.

    Whole groups are drawn, since duplicates and contrast pairs are no independent evidence: groups of one class within
    that class, so that its share stays as it is in the test part, and groups of several classes among each other.

    Args:
        targets: (N,) class numbers.
        groups: (N,) group numbers.
        classes: C.
        resamples: R.
        seed: of the resampling.
    """

    targets: IntArray
    groups: IntArray
    classes: int
    resamples: int
    seed: int

    def scores(self, predicted: IntArray) -> dict[str, FloatArray]:
        """Accuracy and macro-F1 of every resample, each (R,), for predictions (N,)."""
        accuracy, macro = [], []
        for counts in self._counts(predicted):
            accuracy.append(np.trace(counts, axis1=1, axis2=2) / counts.sum(axis=(1, 2)))
            macro.append(np.nanmean(_f1(counts), axis=1))
        return {"accuracy": np.concatenate(accuracy), "macro_f1": np.concatenate(macro)}

    def f1(self, predicted: IntArray) -> FloatArray:
        """F1 of every class in every resample, (R, C); NaN where a class does not occur."""
        return np.concatenate([_f1(counts) for counts in self._counts(predicted)])

    def _counts(self, predicted: IntArray) -> Iterator[FloatArray]:
        """Chunks of (r, C, C): items of every class (rows) that get every answer (columns), in r resamples."""
        C = self.classes
        number = np.unique(self.groups, return_inverse=True)[1]
        one_each = np.ones(len(number)), (number, self.targets * C + predicted)
        cells = coo_array(one_each, (number.max() + 1, C * C)).tocsr()
        for times in self._draws(number):
            yield (times @ cells).reshape(-1, C, C)

    def _draws(self, number: IntArray) -> Iterator[FloatArray]:
        """Chunks of (r, G): how often each of G groups is drawn."""
        rng = np.random.default_rng(self.seed)
        G = int(number.max()) + 1
        present = np.zeros((G, self.classes), dtype=bool)
        present[number, self.targets] = True
        stratum = np.where(present.sum(axis=1) > 1, self.classes, present.argmax(axis=1))
        strata = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
        size = max(1, min(self.resamples, _CHUNK // max(G, self.classes**2)))
        for start in range(0, self.resamples, size):
            times = np.zeros((min(size, self.resamples - start), G))
            for own in strata:
                times[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), size=len(times))
            yield times

    def difference(self, first: FloatArray, second: FloatArray, observed: float) -> list[float]:
        """Interval of a paired difference in macro-F1, as wide at least as three groups of the rarest class make it.

        Where two systems rarely disagree the bootstrap sees nothing but zeros, yet on n items that show no difference a
        rate of 3 / n is still possible (rule of three, Hanley and Lippman-Hand 1983); of one class among C that is a
        Cth in macro-F1.

        Args:
            first, second: macro-F1 of every resample, (R,).
            observed: the difference itself.
        """
        of_class = [len(np.unique(self.groups[self.targets == c])) for c in np.unique(self.targets)]
        least = min(1.0, 3 / min(of_class)) / len(of_class)
        low, high = interval(first - second)
        return [min(low, observed - least), max(high, observed + least)]


def _f1(counts: FloatArray) -> FloatArray:
    """(r, C, C) -> F1, (r, C); NaN where a class does not occur."""
    right, own = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2)
    said = counts.sum(axis=1)
    f1: FloatArray = np.divide(2 * right, own + said, out=np.full(right.shape, np.nan), where=own > 0)
    return f1


def interval(values: FloatArray) -> list[float]:
    """Percentile interval [low, high] of bootstrap values (R,)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def proportion_interval(successes: int, trials: int) -> list[float]:
    """Two-sided 95% interval [low, high] of a proportion (Wilson 1927), with a width also where all or none succeed."""
    found = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return [float(found.low), float(found.high)]


def student_interval(values: Sequence[float]) -> list[float] | None:
    """Student's 95% interval [low, high] of a mean, such as that of paired differences; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, n = float(np.mean(values)), len(values)
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    return [mean - half, mean + half]


def mcnemar(targets: IntArray, first: IntArray, second: IntArray) -> float:
    """Two-sided exact p-value that two systems' predictions (N,) are right equally often; 1.0 if they never differ."""
    only_first = int(np.sum((first == targets) & (second != targets)))
    only_second = int(np.sum((first != targets) & (second == targets)))
    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)
