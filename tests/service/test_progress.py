"""Events as a terminal or a program reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.records import (
    Checkpoint,
    Classified,
    Estimated,
    Event,
    Explained,
    Explanation,
    Finished,
    Rows,
    Scored,
    Stage,
    Step,
    Validation,
)
from service.progress import _rate, _rows, print_json, show

EVENTS: list[Event] = [
    Stage("data", "reading [bold]/x[/y]/:cat:.csv"),
    Step(1, 4, 0.5, 0.6931, 0.001, 123.4, 65.0),
    Validation(2, 1.0, 0.5, 0.8125, 0.79, True),
    Checkpoint(2),
    Validation(4, 2.0, 0.6, 0.75, 0.7, False),
    Scored("majority", 0.5, 1 / 3),
    Finished(Path("runs/one"), "Worth it. By a lot."),
]


def test_people_read_stages_scores_and_the_verdict_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    show(EVENTS)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line.rstrip() for line in err.splitlines() if line.strip()]
    assert [line for line in lines if "steps" not in line] == [
        "data: reading [bold]/x[/y]/:cat:.csv",  # neither markup nor emoji codes are interpreted
        "  epoch 1: validation loss 0.500, accuracy 0.812, macro-F1 0.790 (best so far)",
        "  epoch 2: validation loss 0.600, accuracy 0.750, macro-F1 0.700",
        "  majority: test accuracy 0.500, macro-F1 0.333",
        "Worth it. By a lot.",
        "report: runs/one/report.html",
    ]


def test_long_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """A path can be copied whole from a narrow terminal."""
    path = Path("/" + "long/" * 60)
    show([Finished(path, "Unclear.")])
    assert f"report: {path / 'report.html'}" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "0:00 left"), (59.6, "1:00 left"), (3725.0, "62:05 left")])
def test_the_bar_tells_loss_rate_and_time_left(seconds: float, shown: str) -> None:
    assert _rate(Step(1, 4, 0.5, 0.6931, 0.001, 123.4, seconds)) == f"loss 0.693  123 items/s  {shown}"


def test_the_bar_of_a_classification_tells_rows_rate_and_time_left() -> None:
    assert _rows(Rows(8192, 3, 1234.5, 0.5, 65.0)) == "8,192 rows  1,234/s  1:05 left"
    assert _rows(Rows(8192, 3, 1234.5, None, None)) == "8,192 rows  1,234/s"


def test_a_finished_classification_says_what_a_reader_should_know(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {
        "rows": 2000,
        "errors": 2,
        "answered_by_regression": 500,
        "certificate": {"estimated_loss": 0.0012, "max_loss": 0.002},
        "drift": {"a": {"warnings": ["label shares differ"]}, "b": {"sentence": "too few items"}},
    }
    show([Rows(2000, 2, 10.0, 1.0, 0.0), Classified(Path("out.csv"), summary)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip() and "rows  " not in line]
    assert lines == [
        "2,000 rows classified: out.csv",
        "2 rows have no prediction: out.csv.errors.jsonl says why",
        "the regression answered 25.0% of the rows, which costs an estimated 0.12 points of macro-F1, at most 0.20 "
        "with 95% confidence",
        "warning, a: label shares differ",
    ]


def explanation(**changes: Any) -> Explanation:
    words = [("the", -0.1), ("cat", 2.0), ("\x1b[31mred", 1.25), ("a", 0.5), ("b", 0.4), ("dog", -3.0)]
    item = {
        "id": "g7", "predicted": "calm", "label": "harsh", "probability": 0.912, "cut_tokens": 0,
        "words": [{"word": word, "attribution": weight} for word, weight in words],
        "regressions": [
            {"name": "first", "rival": False, "predicted": "calm", "probability": 1.0, "features": [
                {"name": "no", "contribution": 1.0},
            ]},
            {"name": "second", "rival": True, "predicted": "harsh", "probability": 0.6, "features": [
                {"name": "words: cat", "contribution": -1.0}, {"name": "words: dog", "contribution": 2.0},
            ]},
        ],
    }  # fmt: skip
    return Explanation(1, 2, item | changes)


def test_an_explanation_is_a_line_with_the_strongest_words_and_one_for_the_rival(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show([explanation(), explanation(label="calm", words=[], regressions=[], cut_tokens=1200)])
    assert [line for line in capsys.readouterr().err.splitlines() if line.strip()] == [
        "  g7: calm 0.91 (is harsh): cat +2.00, [31mred +1.25, a +0.50, dog -3.00, the -0.10",
        "      second: harsh 0.60: words: dog +2.00, words: cat -1.00",
        "  g7: calm 0.91: no word moved it; 1,200 tokens were cut off",
    ]


def test_after_the_explanations_it_is_said_how_good_they_are_and_what_they_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = {
        "explained": 20, "complete": 19, "tolerance": 0.05, "steps": [32, 128], "same_top_word": 12,
        "median_spearman": 0.614, "caveat": "Not a cause.",
    }  # fmt: skip
    show([Explained(Path("out"), summary), Explained(None, summary | {"median_spearman": None})])
    assert [line for line in capsys.readouterr().err.splitlines() if line.strip()] == [
        "words add up to the change of the score within 5% in 19 of 20, 32 to 128 steps",
        "occlusion names the same word first in 12 of 20; median rank correlation 0.61",
        "Not a cause.",
        "page: out/explain.html",
        "words add up to the change of the score within 5% in 19 of 20, 32 to 128 steps",
        "occlusion names the same word first in 12 of 20",
        "Not a cause.",
        "--out DIR writes a page with all words, and JSON",
    ]


def test_programs_read_one_json_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json([*EVENTS, Stage("data", "zwei\nZeilen: ä")])
    out, err = capsys.readouterr()
    read = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in read] == [
        "stage", "step", "validation", "checkpoint", "validation", "scored", "finished", "stage",
    ]  # fmt: skip
    assert read[1] == {
        "event": "step",
        "step": 1,
        "total_steps": 4,
        "epoch": 0.5,
        "loss": 0.6931,
        "learning_rate": 0.001,
        "items_per_second": 123.4,
        "remaining_s": 65.0,
    }
    assert read[6] == {"event": "finished", "path": "runs/one", "sentence": "Worth it. By a lot."}
    assert read[7]["message"] == "zwei\nZeilen: ä"
    assert "ä" in out
    assert err == ""


@pytest.mark.parametrize("function", [show, print_json])
def test_a_quiet_process_consumes_all_events_and_says_nothing(
    function: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []

    def events() -> Iterator[Event]:
        for event in EVENTS:
            taken.append(event)
            yield event

    function(events(), quiet=True)
    out, err = capsys.readouterr()
    assert taken == EVENTS
    assert (out.strip(), err.strip()) == ("", "")


@pytest.mark.parametrize("function", [show, print_json])
def test_an_error_among_the_events_reaches_the_caller(function: Callable[..., None]) -> None:
    def events() -> Iterator[Event]:
        yield EVENTS[0]
        raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        function(events())


def estimated(*changes: str) -> Estimated:
    def figure(value: float) -> dict[str, float]:
        return {"value": value, "low": 0.9 * value, "high": 1.1 * value}

    figures = {
        "parameters": {"trained": 3_697_538, "total": 22_713_986},
        "steps": 1_234,
        "train_seconds": figure(57.2),
        "whole_seconds": figure(3725.0),
        "peak_memory_mib": figure(1196.4),
        "disk_mib": {"run": figure(88.1), "while_running": figure(1440.0), "store": figure(0.25)},
        "errors": ["What the intervals cover.", "What they do not."],
    }
    return Estimated(changes, figures)


def test_an_estimate_is_an_aligned_list_with_its_errors_below(capsys: pytest.CaptureFixture[str]) -> None:
    show([estimated()])
    assert [line for line in capsys.readouterr().err.splitlines() if line.strip()] == [
        "  parameters trained   3,697,538 of 22,713,986",
        "  optimizer steps      1,234",
        "  training             57 s (51 s to 1:03 min)",
        "  whole run            1:02 h (55:52 min to 1:08 h)",
        "  memory               1,196 MiB (1,077 MiB to 1,316 MiB)",
        "  disk, run directory  88 MiB",
        "  disk, while it runs  1,440 MiB",
        "  disk, hidden states  0.2 MiB",
        "What the intervals cover.",
        "What they do not.",
    ]


def test_settings_that_fit_are_printed_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    show([estimated("backbone.freeze=5", "training.accumulation=2")])
    first = next(line for line in capsys.readouterr().err.splitlines() if line.strip())
    assert first == "fits with --set backbone.freeze=5 --set training.accumulation=2"
