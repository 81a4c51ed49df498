"""Distillation: a fine-tuned teacher, as a rule a larger model, teaches a student what it would answer.

The ladder shows the teacher, the student trained alone, and the student taught. What a lesson costs: `lesson.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.data import matching_rows, require_columns, texts_of
from pipelines.device import Precision
from pipelines.duplicates import group_items
from pipelines.encoded import Encoded
from pipelines.errors import ConfigError, DataError, RunDirectoryError
from pipelines.lesson import Lesson
from pipelines.memory import PeakMemory
from pipelines.predict import logits_of
from pipelines.records import COMMON, Event, Splits, Stage, SystemScore, column
from pipelines.saved_run import SavedRun
from pipelines.score import predictor, score, score_saved
from pipelines.tables import read_table
from pipelines.trial import steps_only
from pipelines.tune import finished_model, prepare, tune

TEACHER, ALONE = "teacher", "fine-tuned-alone"  # rungs of the ladder below the taught student


@dataclass(frozen=True)
class Teacher:
    """A run that teaches, and what it teaches about besides the training items.

    Attributes:
        unlabelled: M texts.
        dropped: texts without a label that were left out, since they are among the splits, exactly or nearly.
    """

    run: SavedRun
    unlabelled: list[str]
    dropped: int


@dataclass(frozen=True)
class Student:
    """A trained model that is not kept.

    Attributes:
        steps: optimizer steps.
        details, training: as `score.score` wants them.
    """

    backbone: Backbone
    steps: int
    details: dict[str, Any]
    training: dict[str, Any]


def teacher_of(config: RunConfig, splits: Splits) -> Teacher | None:
    """The run that teaches, if one does.

    Raises:
        ConfigError: it is no finished run, or has other classes.
        DataError: it knows the labels of test items, or was trained on validation items; or the file without labels.
    """
    if config.distill is None:
        return None
    try:
        run = SavedRun(config.distill.teacher)
    except RunDirectoryError as error:
        raise ConfigError(f"distill.teacher: {error}; expected the directory of a finished run") from None
    if set(run.labels) != set(splits.labels):
        raise ConfigError(
            f"distill.teacher: expected a model of the classes {', '.join(splits.labels)}; that of {run.path} knows "
            f"{', '.join(run.labels)}"
        )
    seen = run.seen()
    trained = seen.select(np.flatnonzero(np.array(column(seen, "part")) != "validation"))
    for part, known in (("test", seen), ("validation", trained)):
        held_out = column(getattr(splits, part), "text")
        repeats = _repeats(column(known, "text"), held_out)
        if repeats:
            raise DataError(
                config.data.train.path,
                f"the teacher has learned from {len(repeats)} of the {len(held_out)} {part} items, so the student "
                "would be scored on what it was told; give both runs the same data and training.seed, or a test file",
            )
    return Teacher(run, *_unlabelled(config, splits))


def seen_through(teacher: Teacher) -> Dataset:
    """What a student has learned of through its teacher, without labels where there were none."""
    seen = teacher.run.seen().select_columns(list(COMMON))
    M = len(teacher.unlabelled)
    blank = {"label": [""] * M, "id": [""] * M, "group": [0] * M, "line": [0] * M}
    told = Dataset.from_dict({"text": teacher.unlabelled} | blank, features=seen.features)
    return concatenate_datasets([seen, told])


def lesson_of(
    config: RunConfig, teacher: Teacher, splits: Splits, precision: Precision, accelerator: Accelerator | None = None
) -> Lesson:
    """Ask the teacher about every training item and everything that is unlabelled; processes share the work."""
    assert config.distill is not None
    model = teacher.run.model()
    asked = column(splits.train, "text") + teacher.unlabelled
    started = time.perf_counter()
    logits = logits_of(Encoded(model, model.encode(asked)), precision, accelerator)
    order = [teacher.run.labels.index(label) for label in splits.labels]
    return Lesson(config.distill, teacher.unlabelled, logits[:, order], time.perf_counter() - started)


def student_alone(
    config: RunConfig,
    splits: Splits,
    precision: Precision,
    accelerator: Accelerator,
    checkpoints: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, Student]:
    """The same training without a teacher. All processes must call this alike."""
    yield Stage("distill", "training the student alone, for comparison")
    trunk = prepare(config, splits.labels, None)
    with PeakMemory() as peak:
        parts = accelerator, precision, Checkpoints(checkpoints), stop, store
        progress = yield from steps_only(tune(trunk, splits, splits.train, config, *parts))
    accelerator.free_memory()  # of this model, whose optimizer the next one's training would also ask
    backbone = finished_model(trunk)
    backbone.model.to("cpu")  # until it is scored
    training = {"train_seconds": progress.seconds, "peak_memory_bytes": peak.bytes, "store": progress.store}
    return Student(backbone, progress.step, {"best_step": progress.best_step}, training)


def rungs(
    teacher: Teacher, alone: Student, splits: Splits, precision: Precision, size: int
) -> dict[str, Callable[[], SystemScore]]:
    """What distillation adds to the ladder: name -> how to score it.

    Args:
        size: of the taught model on disk, which is that of the one trained alone.
    """
    run = teacher.run
    own = partial(score, ALONE, predictor(alone.backbone, precision), splits.labels, splits, len(splits.train))
    return {
        TEACHER: lambda: score_saved(run, run.main, TEACHER, predictor(run.model(), precision), splits),
        ALONE: lambda: own(alone.details, alone.training, size),
    }


def distillation_section(
    lesson: Lesson, teacher: Teacher, report: dict[str, Any], alone: int, taught: int
) -> dict[str, Any]:
    """What the report says: teacher, student alone and student taught, on the test part.

    Args:
        alone, taught: optimizer steps, of which content without labels makes more.
    """
    scores = {system["name"]: system["metrics"] for system in report["systems"]}
    main = report["main"]
    pair = next(c for c in report["comparisons"] if (c["system"], c["baseline"]) == (main, ALONE))
    low, high = pair["difference_ci"]
    helped = "helped" if low > 0 else "did harm" if high < 0 else "may or may not have helped"
    found = {name: scores[system]["macro_f1"] for name, system in (("teacher", TEACHER), ("alone", ALONE))}
    found["taught"] = scores[main]["macro_f1"]
    return found | {
        "name": teacher.run.path.name,
        "unlabelled": len(teacher.unlabelled),
        "dropped": teacher.dropped,
        "steps": {"alone": alone, "taught": taught},
        "temperature": lesson.config.temperature,
        "weight": lesson.config.weight,
        "difference": pair["difference"],
        "difference_ci": pair["difference_ci"],
        "sentence": f"The teacher {helped}: taught, the model reaches macro-F1 {found['taught']:.3f}, alone "
        f"{found['alone']:.3f}, a change of {100 * pair['difference']:+.1f} points (95% interval {100 * low:+.1f} to "
        f"{100 * high:+.1f}); the teacher itself {found['teacher']:.3f}.",
    }


def _unlabelled(config: RunConfig, splits: Splits) -> tuple[list[str], int]:
    """Texts of `distill.unlabelled` that are no items of the splits, and how many are."""
    assert config.distill is not None
    part = config.distill.unlabelled
    if part is None:
        return [], 0
    table = read_table(part.path)
    columns = [("data.text", config.data.text), *(("distill.unlabelled.where", name) for name in part.where)]
    require_columns(table.path, table.columns, columns)
    texts = texts_of(table, matching_rows(table.rows, part.where), config.data.text)
    items = [text for p in (splits.train, splits.validation, splits.test) for text in column(p, "text")]
    known = set(_repeats(items, texts))
    return [text for number, text in enumerate(texts) if number not in known], len(known)


def _repeats(known: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Numbers of the texts that are among those that are known, exactly or nearly."""
    groups = group_items([*known, *texts], [])
    return np.flatnonzero(np.isin(groups[len(known) :], groups[: len(known)])).tolist()
