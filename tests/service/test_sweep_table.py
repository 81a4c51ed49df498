"""A sweep on a terminal: what each training ended with, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.records import Swept, Trained
from pipelines.sweep.selection import table
from service.progress import show
from service.sweep_table import training_line
from tests.pipelines.sweep.made import run, runs, setting

A, B = setting(0.001, backbone__freeze=2), setting(0.002, backbone__freeze="none")
pytestmark = pytest.mark.usefixtures("wide")
HOSTILE = "x\x1b[2J\u202e[red]y"


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which the table has its lines whole."""
    monkeypatch.setenv("COLUMNS", "160")


def finished() -> dict[str, Any]:
    found = runs(run(A, 0, 0.5), run(A, 1, 0.6), run(B, 0, 0.7, train_seconds=90.0), run(B, 1, 0.9, train_seconds=90.0))
    keys: dict[str, Any] = {"training.learning_rate": [], "backbone.freeze": []}
    rows = table([A, B], found, 2, A)
    return {"vary": keys, "settings": rows, "sentence": "B is best.", "caveat": "Optimistic."}


def test_the_table_has_a_row_for_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    show([Swept(Path("runs/sweep"), finished())])
    out, err = capsys.readouterr()
    assert out == ""
    lines = [" ".join(line.split()) for line in err.splitlines() if line.strip()]
    assert lines[-5:-3] == [
        "1 0.002 none 0.800 0.700-0.900 0.141 +25.0 (-38.5 to +88.5) 1:30 min",
        "2 * 0.001 2 0.550 0.500-0.600 0.071 1 s",
    ]
    assert lines[-3:] == [
        "B is best.",
        "Optimistic. For an honest figure: rootstock finetune runs/sweep/best.yaml",
        "page: runs/sweep/sweep.html",
    ]


def test_settings_that_were_dropped_are_named_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = runs(run(A, 0, 0.5), run(B, 0, 0.1, state="pruned", epochs=2))
    values = finished() | {"settings": table([A, B], found, 1, A)}
    show([Swept(Path("out"), values)])
    assert "pruned 0.002 none" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (run(A, 0, 0.5, 0.75), "  validation macro-F1 0.750 after 2 of 2 epochs, 1 s; hidden states warm"),
        (
            run(A, 0, 0.5, state="pruned", epochs=3, seconds=61),
            "  validation macro-F1 0.500: hopeless, stopped after 1 of 3 epochs, 1:01 min; its setting is dropped",
        ),
        (
            run(A, 0, state="failed", epochs=3, reason="the loss is not a number"),
            "  failed after 0 of 3 epochs, 1 s: the loss is not a number; its setting is dropped",
        ),
    ],
)
def test_every_training_has_a_line(values: Any, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert training_line(values.to_json()) == line
    show([Trained(1, 4, values.to_json())])
    assert line in capsys.readouterr().err


def test_hostile_values_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wild = setting(0.001, backbone__name=HOSTILE)
    rows = table([wild], runs(run(wild, 0, 0.5)), 1, None)
    values = finished() | {"vary": {"backbone.name": []}, "settings": rows, "sentence": f"{HOSTILE} is best."}
    show([Swept(Path("out"), values)])
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "[red]y" in told
