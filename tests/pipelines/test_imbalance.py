"""`imbalance: auto`: every answer is tried by the recipe of the run, on validation, and the report says what helped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config import parse_config
from pipelines.data import load_splits
from pipelines.errors import ConfigError, Interrupted
from pipelines.estimate.estimate import estimate
from pipelines.imbalance import ANSWERS, USUAL, _section
from pipelines.loop import Progress
from pipelines.metrics import macro_f1
from pipelines.records import Stage
from pipelines.run import finetune
from pipelines.trial import Trial
from tests.runs import report, run
from tests.toys import toy_config, toy_rows, write_csv


def uneven_config(folder: Path) -> dict[str, Any]:
    rows = toy_rows(120)
    rows = [row for number, row in enumerate(rows) if row["label"] == "calm" or number % 3 == 0]
    write_csv(folder / "toy.csv", rows)
    return toy_config(folder, training={"imbalance": "auto"}, baselines=["majority"])


def weights(path: Path) -> bytes:
    return (path / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def auto(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Config and directory of a run that nothing has stopped."""
    folder = tmp_path_factory.mktemp("auto")
    raw = uneven_config(folder)
    run(raw, folder / "auto")
    return raw, folder / "auto"


def test_the_run_is_that_of_the_chosen_answer(auto: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    raw, out = auto
    section = report(out)["imbalance"]
    assert [row["name"] for row in section["answers"]] == list(ANSWERS)
    settings = ANSWERS[section["chosen"]]
    training = raw["training"] | settings | {"imbalance": "none"}
    run(raw | {"training": training}, tmp_path / "fixed")
    assert weights(out) == weights(tmp_path / "fixed")
    written = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert {key: written["training"][key] for key in settings} == settings
    assert not (out / "imbalance.json").exists()
    html = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="imbalance"' in html
    assert "imbalance" not in report(tmp_path / "fixed")


def test_a_stopped_choice_is_made_alike(auto: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    raw, undisturbed = auto
    tried: list[str] = []
    events = finetune(parse_config(raw), tmp_path / "halves", stop=lambda: len(tried) == 3)
    with pytest.raises(Interrupted):
        tried.extend(event.message for event in events if isinstance(event, Stage) and event.name == "imbalance")
    run(raw, tmp_path / "halves", resume=True)
    assert weights(tmp_path / "halves") == weights(undisturbed)


@pytest.mark.parametrize(
    ("wrong", "chosen"),
    [
        ({"nothing": 8}, USUAL),
        ({USUAL: 8}, "nothing"),  # the first of equals
        ({USUAL: 8, "nothing": 8, "label smoothing": 8, "oversampling": 8}, "focal loss"),
    ],
)
def test_class_weights_stay_unless_another_is_better(wrong: dict[str, int], chosen: str, tmp_path: Path) -> None:
    """Predictions of which the first few are wrong."""
    splits, config = _splits(tmp_path)
    targets = splits.targets(splits.validation)
    trials = {}
    for name in ANSWERS:
        predicted = targets.copy()
        predicted[: wrong.get(name, 0)] = 1 - predicted[: wrong.get(name, 0)]
        score = macro_f1(targets, predicted)
        trials[name] = Trial(config, predicted, score, _progress())
    section = _section(trials, splits, config)
    assert section["chosen"] == chosen
    rows = {row["name"]: row for row in section["answers"]}
    assert rows[USUAL]["difference"] == 0
    assert chosen in section["sentence"]
    if wrong == {"nothing": 8}:
        assert rows["nothing"]["difference_ci"][1] < 0
        assert "surely worse: nothing" in section["sentence"]


def _splits(folder: Path) -> tuple[Any, Any]:
    config = parse_config(toy_config(folder, data={"validation": 0.4}))
    return load_splits(config.data, 0), config


def _progress() -> Any:
    return Progress(seconds=1.0)


@pytest.mark.parametrize("key", ["class_weights", "oversampling", "loss", "label_smoothing"])
def test_what_is_chosen_cannot_be_given(key: str, tmp_path: Path) -> None:
    given = {"class_weights": "none", "oversampling": "balanced", "loss": "focal", "label_smoothing": 0.1}[key]
    raw = toy_config(tmp_path, training={"imbalance": "auto", key: given})
    with pytest.raises(ConfigError, match=rf"imbalance: auto chooses training\.{key} itself"):
        parse_config(raw)


def test_an_estimate_is_of_one_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set training\.imbalance=none"):
        list(estimate(parse_config(toy_config(tmp_path, training={"imbalance": "auto"}))))
