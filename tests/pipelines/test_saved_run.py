"""A run directory read back: what it says, what it holds, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines import durable
from pipelines.errors import RunDirectoryError
from pipelines.predict import predict_probabilities
from pipelines.records import column
from pipelines.saved_run import SEEN, SavedRun
from tests.runs import TFIDF, client_config, first_run, run, system, table

MANUAL, EMBEDDINGS = "logistic-regression-manual", "logistic-regression-embeddings"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_run(tmp_path_factory.mktemp("saved"), baselines=[TFIDF, "majority", EMBEDDINGS])


@pytest.fixture(scope="module")
def second(first: Path) -> Path:
    run(client_config(first.parent, first, baselines=[TFIDF, "majority"]), first.parent / "second")
    return first.parent / "second"


@pytest.fixture
def copy(first: Path, tmp_path: Path) -> Path:
    shutil.copytree(first, tmp_path / "copy")
    return tmp_path / "copy"


def reseal(path: Path, **changes: object) -> None:
    """Write the manifest anew, as if the directory had been published as it is now."""
    manifest = durable.read_manifest(path) | changes
    (path / durable.MANIFEST).unlink()
    durable.publish(path, path.with_name("resealed"), {k: v for k, v in manifest.items() if k != "sha256"})
    path.with_name("resealed").rename(path)


def test_what_was_written_is_read(first: Path) -> None:
    saved = SavedRun(first)
    assert saved.labels == ("calm", "harsh")
    assert saved.main == "fine-tuned"
    assert saved.baselines == [TFIDF, "majority", EMBEDDINGS]
    assert saved.config.training.epochs == 2
    assert saved.manifest["kind"] == "run"
    assert saved.system(TFIDF) == system(first, TFIDF)


def test_systems_that_are_not_in_the_directory_are_no_baselines(second: Path) -> None:
    """The model that the run started from is in its report, but in another directory."""
    saved = SavedRun(second)
    assert saved.main == "fine-tuned-client"
    assert saved.baselines == ["majority", TFIDF, f"{TFIDF}-client"]
    assert "fine-tuned" in [entry["name"] for entry in saved.report["systems"]]


def test_model_and_baselines_predict_what_was_reported(first: Path) -> None:
    saved = SavedRun(first)
    reported = table(first)
    model = saved.model()
    pretrained = saved.pretrained()
    found = {name: saved.baseline(name, pretrained, "fp32").predict_probabilities for name in saved.baselines}
    found["fine-tuned"] = lambda texts: predict_probabilities(model, model.encode(texts), "fp32")
    for name, predict in found.items():
        np.testing.assert_allclose(predict(reported["text"]), reported[f"{name}/probabilities"], atol=1e-6)


def test_seen_items_are_those_of_training_and_validation(first: Path) -> None:
    seen = SavedRun(first).seen()
    assert Counter(column(seen, "part")) == {"train": 38, "validation": 10}
    assert not set(column(seen, "text")) & set(table(first)["text"])
    assert set(column(seen, "origin")) == {"own"}


def test_an_incomplete_or_changed_directory_is_refused(copy: Path) -> None:
    with (copy / "model/config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(RunDirectoryError, match=r"copy: the file model/config\.json was changed after it was written"):
        SavedRun(copy)
    (copy / "model/config.json").unlink()
    with pytest.raises(RunDirectoryError, match=r"copy: the file model/config\.json is missing"):
        SavedRun(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(RunDirectoryError, match="copy: not a complete run directory"):
        SavedRun(copy)
    with pytest.raises(RunDirectoryError, match="nowhere: no such directory"):
        SavedRun(copy.with_name("nowhere"))


def test_a_comparison_is_no_run(copy: Path) -> None:
    reseal(copy, kind="comparison")
    with pytest.raises(RunDirectoryError, match="copy: not a run directory of rootstock finetune"):
        SavedRun(copy)


def test_a_run_of_an_older_version_is_refused(copy: Path) -> None:
    (copy / SEEN).unlink()
    reseal(copy)
    with pytest.raises(RunDirectoryError, match=r"training_items\.parquet is missing: the run is of an older version"):
        SavedRun(copy)


def test_a_run_of_another_task_is_refused_in_one_line(copy: Path) -> None:
    config = (copy / "config.yaml").read_text(encoding="utf-8")
    (copy / "config.yaml").write_text(config.replace("text-classification", "image-classification"), encoding="utf-8")
    reseal(copy)
    with pytest.raises(RunDirectoryError) as error:
        SavedRun(copy)
    assert re.search(
        r"copy: not a run that this version can use: \S+ has a problem: task: Input should be 'text-classification'; "
        r"found 'image-classification'$",
        str(error.value),
    )


def test_the_report_is_not_touched_by_reading(first: Path) -> None:
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    saved = SavedRun(first)
    saved.model()
    saved.seen()
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    assert json.loads(before[first / "report.json"]) == saved.report
