"""Figures of a small run that was really measured, and of invented runs that are larger by known factors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import RunConfig, parse_config
from pipelines.estimate import figures as figures_module
from pipelines.estimate.estimate import estimate
from pipelines.estimate.figures import Measured, figure, figures_of, seconds_of
from pipelines.estimate.plan import Epoch
from tests.runs import TFIDF
from tests.toys import toy_config

Found = tuple[RunConfig, Measured]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What was measured of a toy run, which is its own miniature but for ten epochs."""
    config = parse_config(toy_config(tmp_path_factory.mktemp("toy"), training={"epochs": 10}))
    kept: list[Measured] = []

    def keeping(config: RunConfig, measured: Measured) -> dict[str, Any]:
        kept.append(measured)
        return figures_of(config, measured)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.estimate.estimate.figures_of", keeping)
        list(estimate(config))
    return config, kept[0]


def larger(found: Measured, factor: int) -> Measured:
    """The same, of a run whose parts and epoch hold `factor` times as much."""
    plan, epoch = found.plan, found.plan.epoch
    epoch = Epoch(epoch.batches * factor, np.tile(epoch.tokens, factor), epoch.shapes)
    padded = {part: factor * tokens for part, tokens in plan.padded.items()}
    return replace(found, plan=replace(plan, epoch=epoch, padded=padded))


def changed(config: RunConfig, **training: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def test_a_run_that_is_its_own_miniature_takes_what_that_took(found: Found) -> None:
    config, measured = found
    small = measured.small
    seconds = seconds_of(config, measured)
    assert seconds["hidden states"] == pytest.approx(max(small.before, measured.encode))
    assert seconds["validation"] == pytest.approx(10 * small.validation)
    assert seconds["checkpoints"] == pytest.approx(10 * small.checkpoint)
    assert seconds["classification"] == pytest.approx(small.classify, rel=0.2)
    assert seconds["learning curve"] == 0
    refitted = small.baselines[TFIDF] - small.systems[TFIDF]["train_seconds"] + measured.fits.seconds[TFIDF]
    assert seconds["baselines"] == pytest.approx(small.load + small.baselines["majority"] + refitted, abs=0.01)


def test_steps_validation_and_answers_grow_with_their_items(found: Found) -> None:
    config, measured = found
    one, three = (seconds_of(config, larger(measured, factor)) for factor in (1, 3))
    compiled = measured.pace.compile * len(measured.plan.epoch.shapes)
    assert three["steps"] - compiled == pytest.approx(3 * (one["steps"] - compiled))
    assert three["validation"] == pytest.approx(3 * one["validation"])
    assert one["classification"] < three["classification"] < 3 * one["classification"]
    assert three["setup"] == one["setup"]


def test_states_that_are_missing_are_filled_in(found: Found) -> None:
    config, measured = found
    small = replace(measured.small, before=2.0)
    measured = replace(measured, small=small, encode=0.5)
    cold = replace(measured, states=replace(measured.states, fill=4.0, fill_validation=0.5, mapped_bytes=2**20))
    assert seconds_of(config, cold)["hidden states"] == pytest.approx(0.5 + 1.5 * 4 + 1.5 * 0.5)
    plain, mapped = (figures_of(config, own)["peak_memory_mib"]["value"] for own in (measured, cold))
    assert mapped - plain == pytest.approx(1)
    train = figures_of(config, cold)["train_seconds"]["value"]
    assert train == pytest.approx(0.5 + 1.5 * 4 + seconds_of(config, cold)["steps"])  # validation's are not training


def test_checkpoints_between_epochs_are_counted(found: Found) -> None:
    config, measured = found
    every, some = (seconds_of(changed(config, checkpoint_steps=n), measured)["checkpoints"] for n in (None, 20))
    assert some - every == pytest.approx(2 * measured.small.checkpoint)  # of 50 steps


def test_points_of_a_learning_curve_are_trainings(found: Found) -> None:
    config, measured = found
    half = Epoch(measured.plan.epoch.batches[:2], measured.plan.epoch.tokens[:2], frozenset({8}))
    curve = replace(measured, plan=replace(measured.plan, smaller=[(19, half)]))
    seconds = seconds_of(config, curve)
    steps = 10 * float(measured.pace.line(half.tokens).sum())
    assert seconds["learning curve"] > steps + measured.prepare
    plain, with_curve = (figures_of(config, own)["disk_mib"] for own in (measured, curve))
    saved = measured.small.checkpoint_bytes / 2**20
    assert with_curve["run"] == plain["run"]
    assert with_curve["while_running"]["value"] - plain["run"]["value"] == pytest.approx(2 * saved)


def test_two_checkpoints_may_be_more_than_the_finished_directory(found: Found) -> None:
    config, measured = found
    huge = replace(measured, small=replace(measured.small, checkpoint_bytes=10 * 2**30))
    disk = figures_of(config, huge)["disk_mib"]
    assert disk["while_running"]["value"] == 2 * 10 * 2**10
    once = figures_of(changed(config, epochs=1), huge)["disk_mib"]
    assert once["while_running"]["value"] == pytest.approx(10 * 2**10 + once["run"]["value"])


def test_the_larger_test_part_has_its_bootstrap(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 systems and calibration, 2 s each where the miniature took 1."""
    config, measured = found
    taken = iter([2.0, 1.0])
    monkeypatch.setattr(figures_module, "_bootstrap", lambda *_: next(taken))
    assert seconds_of(config, measured)["report"] == pytest.approx(measured.small.report + 4)


def test_a_figure_is_not_below_nothing() -> None:
    assert figure(3.0, 5.0) == {"value": 3.0, "low": 0.0, "high": 8.0}


def test_what_the_intervals_do_not_cover_is_said(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    config, measured = found
    said = figures_of(config, measured)["errors"]
    assert re.match(r"The interval of a time covers the spread of 5 measured optimizer steps and the 15%", said[0])
    assert len(said) == 2
    scaled = replace(measured, fits=replace(measured.fits, scale=5.0))
    more = figures_of(changed(config, processes=3, patience=1), scaled)["errors"]
    assert any("One process was measured; the run would have 3" in sentence for sentence in more)
    assert any("regressions were fitted to some of the items" in sentence for sentence in more)
    assert len(more) == 5


def test_figures_of_scaled_regressions_are_less_sure(found: Found) -> None:
    config, measured = found
    slow = replace(measured, fits=replace(measured.fits, seconds={TFIDF: 100.0}))
    scaled = replace(slow, fits=replace(slow.fits, scale=5.0))
    sure, unsure = (figures_of(config, own)["whole_seconds"] for own in (slow, scaled))
    assert unsure["high"] > sure["high"] + 10
    assert unsure["value"] == pytest.approx(sure["value"], abs=1)


def test_the_directory_is_listed_by_name(found: Found) -> None:
    names = set(found[1].small.run_bytes)
    assert {"model", "baselines", "predictions.parquet", "training_items.parquet", "report.json"} <= names
    assert not any(Path(name).suffix == ".partial" for name in names)
