from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import EMBEDDED_BACKBONE
from pipelines.errors import ConfigError
from service.client.submission import read_submission


def write(folder: Path, text: str) -> Path:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_runs_config_becomes_a_call(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        "task: text-classification\n"
        "data: {train: mine.csv, text: body, label: verdict, validation: 0.1, test: 0.2, max_length: 64}\n"
        "backbone: {name: toy, freeze: 2}\ntraining: {epochs: 2}\noutput: runs/mine\n",
    )
    train, validation, body = read_submission(config, None)
    assert (train, validation) == (Path("mine.csv"), None)
    assert body == {
        "task": "text-classification",
        "model": "toy",
        "backbone": {"freeze": 2},
        "training": {"epochs": 2},
        "data": {"text": "body", "label": "verdict", "max_length": 64, "validation": 0.1, "test": 0.2},
    }


def test_files_are_uploaded_not_named(tmp_path: Path) -> None:
    config = write(tmp_path, "task: t\ndata: {train: a.csv, validation: {path: v.csv}, text: t, label: l}\n")
    train, validation, body = read_submission(config, Path("other.jsonl"))
    assert (train, validation) == (Path("other.jsonl"), Path("v.csv"))
    assert "validation" not in body["data"]
    assert body["model"] == EMBEDDED_BACKBONE


def test_an_own_model_is_trained_further(tmp_path: Path) -> None:
    config = write(tmp_path, "task: t\nstart_from: ft:toy:default::abc\ndata: {train: a.csv, text: t, label: l}\n")
    assert read_submission(config, None)[2]["model"] == "ft:toy:default::abc"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task: t\n", "no training file"),
        ("- a\n", "expected a mapping"),
        ("task: [\n", "not valid YAML"),
        ("task: t\ndata: {train: a.csv}\ntrainig: {}\n", "trainig: unknown key"),
        ("task: t\ndata: {train: a.csv, test: b.csv}\n", "data.test"),
        ("task: t\ndata: {train: {path: a.csv, where: {split: train}}}\n", "data.train: a service takes whole files"),
    ],
)
def test_what_a_service_does_not_do(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        read_submission(write(tmp_path, text), None)
