"""Score every system once on the test part, compare them in pairs, and say whether fine-tuning was worth it.

Choices (the rival, the best epoch) are made on validation; nothing here looks at the test part twice.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pipelines.config import EvaluationConfig
from pipelines.intervals import Bootstrap, interval, mcnemar
from pipelines.metrics import all_metrics, macro_f1
from pipelines.records import IntArray, Splits, SystemScore, column

FINE_TUNED = "fine-tuned"
REGRESSIONS = "logistic-regression"


def compare_systems(splits: Splits, systems: list[SystemScore], config: EvaluationConfig, seed: int) -> dict[str, Any]:
    """Metrics with intervals, paired comparisons with every baseline, and the verdict: the core of report.json.

    Args:
        splits: labels, counts and the test part.
        systems: fine-tuned among them.
        config: resamples, gain worth having, positive class.
        seed: of the bootstrap.
    """
    targets = splits.targets(splits.test)
    positive = positive_class(splits, config)
    bootstrap = Bootstrap(targets, len(splits.labels), config.bootstrap, seed)
    resampled = {system.name: bootstrap.scores(system.probabilities.argmax(axis=1)) for system in systems}
    comparisons = []
    tuned = next(system for system in systems if system.name == FINE_TUNED)
    for baseline in systems:
        if baseline is not tuned:
            differences = resampled[tuned.name]["macro_f1"] - resampled[baseline.name]["macro_f1"]
            comparisons.append(_comparison(tuned, baseline, targets, interval(differences)))
    return {
        "labels": list(splits.labels),
        "positive": splits.labels[positive] if len(splits.labels) == 2 else None,
        "n_train": len(splits.train),
        "n_validation": len(splits.validation),
        "n_test": len(splits.test),
        "data": splits.counts,
        "class_counts": {
            name: dict(Counter(column(getattr(splits, name), "label"))) for name in ("train", "validation", "test")
        },
        "systems": [_system(system, targets, positive, resampled[system.name]) for system in systems],
        "comparisons": comparisons,
        "verdict": verdict(systems, comparisons, config.min_gain, len(targets)),
    }


def positive_class(splits: Splits, config: EvaluationConfig) -> int:
    """The class that binary areas under curves refer to: the configured one, else the rarer in training."""
    if config.positive is not None:
        return splits.labels.index(config.positive)
    counts = np.bincount(splits.targets(splits.train), minlength=len(splits.labels))
    return int(counts.argmin())


def verdict(
    systems: list[SystemScore], comparisons: list[dict[str, Any]], min_gain: float, n_test: int
) -> dict[str, Any]:
    """Was fine-tuning worth it? The rival is the logistic regression with the best *validation* macro-F1.

    `yes` if the paired 95% interval of the difference on test lies above `min_gain`, `no` if it lies below, else
    `unclear`.
    """
    regressions = [system for system in systems if system.name.startswith(REGRESSIONS)]
    if not regressions:
        return {
            "worth_it": "unclear",
            "rival": None,
            "sentence": "No logistic regression was trained, so there is nothing to compare with.",
        }
    rival = max(regressions, key=lambda system: system.validation_macro_f1).name
    comparison = next(c for c in comparisons if c["baseline"] == rival)
    low, high = comparison["difference_ci"]
    worth_it = "yes" if low > min_gain else "no" if high < min_gain else "unclear"
    found = (
        f"On {n_test:,} test items fine-tuning changes macro-F1 by {100 * comparison['difference']:+.1f} points "
        f"against {rival} (95% interval {100 * low:+.1f} to {100 * high:+.1f})"
    )
    wanted = f"the {100 * min_gain:.1f} points that would make it worth its cost"
    sentence = {
        "yes": f"Worth it. {found}: all of the interval is above {wanted}.",
        "no": f"Not worth it. {found}: all of the interval is below {wanted}.",
        "unclear": f"Unclear. {found}: the interval holds {wanted}; more test items would tell.",
    }[worth_it]
    return {"worth_it": worth_it, "rival": rival, "sentence": sentence}


def _comparison(
    system: SystemScore, baseline: SystemScore, targets: IntArray, difference_ci: list[float]
) -> dict[str, Any]:
    first, second = system.probabilities.argmax(axis=1), baseline.probabilities.argmax(axis=1)
    return {
        "system": system.name,
        "baseline": baseline.name,
        "metric": "macro_f1",
        "difference": macro_f1(targets, first) - macro_f1(targets, second),
        "difference_ci": difference_ci,
        "mcnemar_p": mcnemar(targets, first, second),
    }


def _system(system: SystemScore, targets: IntArray, positive: int, resampled: dict[str, Any]) -> dict[str, Any]:
    metrics = all_metrics(system.probabilities, targets, positive)
    metrics |= {f"{name}_ci": interval(values) for name, values in resampled.items()}
    return {
        "name": system.name,
        "metrics": metrics,
        "validation_macro_f1": system.validation_macro_f1,
        "train_seconds": system.train_seconds,
        "store": system.store,
        "items_per_second": system.items_per_second,
        "size_bytes": system.size_bytes,
        "details": system.details,
    }
