"""Run directories as the models of one classification."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines import durable
from pipelines.bulk.models import Models
from pipelines.errors import ConfigError, RunDirectoryError
from tests.runs import first_run

POINTS = [
    {"class": "harsh", "wanted": "precision", "aim": 0.9, "threshold": 0.625},
    {"class": "harsh", "wanted": "recall", "aim": 0.9, "threshold": None, "reason": "too few items"},
    {"class": "harsh", "wanted": "precision", "aim": 0.95, "threshold": None, "reason": "none reaches it"},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_run(tmp_path_factory.mktemp("models"), baselines=["majority"])


@pytest.fixture(scope="module")
def with_points(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with known thresholds in its report."""
    copy = tmp_path_factory.mktemp("points") / "second"
    shutil.copytree(run, copy)
    report = json.loads((copy / "report.json").read_text())
    report["operating_points"]["points"] = POINTS
    (copy / "report.json").write_text(json.dumps(report))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").unlink()
    details = {key: value for key, value in manifest.items() if key != "sha256"}
    copy.rename(copy.with_name("staged"))
    durable.publish(copy.with_name("staged"), copy, details)
    return copy


def test_names_labels_and_depth(run: Path, with_points: Path) -> None:
    models = Models([run, with_points])
    assert list(models.runs) == ["first", "second"]
    assert models.labels == dict.fromkeys(("first", "second"), ("calm", "harsh"))
    assert models.frozen_depth == 1
    digests = models.digests()
    assert [name for name, _ in digests] == ["first", "second"]
    assert digests[0][1] != digests[1][1]  # their reports differ
    assert models.digests() == digests != Models([with_points, run]).digests()


def test_two_of_one_name_and_incomplete_ones_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a second model called 'first'; rename one of the directories"):
        Models([run, run])
    with pytest.raises(RunDirectoryError, match="no such directory"):
        Models([run, tmp_path / "nothing"])


def test_texts_can_be_cut_earlier_than_in_training(run: Path) -> None:
    (backbone,) = Models([run], 5).load().values()
    assert [len(ids) for ids in backbone.encode(["the cat sleeps gladly near the barn"])] == [5]
    encodings, owners = backbone.windows(["the cat sleeps gladly near the barn", "the dog"])
    assert owners == [0, 0, 0, 1]  # 3 words of 7 at a time, without overlap at so few
    assert [len(ids) for ids in encodings] == [5, 5, 3, 4]
    (as_trained,) = Models([run]).load().values()
    assert as_trained.max_length == 64


def test_thresholds_are_numbers_or_promises(with_points: Path) -> None:
    models = Models([with_points])
    assert models.thresholds([]) == {"second": {}}
    assert models.thresholds(["harsh=0.3", "calm=1"]) == {"second": {"harsh": 0.3, "calm": 1.0}}
    assert models.thresholds(["harsh=precision:0.9"]) == {"second": {"harsh": 0.625}}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("harsh=recall:0.9", "too few items; promised are none"),
        ("harsh=precision:0.95", r"none reaches it; promised are 0\.9"),
        ("harsh=precision:0.8", r"the report holds no precision of 0\.8; promised are 0\.9"),
        ("mild=0.5", "expected LABEL=VALUE with a label among calm, harsh"),
        ("0.5", "expected LABEL=VALUE"),
        ("harsh=high", "expected a score from 0 to 1"),
        ("harsh=nan", "expected a score from 0 to 1"),
        ("harsh=1.5", "expected a score from 0 to 1"),
        ("harsh=f1:0.5", "precision:0.9 or recall:0.9"),
    ],
)
def test_what_is_not_promised_is_refused(with_points: Path, wanted: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Models([with_points]).thresholds([wanted])
