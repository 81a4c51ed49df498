"""Which threshold for a wanted precision or recall: chosen on validation, confirmed on test.

An item is flagged as a class if its probability of that class reaches the threshold. A threshold is offered only if
the one-sided 95% lower bound of the wanted figure on validation (Clopper and Pearson 1934, exact) reaches what is
wanted; of those, the one that costs least of the other figure. For recall that is one threshold, since recall falls as
it rises. For precision it is the loosest of a chain of thresholds, each with one more item flagged, that all hold from
the first on which can hold at all: testing in a fixed order until the first failure keeps the error at 5%
(Angelopoulos et al. 2021, "Learn then Test", arXiv 2110.01052). The bound is that of a fixed model; the validation part
has also chosen the epoch and the temperature, which makes it slightly optimistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import beta

from pipelines.intervals import LEVEL, proportion_interval
from pipelines.records import FloatArray, IntArray

PER = 10_000  # items for which the number of flagged ones is given


def operating_points(
    labels: Sequence[str],
    validation: tuple[FloatArray, IntArray],
    test: tuple[FloatArray, IntArray],
    wanted: Sequence[float],
) -> dict[str, Any]:
    """Thresholds for every class and wanted figure.

    Args:
        labels: C classes.
        validation, test: probabilities (N, C) and targets (N,).
        wanted: precisions and recalls, each between 0 and 1.
    """
    points = [
        _point(label, kind, aim, _scores(validation, c), _scores(test, c))
        for c, label in enumerate(labels)
        for kind in ("precision", "recall")
        for aim in wanted
    ]
    found = [point for point in points if point["threshold"] is not None]
    held = sum(point["test"]["holds"] for point in found if point["test"]["holds"] is not None)
    idle = sum(point["test"]["idle"] for point in found)
    useless = f" {idle} of them flag hardly better than chance: see the notes." if idle else ""
    return {
        "points": points,
        "sentence": f"{len(found)} of {len(points)} wanted figures can be promised with {len(validation[1]):,} "
        f"validation items; {held} of them hold on the test part.{useless}",
        "caveat": "A threshold holds for content like the validation part: when the mix of content changes, so do "
        "precision and the number of flagged items. Copies among the validation items count as evidence of their own.",
    }


def lower_bound(successes: int | IntArray, trials: int | IntArray) -> Any:
    """One-sided 95% lower bound of a proportion (Clopper and Pearson); 0 where nothing succeeded."""
    s, n = np.asarray(successes), np.asarray(trials)
    return np.where(s > 0, beta.ppf(1 - LEVEL, np.maximum(s, 1), n - s + 1), 0.0)


def precision_threshold(scores: FloatArray, truth: IntArray, aim: float) -> float | None:
    """The lowest threshold that promises a precision, or None. `scores` and `truth` (0 or 1) are (N,)."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    flagged = np.arange(1, len(scores) + 1)
    last_of_ties = np.append(scores[order][1:] != scores[order][:-1], True)
    chain = np.flatnonzero(last_of_ties & (flagged >= _fewest(aim)))
    holds = lower_bound(hits[chain], flagged[chain]) >= aim
    passed = len(holds) if holds.all() else int(holds.argmin())
    return float(scores[order][chain[passed - 1]]) if passed else None


def recall_threshold(scores: FloatArray, truth: IntArray, aim: float) -> float | None:
    """The highest threshold that promises a recall, or None. `scores` and `truth` (0 or 1) are (N,)."""
    own = np.sort(scores[truth == 1])  # flagging from own[i] on misses i items
    found = np.flatnonzero(lower_bound(len(own) - np.arange(len(own)), np.full(len(own), len(own))) >= aim)
    return float(own[found[-1]]) if len(found) else None


def _point(
    label: str, kind: str, aim: float, validation: tuple[FloatArray, IntArray], test: tuple[FloatArray, IntArray]
) -> dict[str, Any]:
    choose = precision_threshold if kind == "precision" else recall_threshold
    threshold = choose(*validation, aim)
    point = {"class": label, "wanted": kind, "aim": aim, "threshold": threshold}
    if threshold is None:
        own = int(validation[1].sum())
        return point | {"reason": _reason(own, kind, aim)}
    return point | {
        "validation": _measured(*validation, threshold, kind, aim),
        "test": _measured(*test, threshold, kind, aim),
    }


def _measured(scores: FloatArray, truth: IntArray, threshold: float, kind: str, aim: float) -> dict[str, Any]:
    """Precision and recall with intervals, what is flagged, and whether the wanted figure is reached."""
    flagged = scores >= threshold
    hits = int(truth[flagged].sum())
    values: dict[str, Any] = {"items": len(scores), "flagged_per_10000": round(PER * float(flagged.mean()))}
    for name, trials in (("precision", int(flagged.sum())), ("recall", int(truth.sum()))):
        values[name] = hits / trials if trials else None
        values[f"{name}_ci"] = proportion_interval(hits, trials) if trials else None
    reached, base = values[kind], float(truth.mean())
    idle = values["precision_ci"] is not None and values["precision_ci"][0] <= base
    return values | {"holds": None if reached is None else reached >= aim, "base_rate": base, "idle": idle}


def _fewest(aim: float) -> int:
    """Items below which a wanted share cannot be proved, even if all are right."""
    return math.ceil(math.log(1 - LEVEL) / math.log(aim))


def _reason(own: int, kind: str, aim: float) -> str:
    if kind == "recall" and own < _fewest(aim):
        return f"{own} validation items of this class; {_fewest(aim)} are needed, were all of them found"
    return "no threshold reaches it on the validation part with 95% confidence"


def _scores(part: tuple[FloatArray, IntArray], c: int) -> tuple[FloatArray, IntArray]:
    probabilities, targets = part
    return probabilities[:, c], (targets == c).astype(np.int64)
