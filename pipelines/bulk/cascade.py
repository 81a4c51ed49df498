"""The certified cascade: a saved regression answers what it is sure of, the model answers the rest.

`certificate` says from which confidence on, and what that costs. Here: which regression, on which items it is
certified, and what it answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from pipelines.baselines import Baseline, load_baseline
from pipelines.bulk.certificate import Certificate
from pipelines.calibration import TINY
from pipelines.config import SplitFile
from pipelines.data import read_items
from pipelines.duplicates import group_items
from pipelines.errors import ConfigError, DataError
from pipelines.records import CLIENT, BoolArray, FloatArray, IntArray, column
from pipelines.saved_run import SavedRun
from pipelines.tables import read_table, unit_of

QUICK = ("logistic-regression-manual", "logistic-regression-tfidf")  # need no backbone


class Cascade:
    """A certified regression in front of a model.

    Args:
        certificate: see `certify`.
        baseline: the regression that it names (`load_quick`).
    """

    def __init__(self, certificate: Certificate, baseline: Baseline) -> None:
        self.certificate = certificate
        self.baseline = baseline

    def answer(self, texts: Sequence[str]) -> tuple[FloatArray, BoolArray]:
        """Calibrated probabilities (N, C) of at least one text, and which of them the regression answers, (N,)."""
        probabilities = self.baseline.predict_probabilities(texts)
        answered: BoolArray = probabilities.max(axis=1) >= self.certificate.threshold
        return _scaled(probabilities, self.certificate.temperature), answered


def quick_baseline(run: SavedRun) -> str:
    """Name of the saved regression without a backbone that has the best validation macro-F1.

    Of a continued run, only those that were trained on the items of both runs, as its model was.

    Raises:
        ConfigError: the run saved none.
    """
    quick = [name for name in run.baselines if name.removesuffix(CLIENT) in QUICK]
    alike = [name for name in quick if name.endswith(CLIENT)] or quick
    if not alike:
        raise ConfigError(
            f"{run.path}: a cascade needs one of the baselines {', '.join(QUICK)}; the run saved "
            f"{', '.join(run.baselines) or 'none'}; train it again with `baselines` in its config, or classify without"
        )
    return max(alike, key=lambda name: float(run.system(name)["validation_macro_f1"]))


def load_quick(run: SavedRun, name: str) -> Baseline:
    """The regression that `quick_baseline` names, without loading a backbone."""
    return load_baseline(run.path / "baselines" / name, None, "fp32")


def calibration_items(
    run: SavedRun, file: Path | None, text: str | None = None, label: str | None = None
) -> tuple[list[str], IntArray, IntArray]:
    """Texts, targets (N,) and groups (N,) of labelled items that the run was not trained on.

    Args:
        run: its validation part serves where there is no file. That part has also chosen the model's epoch, which
            flatters the model rather than the regression.
        file: less what the run, or those before it, were trained on, and less near duplicates of that.
        text, label: columns of the file; default those that the run was trained on.

    Raises:
        DataError: the file cannot be read, has a label that the model does not know, or nothing new.
    """
    seen = run.seen()
    part = np.array(column(seen, "part"))
    if file is None:
        own = (part == "validation") & (np.array(column(seen, "origin")) == "own")
        items = seen.select(np.flatnonzero(own))
        return column(items, "text"), _targets(items, run, run.path), np.array(column(items, "group"), dtype=np.int64)

    data = run.config.data
    group = data.group if data.group in read_table(file).columns else None
    columns = {"text": text or data.text, "label": label or data.label, "id": None, "group": group, "slices": ()}
    items = read_items(SplitFile(path=file), data.model_copy(update=columns))
    targets = _targets(items, run, file)
    trained = column(seen.select(np.flatnonzero(part == "train")), "text")
    texts = column(items, "text")
    groups = group_items([*trained, *texts], [[*[""] * len(trained), *column(items, "group")]])
    known, groups = groups[: len(trained)], groups[len(trained) :]
    fresh = np.flatnonzero(~np.isin(groups, known))
    if not len(fresh):
        raise DataError(file, "the model was trained on every item, or on near duplicates; give a file with new ones")
    return [texts[i] for i in fresh], targets[fresh], groups[fresh]


def _targets(items: Any, run: SavedRun, path: Path) -> IntArray:
    number = {label: c for c, label in enumerate(run.labels)}
    for label, line in zip(column(items, "label"), column(items, "line"), strict=True):
        if label not in number:
            known = ", ".join(run.labels)
            raise DataError(
                path,
                f"the model does not know the label {label!r}; it knows: {known}; correct the row or remove it",
                line,
                unit=unit_of(path),
            )
    return np.array([number[label] for label in column(items, "label")], dtype=np.int64)


def _scaled(probabilities: FloatArray, temperature: float) -> FloatArray:
    scaled: FloatArray = softmax(np.log(np.maximum(probabilities, TINY)) / temperature, axis=1)
    return scaled
