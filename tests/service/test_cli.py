"""The real `rootstock` command with bad input: one message on standard error, an exit code, nothing left on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.toys import toy_config, write_yaml

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
