"""Was fine-tuning worth it?

The rival is the logistic regression, embeddings included, with the best *validation* macro-F1. `yes` if the paired 95%
interval of the difference on test lies above `evaluation.min_gain`, `no` if it lies below, else `unclear`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.records import IntArray, Splits, SystemScore

REGRESSIONS = "logistic-regression"
FEW = 30  # test items of a class below which the report warns
FEW_VALIDATION = 100  # validation items in all below which it does
CAVEAT = (
    "The interval is a paired, stratified bootstrap over the groups of the test part (an item without duplicates is "
    "one), widened to what three more or fewer right in the rarest class would make. It covers the choice of test "
    "items, not of training items or seed."
)


def find_rival(systems: list[SystemScore], main: SystemScore) -> SystemScore | None:
    """The logistic regression with the best validation macro-F1: of the run of `main`, whose validation part it shares,
    or of any where that has none."""
    every = [system for system in systems if _is_regression(system.name)]
    folder = main.name.rpartition("/")[0]
    regressions = [system for system in every if system.name.rpartition("/")[0] == folder] or every
    return max(regressions, key=lambda system: system.validation_macro_f1, default=None)


def _is_regression(name: str) -> bool:
    return name.rpartition("/")[2].startswith(REGRESSIONS)


def verdict(
    main: SystemScore,
    rival: SystemScore | None,
    alike: SystemScore | None,
    comparisons: list[dict[str, Any]],
    min_gain: float,
    splits: Splits,
) -> dict[str, Any]:
    """The verdict with its sentence, warnings and caveat.

    Args:
        main: the fine-tuned system in question.
        rival: see `find_rival`.
        alike: the same among those trained on as many items as `main`; named where it is another.
        comparisons: those of `main` with every other system among them.
        min_gain: of macro-F1 that would make it worth its cost.
        splits: for the number of items behind it.
    """
    if rival is None:
        return {
            "worth_it": "unclear",
            "rival": None,
            "sentence": "No logistic regression was trained, so there is nothing to compare with.",
            "warnings": [],
            "caveat": CAVEAT,
        }
    own = [c for c in comparisons if c["system"] == main.name]
    comparison = next(c for c in own if c["baseline"] == rival.name)
    worth_it = answer(comparison["difference_ci"], min_gain)
    like = "" if alike is None or alike is rival else _like_trained(own, alike, rival, min_gain)
    return {
        "worth_it": worth_it,
        "rival": rival.name,
        "sentence": _sentence(worth_it, comparison, min_gain, len(splits.test)) + like,
        "warnings": _other_answer(own, [rival, alike or rival], worth_it, min_gain) + _warnings(splits),
        "caveat": CAVEAT,
    }


def answer(difference_ci: list[float], min_gain: float) -> str:
    low, high = difference_ci
    return "yes" if low > min_gain else "no" if high < min_gain else "unclear"


def _sentence(worth_it: str, comparison: dict[str, Any], min_gain: float, n_test: int) -> str:
    found = (
        f"On {n_test:,} test items fine-tuning changes macro-F1 by {_points(comparison)} "
        f"against {comparison['baseline']} ({_between(comparison)})"
    )
    wanted = f"the {100 * min_gain:.1f} points that would make it worth its cost"
    return {
        "yes": f"Worth it. {found}: all of the interval is above {wanted}.",
        "no": f"Not worth it. {found}: all of the interval is below {wanted}.",
        "unclear": f"Unclear. {found}: the interval holds {wanted}; more test items would tell.",
    }[worth_it]


def _like_trained(own: list[dict[str, Any]], alike: SystemScore, rival: SystemScore, min_gain: float) -> str:
    comparison = next(c for c in own if c["baseline"] == alike.name)
    return (
        f" That rival was trained on {rival.trained_on:,} items; against {alike.name}, the best on validation of "
        f"those trained on the same {alike.trained_on:,}, the change is {_points(comparison)} "
        f"({_between(comparison)}), which alone would be “{answer(comparison['difference_ci'], min_gain)}”."
    )


def _other_answer(own: list[dict[str, Any]], named: list[SystemScore], worth_it: str, min_gain: float) -> list[str]:
    """A regression that the sentence does not name, but against which the answer would be another."""
    names = {system.name for system in named}
    others = [c for c in own if c["baseline"] not in names and _is_regression(c["baseline"])]
    closest = min(others, key=lambda c: float(c["difference"]), default=None)
    if closest is None or answer(closest["difference_ci"], min_gain) == worth_it:
        return []
    return [
        f"Against {closest['baseline']}, which validation did not choose as the rival, the change is "
        f"{_points(closest)} ({_between(closest)}): the answer would be “{answer(closest['difference_ci'], min_gain)}”."
    ]


def _warnings(splits: Splits) -> list[str]:
    warnings = []
    if len(splits.validation) < FEW_VALIDATION:
        warnings.append(f"The rival and the epoch were chosen on only {len(splits.validation)} validation items.")
    counts: IntArray = np.bincount(splits.targets(splits.test), minlength=len(splits.labels))
    few = [label for label, n in zip(splits.labels, counts.tolist(), strict=True) if 0 < n < FEW]
    if few:
        named = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        warnings.append(
            f"Fewer than {FEW} test items of: {named}. Their figures, and macro-F1 with them, may be chance."
        )
    return warnings


def _points(comparison: dict[str, Any]) -> str:
    return f"{100 * comparison['difference']:+.1f} points"


def _between(comparison: dict[str, Any]) -> str:
    low, high = comparison["difference_ci"]
    return f"95% interval {100 * low:+.1f} to {100 * high:+.1f}"
