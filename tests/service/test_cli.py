"""The real `rootstock` command with bad input: one message on standard error, an exit code, nothing left on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import TFIDF, first_run, report, system
from tests.toys import toy_config, toy_rows, write_csv, write_yaml

# (what is wrong with the config, further arguments, exit code, the message)
CASES: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
    "config": (
        {"training": {"epochs": 0}, "evaluation": {"bootstraps": 100}},
        [],
        2,
        "error: c.yaml has 2 problems:\n"
        "  training.epochs: Input should be greater than 0; found 0\n"
        "  evaluation.bootstraps: unknown key. Did you mean evaluation.bootstrap?\n",
    ),
    "override": (
        {},
        ["--set", "training.learning_rate=no"],
        2,
        "error: c.yaml has a problem:\n"
        "  training.learning_rate: expected a word or a number; found False "
        "(YAML reads yes, no, on and off as true or false: put the word in quotes)\n",
    ),
    "data": (
        {"data": {"train": "bad.csv", "text": "tweet"}},
        ["--processes", "1"],
        1,
        "error: bad.csv, line 3, column 2: expected UTF-8 text, found the byte 0xe9; save the file as UTF-8\n",
    ),
}


def rootstock(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "60"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("case", CASES)
def test_finetune_refuses(tmp_path: Path, case: str) -> None:
    sections, arguments, code, message = CASES[case]
    raw = toy_config(tmp_path)
    raw["data"]["train"] = "toy.csv"
    for section, values in sections.items():
        raw[section] = raw[section] | values
    write_yaml(tmp_path / "c.yaml", raw)
    (tmp_path / "bad.csv").write_bytes(b"tweet,label\nfine,calm\nx\xe9,harsh\n")
    before = sorted(tmp_path.rglob("*"))

    done = rootstock(tmp_path, "finetune", "c.yaml", "--out", "runs/out", *arguments)

    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(message)
    told = done.stderr.removesuffix(message).split("\n")
    assert [line for line in told if line] in ([], ["data: reading bad.csv"])  # the stage it was in, and nothing else
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before  # no runs/out, no runs/out.partial, no lock


def test_misuse_of_the_command_line(tmp_path: Path) -> None:
    done = rootstock(tmp_path, "finetune", "c.yaml", "--epochs", "3")
    assert done.returncode == 2
    assert "No such option: --epochs" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_compare_scores_a_run_on_a_file_with_other_column_names(tmp_path: Path) -> None:
    first_run(tmp_path)
    rows = [{"tweet": row["text"], "class": row["label"]} for row in toy_rows(30, seed=9)]
    write_csv(tmp_path / "new.csv", rows)
    command = ["compare", "first", "--data", "new.csv", "--text", "tweet", "--label", "class", "--out", "runs/new"]
    done = rootstock(tmp_path, *command, "--no-learning-curve", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["name"] for event in events if event["event"] == "stage"] == [
        "models", "data", "scoring", "scoring", "scoring",
    ]  # fmt: skip
    told = {event["name"]: event["macro_f1"] for event in events if event["event"] == "scored"}
    out = tmp_path / "runs/new"
    assert told == {name: system(out, name)["metrics"]["macro_f1"] for name in ("majority", TFIDF, "fine-tuned")}
    assert events[-1] == {"event": "finished", "path": "runs/new", "sentence": report(out)["verdict"]["sentence"]}


def test_compare_refuses_in_one_message(tmp_path: Path) -> None:
    write_csv(tmp_path / "new.csv", toy_rows(30))
    before = sorted(tmp_path.rglob("*"))
    done = rootstock(tmp_path, "compare", "nowhere", "--data", "new.csv")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if line]
    assert told == ["models: checking 1 run", "error: nowhere: no such directory"]
    assert sorted(tmp_path.rglob("*")) == before
    assert rootstock(tmp_path, "compare", "nowhere").returncode == 2
