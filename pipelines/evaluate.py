"""Score every system once on the test part and compare them in pairs: the core of report.json.

Choices (the rival, the best epoch, temperature, thresholds) are made on validation; nothing here looks at the test part
twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.calibration import calibration_section
from pipelines.config import EvaluationConfig
from pipelines.curves import curves_section
from pipelines.intervals import Bootstrap, interval, mcnemar
from pipelines.metrics import all_metrics, macro_f1
from pipelines.mistakes import mistakes_section
from pipelines.operating_points import operating_points
from pipelines.records import FloatArray, IntArray, Splits, SystemScore, column
from pipelines.slices import slices_section
from pipelines.verdict import find_rival, verdict

FINE_TUNED = "fine-tuned"
LADDER_CAVEAT = (
    "All systems answer the same test items; the intervals are 95% and cover the choice of those items only. Compare "
    "systems that were trained on the same number of items."
)


def compare_systems(
    splits: Splits,
    systems: list[SystemScore],
    main: str,
    config: EvaluationConfig,
    seed: int,
    temperature: tuple[float, str],
    slices: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Metrics with intervals, paired comparisons, the verdict, and the sections on the main system.

    Args:
        splits: labels, counts and the parts; the validation part is that of the main system.
        systems: the ladder, lowest rung first.
        main: name of the fine-tuned system that the report is about.
        config: resamples, gain worth having, positive class, wanted precisions and recalls.
        seed: of the bootstrap.
        temperature: of the main system, and why.
        slices: columns.
    """
    targets = splits.targets(splits.test)
    positive = positive_class(splits, config)
    groups = np.array(column(splits.test, "group"))
    bootstrap = Bootstrap(targets, groups, len(splits.labels), config.bootstrap, seed)
    resampled = {system.name: bootstrap.scores(system.probabilities.argmax(axis=1)) for system in systems}
    by_name = {system.name: system for system in systems}
    own, rival = by_name[main], find_rival(systems, by_name[main])
    comparisons = [
        _comparison(by_name[first], by_name[second], bootstrap, resampled) for first, second in _pairs(systems, main)
    ]
    alike = [system for system in systems if system.trained_on == own.trained_on]
    others = [] if rival is None else [rival]
    said = None if rival is None else rival.probabilities
    sections: dict[str, Any] = {
        "verdict": verdict(own, rival, find_rival(alike, own), comparisons, config.min_gain, splits),
        "calibration": calibration_section(own.probabilities, targets, *temperature, config.bootstrap, seed),
        "curves": curves_section(splits.labels, targets, [own, *others], positive),
        "slices": slices_section(
            splits.test,
            slices,
            targets,
            own.probabilities.argmax(axis=1),
            None if said is None else said.argmax(axis=1),
        ),
        "mistakes": mistakes_section(splits.test, splits.labels, targets, own.probabilities, said),
    }
    if own.validation_probabilities is not None:
        checked = own.validation_probabilities, splits.targets(splits.validation)
        sections["operating_points"] = operating_points(
            splits.labels, checked, (own.probabilities, targets), config.operating_points
        )
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
        "main": main,
        "systems": [_system(system, targets, positive, resampled[system.name]) for system in systems],
        "comparisons": comparisons,
        "ladder_caveat": LADDER_CAVEAT,
    } | sections


def positive_class(splits: Splits, config: EvaluationConfig) -> int:
    """The class that binary areas under curves refer to: the configured one, else the rarer in training."""
    if config.positive is not None:
        return splits.labels.index(config.positive)
    counts = np.bincount(splits.targets(splits.train), minlength=len(splits.labels))
    return int(counts.argmin())


def _pairs(systems: list[SystemScore], main: str) -> list[tuple[str, str]]:
    """The main system with every other; any other fine-tuned one with what its run trained on as many items."""
    pairs = [(main, other.name) for other in systems if other.name != main]
    for tuned in systems:
        folder, _, name = tuned.name.rpartition("/")
        if tuned.name == main or not name.startswith(FINE_TUNED):
            continue
        alike = [s for s in systems if s.name.rpartition("/")[0] == folder and s.trained_on == tuned.trained_on]
        pairs += [(tuned.name, s.name) for s in alike if s is not tuned and s.name != main]
    return pairs


def _comparison(
    system: SystemScore, baseline: SystemScore, bootstrap: Bootstrap, resampled: dict[str, dict[str, FloatArray]]
) -> dict[str, Any]:
    targets = bootstrap.targets
    first, second = system.probabilities.argmax(axis=1), baseline.probabilities.argmax(axis=1)
    difference = macro_f1(targets, first) - macro_f1(targets, second)
    own, other = (resampled[s.name]["macro_f1"] for s in (system, baseline))
    return {
        "system": system.name,
        "baseline": baseline.name,
        "metric": "macro_f1",
        "difference": difference,
        "difference_ci": bootstrap.difference(own, other, difference),
        "mcnemar_p": mcnemar(targets, first, second),
    }


def _system(system: SystemScore, targets: IntArray, positive: int, resampled: dict[str, Any]) -> dict[str, Any]:
    metrics = all_metrics(system.probabilities, targets, positive)
    metrics |= {f"{name}_ci": interval(values) for name, values in resampled.items()}
    return {
        "name": system.name,
        "metrics": metrics,
        "validation_macro_f1": system.validation_macro_f1,
        "trained_on": system.trained_on,
        **asdict(system.costs),
        "details": system.details,
    }
