"""Distillation: what a lesson costs, who may teach, and the ladder with teacher, student alone and student taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.checkpoint import Checkpoints
from pipelines.config import DistillConfig, parse_config
from pipelines.data import load_splits
from pipelines.distillation import ALONE, lesson_of, teacher_of
from pipelines.errors import ConfigError, DataError, Interrupted
from pipelines.estimate.estimate import estimate
from pipelines.lesson import Lesson
from pipelines.loop import Loop, TrainingData
from pipelines.records import column
from pipelines.saved_run import SavedRun
from tests.pipelines.test_train import Run, stop_after
from tests.runs import report, run, system
from tests.toys import toy_config, toy_rows, write_csv


def lesson(logits: np.ndarray, **settings: Any) -> Lesson:
    return Lesson(DistillConfig(teacher=Path("t"), **settings), [], logits, 0.0)


# ---- the loss


def test_a_lesson_costs_the_divergence_at_its_temperature() -> None:
    teacher, own = np.array([[2.0, 0.0], [0.0, 1.0], [9.0, 9.0]]), torch.tensor([[0.5, 0.0], [3.0, -1.0]])
    numbers = np.array([1, 0])
    p = torch.softmax(torch.from_numpy(teacher[numbers]).float() / 3, dim=1)
    q = torch.softmax(own / 3, dim=1)
    expected = 9 * (p * (p / q).log()).sum(dim=1)
    torch.testing.assert_close(lesson(teacher, temperature=3).losses(own, numbers), expected)


def test_who_says_what_the_teacher_says_pays_nothing() -> None:
    teacher = np.array([[2.0, 0.0]])
    assert float(lesson(teacher).losses(torch.tensor([[5.0, 3.0]]), np.array([0]))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_labels_and_lesson_are_weighed(accumulation: int, tmp_path: Path) -> None:
    """Unlabelled items count for the lesson alone; class weights for the labels alone."""
    run = Run(tmp_path, class_weights="balanced", accumulation=accumulation, max_grad_norm=1e9)
    targets = run.training.targets.copy()
    targets[40:] = -1
    told = np.random.default_rng(0).normal(size=(50, 2))
    own = lesson(told, weight=0.3)
    loop = Loop(run.trunk, TrainingData(run.training.items, targets, own), run.config, run.accelerator)
    run.trunk.backbone.model.eval()
    batch = np.arange(34, 46)
    logits = run.training.items.logits(run.trunk.backbone.model, batch).detach()
    counts = np.bincount(targets[targets >= 0])
    weights = torch.from_numpy(40 / (2 * counts)).float()
    by_label = torch.nn.functional.cross_entropy(logits[:6], torch.from_numpy(targets[34:40]), weights)
    by_teacher = own.losses(logits, batch).mean()
    assert float(loop.step(batch, 0)) == pytest.approx(float(0.7 * by_label + 0.3 * by_teacher), abs=1e-5)


def test_a_batch_without_labels_has_a_loss(tmp_path: Path) -> None:
    run = Run(tmp_path)
    data = TrainingData(run.training.items, np.full(50, -1), lesson(np.ones((50, 2)), weight=0.5))
    data.targets[:10] = run.training.targets[:10]
    loop = Loop(run.trunk, data, run.config, run.accelerator)
    assert np.isfinite(float(loop.step(np.arange(20, 30), 0)))


# ---- runs


def students(folder: Path, **distill: Any) -> dict[str, Any]:
    """A config of a student whose teacher is the run in `teacher`, on the same data."""
    return toy_config(folder, rows=120, distill={"teacher": str(folder / "teacher")} | distill, baselines=["majority"])


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, its student, and the student's config without a teacher."""
    folder = tmp_path_factory.mktemp("taught")
    run(toy_config(folder, rows=120, training={"epochs": 8}, baselines=["majority"]), folder / "teacher")
    rows = [*toy_rows(30, seed=5), *toy_rows(120)[:3]]
    write_csv(folder / "unlabelled.csv", [{"text": row["text"]} for row in rows])
    raw = students(folder, unlabelled=str(folder / "unlabelled.csv"), weight=0.8)
    run(raw, folder / "student")
    del raw["distill"]
    run(raw, folder / "alone")
    return folder


def test_the_ladder_has_teacher_student_alone_and_student_taught(taught: Path) -> None:
    found = report(taught / "student")
    assert [s["name"] for s in found["systems"]] == ["majority", "teacher", "fine-tuned-alone", "fine-tuned"]
    assert found["main"] == "fine-tuned"
    pairs = {(c["system"], c["baseline"]) for c in found["comparisons"]}
    assert {("fine-tuned", "teacher"), ("fine-tuned", "fine-tuned-alone")} <= pairs
    told = found["distillation"]
    assert told["teacher"] == system(taught / "teacher", "fine-tuned")["metrics"]["macro_f1"]
    assert told["taught"] == system(taught / "student", "fine-tuned")["metrics"]["macro_f1"]
    assert told["sentence"] in (taught / "student" / "report.html").read_text(encoding="utf-8")


def test_the_student_alone_is_the_run_without_a_teacher(taught: Path) -> None:
    alone = system(taught / "student", "fine-tuned-alone")["metrics"]
    assert {k: alone[k] for k in ("accuracy", "macro_f1")} == {
        k: system(taught / "alone", "fine-tuned")["metrics"][k] for k in ("accuracy", "macro_f1")
    }
    weights = [(taught / name / "model/model.safetensors").read_bytes() for name in ("student", "alone")]
    assert weights[0] != weights[1]


def test_unlabelled_items_of_the_splits_are_left_out(taught: Path) -> None:
    told = report(taught / "student")["distillation"]
    assert told["dropped"] == 3
    assert told["unlabelled"] == 30
    manifest = json.loads((taught / "student" / "manifest.json").read_text(encoding="utf-8"))
    teacher = json.loads((taught / "teacher" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["teacher"]["sha256"] == teacher["sha256"]["model/model.safetensors"]


def test_a_stopped_lesson_goes_on_alike(taught: Path, tmp_path: Path) -> None:
    raw = students(taught, unlabelled=str(taught / "unlabelled.csv"), weight=0.8)
    for steps, reached in ((5, False), (30, True)):  # alone, and taught
        with pytest.raises(Interrupted):
            run(raw, tmp_path / str(steps), stop=stop_after(steps))
        saved = tmp_path / f"{steps}.partial" / "checkpoints"
        assert Checkpoints(saved / ALONE).newest() is not None
        assert (Checkpoints(saved).newest() is not None) == reached
        run(raw, tmp_path / str(steps), resume=True)
        first, second = (p / "model/model.safetensors" for p in (taught / "student", tmp_path / str(steps)))
        assert first.read_bytes() == second.read_bytes()


def test_a_teacher_of_the_students_exam_is_refused(taught: Path, tmp_path: Path) -> None:
    raw = students(taught)
    raw["training"] |= {"seed": 3}  # another split
    with pytest.raises(DataError, match=r"the teacher has learned from \d+ of the \d+ test items"):
        run(raw, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_teacher_that_was_chosen_on_the_students_exam_is_refused(taught: Path, tmp_path: Path) -> None:
    """Its epoch and temperature were: the validation items of the teacher are the test items of the student."""
    seen = SavedRun(taught / "teacher").seen()
    rows = [row for row in seen.to_list() if row["part"] == "validation"]
    exam = write_csv(tmp_path / "exam.csv", [{"text": row["text"], "label": row["label"]} for row in rows])
    raw = students(taught)
    raw["data"] |= {"test": str(exam)}
    with pytest.raises(DataError, match=rf"the teacher has learned from {len(rows)} of the {len(rows)} test items"):
        run(raw, tmp_path / "out")


def test_what_a_student_was_told_of_counts_as_seen(taught: Path) -> None:
    seen, told = (SavedRun(taught / name).seen() for name in ("student", "teacher"))
    by_teacher = [row["text"] for row in seen.to_list() if row["origin"] == "teacher"]
    assert set(column(told, "text")) <= set(by_teacher)
    assert len(by_teacher) == len(told) + 30
    assert {row["part"] for row in seen.to_list() if row["origin"] == "teacher"} == {"taught"}  # nothing to train on


def test_the_teachers_classes_may_be_in_another_order(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(students(taught))
    splits = load_splits(config.data, 0)
    teacher = teacher_of(config, splits)
    assert teacher is not None
    plain = lesson_of(config, teacher, splits, "fp32").logits
    teacher.run.labels = teacher.run.labels[::-1]
    model = teacher.run.model()
    with torch.no_grad():
        for parameter in model.model.classifier.parameters():
            parameter.copy_(parameter.flip(0))
    monkeypatch.setattr(teacher.run, "model", lambda: model)
    np.testing.assert_allclose(lesson_of(config, teacher, splits, "fp32").logits, plain, atol=1e-6)


def test_a_teacher_of_other_classes_is_refused(taught: Path, tmp_path: Path) -> None:
    rows = [row | {"label": row["label"].upper()} for row in toy_rows(120, seed=9)]
    raw = students(taught, teacher=str(taught / "teacher")) | {}
    raw["data"] |= {"train": str(write_csv(tmp_path / "other.csv", rows))}
    with pytest.raises(ConfigError, match=r"distill\.teacher: expected a model of the classes CALM, HARSH"):
        run(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"start_from": "runs/general"}, "start_from"),
        ({"evaluation": {"learning_curve": "auto"}}, "evaluation.learning_curve"),
        ({"training": {"oversampling": "balanced"}}, "training.oversampling"),
        ({"training": {"imbalance": "auto"}}, "training.imbalance: auto"),
    ],
)
def test_what_does_not_go_with_a_teacher(sections: dict[str, Any], key: str, tmp_path: Path) -> None:
    raw = toy_config(tmp_path, distill={"teacher": "runs/teacher"}, **sections)
    with pytest.raises(ConfigError, match=rf"distill: cannot be combined with {key}; leave one of them out"):
        parse_config(raw)


def test_a_teacher_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, distill={"teacher": str(tmp_path / "nothing")})
    with pytest.raises(ConfigError, match=r"distill\.teacher: .*nothing.*; expected the directory of a finished run"):
        run(raw, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"distill: .* is not estimated"):
        list(estimate(parse_config(raw)))
