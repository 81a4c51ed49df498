"""What a cascade may cost, and how that is certified.

An item is answered by the regression if its confidence, the highest probability, reaches a threshold. A certificate
says that this costs at most `max_loss` of macro-F1 against the model alone; over repeated calibrations at most one
certificate in twenty is wrong. "Learn then Test" (Angelopoulos et al. 2021, arXiv 2110.01052): a grid of thresholds,
fixed before a label is seen, is tested in order until the first failure, which needs no correction for the number of
thresholds. There are two such chains, each at half of the 5% (the paper's fixed-sequence test with several starts):
one from the safest threshold on, and one from half of the items on, since the few answers of a safe threshold hold too
little evidence where a class is rare, while among many answers the regression may win as much as it loses.

The bound of one threshold's loss is a paired Bayesian bootstrap of whole groups (Rubin 1981) to which one worst case
is added: a group that the model gets right and the regression wrong, in the class where that hurts most. Without it,
systems that never differ on the calibration items would be certified by zeros only. With it, the bound is for counts
the exact one of Clopper and Pearson, the rule of three among it (3 / n for no event in n at 95%), and for means of
bounded values the one of Learned-Miller and Thomas 2019 (arXiv 1905.06208). An item on which the two agree cannot
cost anything and counts as zero.

The order of confidence is that of the regression's own probabilities. A temperature is fitted too, on the same items,
so that a stated probability means what it says; but for more than two classes it changes the order, and the grid would
depend on labels through it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array, hstack

from pipelines.calibration import TINY, choose_temperature
from pipelines.errors import ConfigError
from pipelines.intervals import LEVEL
from pipelines.metrics import macro_f1
from pipelines.records import BoolArray, FloatArray, IntArray

FEWEST = 2000  # labelled items
COVERAGES = (
    0.01, 0.02, 0.03, 0.05, 0.08, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45,
    0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95, 1.00,
)  # fmt: skip
STARTS = (0.01, 0.50)  # coverages at which a chain of tests begins
RESAMPLES = 20_000
METHOD = (
    "Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052): fixed-sequence tests of thresholds from "
    "{starts} of the items on, each by a paired Bayesian bootstrap of whole groups with one worst case added "
    "(Learned-Miller and Thomas 2019, arXiv 1905.06208); a certificate is wrong with a probability of at most 5%."
)
_CHUNK = 8_000_000  # groups x resamples held at once


@dataclass(frozen=True)
class Certificate:
    """What a cascade may cost, and which one it is.

    Attributes:
        baseline: name of the saved regression, such as logistic-regression-tfidf.
        temperature: of the probabilities that it answers with.
        threshold: its own confidence, before the temperature, from which it answers.
        coverage: share of the calibration items that it answers.
        max_loss: the bound, in macro-F1; 0.002 is 0.2 points.
        estimated_loss: macro-F1 of the model less that of the cascade, on the calibration items.
        loss_upper: the upper bound of that difference which was held against `max_loss`: one-sided, 95% over both
            chains, hence 97.5% by itself.
        items: calibration items.
        method: one sentence, with the source.
    """

    baseline: str
    temperature: float
    threshold: float
    coverage: float
    max_loss: float
    estimated_loss: float
    loss_upper: float
    items: int
    method: str

    @property
    def sentence(self) -> str:
        return (
            f"{self.baseline} answers {self.coverage:.0%} of the items, those with a confidence of "
            f"{self.threshold:.3f} or more. On {self.items:,} labelled items that costs "
            f"{100 * self.estimated_loss:.2f} points of macro-F1, with 95% confidence at most "
            f"{100 * self.loss_upper:.2f}; {100 * self.max_loss:.2f} are allowed."
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def require_enough(items: int) -> None:
    """Raise ConfigError if a certificate needs more labelled items."""
    if items < FEWEST:
        raise ConfigError(
            f"the cascade: at least {FEWEST:,} labelled items that the model was not trained on are needed to certify "
            f"it, found {items:,}; give a file with more of them, or classify without the cascade"
        )


def certify(
    baseline: FloatArray,
    model: FloatArray,
    targets: IntArray,
    groups: IntArray,
    max_loss: float,
    name: str,
    seed: int = 0,
) -> Certificate:
    """The cascade that answers most among those that cost at most `max_loss`.

    Args:
        baseline, model: probabilities (N, C) on items that neither was trained on.
        targets: (N,) class numbers.
        groups: (N,) group numbers; items of one group are no independent evidence.
        max_loss: of macro-F1.
        name: of the baseline.
        seed: of the bootstrap.

    Raises:
        ConfigError: too few items, or no threshold meets the bound.
    """
    require_enough(len(targets))
    confidence = baseline.max(axis=1)
    thresholds = _thresholds(confidence)
    quick, slow = baseline.argmax(axis=1), model.argmax(axis=1)
    paired = _Paired(targets, slow, quick, (confidence[:, None] < thresholds).sum(axis=1), groups, baseline.shape[1])
    uppers = paired.upper_bounds(len(thresholds), 1 - (1 - LEVEL) / len(STARTS), seed)
    answered = confidence >= thresholds[:, None]
    coverages = answered.mean(axis=1)
    alone = macro_f1(targets, slow)
    estimates = np.array([alone - macro_f1(targets, np.where(own, quick, slow)) for own in answered])
    chosen = _last_passed(uppers <= max_loss)
    if chosen is None:
        raise ConfigError(_refusal(uppers, estimates, coverages, len(targets), max_loss))
    return Certificate(
        baseline=name,
        temperature=choose_temperature(np.log(np.maximum(baseline, TINY)), targets, seed)[0],
        threshold=float(thresholds[chosen]),
        coverage=float(coverages[chosen]),
        max_loss=max_loss,
        estimated_loss=float(estimates[chosen]),
        loss_upper=float(uppers[chosen]),
        items=len(targets),
        method=METHOD.format(starts=" and ".join(f"{start:.0%}" for start in STARTS)),
    )


def _thresholds(confidence: FloatArray) -> FloatArray:
    """The confidence from which each of COVERAGES is answered, (S,), falling; ties are answered together."""
    ranks = np.ceil(np.array(COVERAGES) * len(confidence)).astype(np.int64)
    thresholds: FloatArray = np.sort(confidence)[len(confidence) - ranks]
    return thresholds


def _last_passed(passed: BoolArray) -> int | None:
    """The last threshold of any chain, from its start up to before its first failure."""
    last = None
    for start in STARTS:
        for s in range(COVERAGES.index(start), len(passed)):
            if not passed[s]:
                break
            last = s
    return last


class _Paired:
    """Model and cascades on the calibration items and one worst case, to be weighted.

    Args:
        targets, model, quick: class numbers (N,): true, by the model, by the regression.
        step: (N,), from which threshold on the regression answers.
        groups: (N,).
        classes: C.
    """

    def __init__(
        self, targets: IntArray, model: IntArray, quick: IntArray, step: IntArray, groups: IntArray, classes: int
    ) -> None:
        number = np.unique(groups, return_inverse=True)[1]
        lost, instead, size = _worst_case(targets, model, number, classes)
        alike = (quick == model) & (np.bincount(number)[number] == 1)
        kind = np.where(alike, -1 - (targets * classes + model), number)  # such items differ in nothing: one weight
        _, number, members = np.unique(kind, return_inverse=True, return_counts=True)
        self.shape = np.ones(len(members) + 1)
        self.shape[number[alike]] = members[number[alike]]  # a sum of k exponential weights is a gamma one
        self.classes = classes
        self.present = np.unique(targets)
        self.number = np.append(number, len(members))
        self.size = np.append(np.where(alike, 1 / members[number], 1.0), size)
        self.targets = np.append(targets, lost)
        self.model = np.append(model, lost)
        self.quick = np.append(quick, instead)
        self.step = np.append(step, 0)

    def upper_bounds(self, steps: int, level: float, seed: int) -> FloatArray:
        """One-sided upper bound of every threshold's loss, (S,)."""
        bounds: FloatArray = np.quantile(np.concatenate(list(self._losses(steps, seed))), level, axis=0)
        return bounds

    def _losses(self, steps: int, seed: int) -> Iterator[FloatArray]:
        """Chunks of (r, S): loss of every threshold under random weights of the groups, exponential each."""
        rng = np.random.default_rng(seed)
        counts = self._counts(steps)
        G, width = counts.shape
        size = max(1, min(RESAMPLES, _CHUNK // max(G, width)))
        for start in range(0, RESAMPLES, size):
            weights = rng.standard_gamma(self.shape, (min(size, RESAMPLES - start), G))
            drawn = (weights @ counts).reshape(len(weights), -1, self.classes)[:, :, self.present]
            right, named = np.cumsum(drawn[:, 1::2], axis=1), np.cumsum(drawn[:, 2::2], axis=1)
            f1 = 2 * right / (drawn[:, :1] + named)
            macro = f1.mean(axis=2)  # of the model alone, then of every threshold's cascade
            yield macro[:, :1] - macro[:, 1:]

    def _counts(self, steps: int) -> Any:
        """Items of every group, sparse: (G, C) true, then right and named by the model, then how the answers that each
        threshold adds change those two."""
        every = np.ones(len(self.number), dtype=bool)
        blocks = [self._table(every, self.targets)]
        blocks += [self._table(self.model == self.targets, self.targets), self._table(every, self.model)]
        for s in range(steps):
            new = (self.step == s) & (self.quick != self.model)
            gained = self._table(new & (self.quick == self.targets), self.targets)
            lost = self._table(new & (self.model == self.targets), self.targets)
            blocks += [gained - lost, self._table(new, self.quick) - self._table(new, self.model)]
        return hstack(blocks, format="csr")

    def _table(self, chosen: BoolArray, column: IntArray) -> Any:
        """(G, C) sparse: the chosen items of every group in the class that `column` gives."""
        places = self.number[chosen], column[chosen]
        return coo_array((self.size[chosen], places), (len(self.shape), self.classes)).tocsr()


def _worst_case(targets: IntArray, model: IntArray, number: IntArray, classes: int) -> tuple[int, int, float]:
    """The class whose loss of one group costs most macro-F1, the class named instead, and items in such a group."""
    own, named = (np.bincount(values, minlength=classes).astype(np.float64) for values in (targets, model))
    right = np.bincount(targets[model == targets], minlength=classes)
    members = np.array([len(np.unique(number[targets == c])) for c in range(classes)])
    size = own / np.maximum(members, 1)
    total = np.maximum(own + named, 1)
    recall = 2 * (right + size) / (total + 2 * size) - 2 * right / (total + size)
    precision = np.where(own > 0, 2 * right / total - 2 * right / (total + size[:, None]), 0.0)
    cost = recall[:, None] + precision  # (C, C): lost in this class, named as that one
    cost[np.diag_indices(classes)] = cost[own == 0] = -1.0
    lost, instead = np.unravel_index(cost.argmax(), cost.shape)
    return int(lost), int(instead), float(size[lost])


def _refusal(uppers: FloatArray, estimates: FloatArray, coverages: FloatArray, items: int, max_loss: float) -> str:
    """Why there is no certificate, and what would help. No chain got beyond its start, so nothing else was tested."""
    starts = [COVERAGES.index(start) for start in STARTS]
    found = " and ".join(f"{100 * uppers[s]:.2f} where it answers {coverages[s]:.0%} of them" for s in starts)
    best = min(starts, key=lambda s: float(uppers[s]))
    needed = ""
    if estimates[best] == 0 < max_loss:  # where nothing was lost, the bound falls as items grow
        needed = f", about {math.ceil(items * uppers[best] / max_loss / 100) * 100:,} of this kind"
    return (
        "the cascade: no confidence from which the regression answers is proved to keep the loss within "
        f"{100 * max_loss:.2f} points of macro-F1. With {items:,} labelled items its upper bound is {found}. Allow a "
        f"higher loss, give more labelled items{needed}, or classify without the cascade"
    )
