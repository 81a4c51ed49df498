"""What helps against uneven classes: for `imbalance: auto` every answer is tried, and validation chooses."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.intervals import Bootstrap, interval
from pipelines.metrics import macro_f1
from pipelines.records import Event, Splits, Stage, column
from pipelines.saved_run import SavedRun
from pipelines.trial import Trial, tried

USUAL = "class weights"  # what the others have to be better than
ANSWERS: dict[str, dict[str, Any]] = {
    "nothing": {"class_weights": "none"},
    USUAL: {"class_weights": "balanced"},
    "focal loss": {"class_weights": "none", "loss": "focal"},
    "oversampling": {"class_weights": "none", "oversampling": "balanced"},
    "label smoothing": {"class_weights": "none", "label_smoothing": 0.1},
}
TIE = 0.005  # macro-F1 below which class weights are kept
CAVEAT = (
    "One training each, scored on the validation part, on which the answer is chosen: the best of five is a little "
    "flattered, and another seed may choose another. The test part is not looked at."
)


def try_answers(
    config: RunConfig,
    splits: Splits,
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    folder: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, dict[str, Any]]:
    """Train once with every answer by the recipe of the run. All processes must call this alike.

    Args:
        config: with a depth; what it says of losses and draws is at its defaults.
        folder: of checkpoints; an answer that is done there is not trained again.
        store: of hidden states, so that only the layers above the cut are run.

    Returns:
        The report's section, which names the answer that was chosen.
    """
    trials: dict[str, Trial] = {}
    for name, settings in ANSWERS.items():
        yield Stage("imbalance", f"training with {name}")
        own = with_answer(config, settings)
        saved = Checkpoints(folder / name.replace(" ", "-"))
        trials[name] = yield from tried(own, splits, splits.train, start, precision, accelerator, saved, stop, store)
    return _section(trials, splits, config)


def with_answer(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The config with one of ANSWERS."""
    training = config.training.model_copy(update=settings | {"imbalance": "none"})
    return config.model_copy(update={"training": training})


def _section(trials: dict[str, Trial], splits: Splits, config: RunConfig) -> dict[str, Any]:
    targets, groups = splits.targets(splits.validation), np.array(column(splits.validation, "group"))
    bootstrap = Bootstrap(targets, groups, len(splits.labels), config.evaluation.bootstrap, config.training.seed)
    resampled = {name: bootstrap.scores(trial.predicted)["macro_f1"] for name, trial in trials.items()}
    usual = macro_f1(targets, trials[USUAL].predicted)
    rows: list[dict[str, Any]] = []
    for name, trial in trials.items():
        difference = trial.macro_f1 - usual
        rows.append(
            {
                "name": name,
                "settings": ANSWERS[name],
                "macro_f1": trial.macro_f1,
                "macro_f1_ci": interval(resampled[name]),
                "difference": difference,
                "difference_ci": bootstrap.difference(resampled[name], resampled[USUAL], difference),
                "train_seconds": trial.progress.seconds,
            }
        )
    best = max(rows, key=lambda row: row["macro_f1"])
    chosen = best["name"] if best["difference"] > TIE else USUAL
    return {"answers": rows, "chosen": chosen, "sentence": _sentence(rows, chosen), "caveat": CAVEAT}


def _sentence(rows: list[dict[str, Any]], chosen: str) -> str:
    helped = [row["name"] for row in rows if row["difference_ci"][0] > 0]
    hurt = [row["name"] for row in rows if row["difference_ci"][1] < 0]
    surely = f"Surely better than {USUAL}: {', '.join(helped) or 'none'}; surely worse: {', '.join(hurt) or 'none'}."
    own = next(row for row in rows if row["name"] == chosen)
    low, high = own["macro_f1_ci"]
    return (
        f"Against uneven classes this model uses {chosen}: macro-F1 {own['macro_f1']:.3f} (95% interval {low:.3f} to "
        f"{high:.3f}) on the validation part. {surely}"
    )
