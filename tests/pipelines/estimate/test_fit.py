"""Settings that fit a budget: the search on a machine with known costs, and the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.activation_store import ActivationStore
from pipelines.config import RunConfig, parse_config
from pipelines.errors import BudgetError, ConfigError, DataError, RootstockError
from pipelines.estimate.estimate import estimate
from pipelines.estimate.fit import TRIES, Budget, budget_of, fit
from pipelines.records import Estimated, Event, Stage
from tests.toys import tiny_backbone, toy_config, toy_rows, write_csv, write_yaml

MakeConfig = Callable[..., RunConfig]


def in_this_process(config: RunConfig, stop: Callable[[], bool], store: ActivationStore | None) -> Iterator[Event]:
    return estimate(config, stop, store)


def last(events: Iterator[Event]) -> Estimated:
    *_, found = events
    assert isinstance(found, Estimated)
    return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Estimated]:
    """A config, and an estimate of it."""
    config = parse_config(toy_config(tmp_path_factory.mktemp("asked"), baselines=["majority"]))
    return config, last(estimate(config))


class Machine:
    """Says what settings take by a rule of its own, `cost`: (memory in MiB, seconds); the rest is a real estimate."""

    def __init__(
        self, real: Estimated, cost: Callable[[RunConfig], tuple[float, float]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.real, self.cost = real, cost
        self.measured: list[RunConfig] = []
        monkeypatch.setattr("pipelines.estimate.fit.estimate", self)

    def __call__(self, config: RunConfig, *_: object) -> Iterator[Event]:
        self.measured.append(config)
        memory, seconds = self.cost(config)
        parts = dict.fromkeys(self.real.figures["seconds"], 0.0) | {"steps": seconds}
        yield Stage("measure", "x")
        yield replace(
            self.real,
            figures=self.real.figures
            | {
                "peak_memory_mib": {"value": memory, "low": memory, "high": memory},
                "whole_seconds": {"value": seconds, "low": seconds, "high": seconds},
                "memory_before_mib": 100.0,
                "seconds": parts,
            },
        )


def layers_above(config: RunConfig) -> int:
    """Of 3; the config freezes a number of them, or all."""
    return 0 if config.backbone.freeze == "all" else 3 - int(config.backbone.freeze)


def cost(config: RunConfig) -> tuple[float, float]:
    """100 MiB and what a pass holds; seconds by layers above the cut, and by epochs."""
    rows = config.training.batch_size / config.training.accumulation
    above = layers_above(config) + 1
    return 100 + 10 * rows * above, 10.0 * above * config.training.epochs


def test_what_fits_is_left_as_it_is(asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(asked[1], cost, monkeypatch)
    found = last(fit(asked[0], Budget(340.0, 60.0), again=machine))
    assert found.changes == ()
    assert len(machine.measured) == 1


def test_memory_is_met_by_accumulation(asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch) -> None:
    """8 items and 3 layers hold 340 MiB, 4 hold 220, 2 hold 160: the first that fits is proposed, and was measured."""
    machine = Machine(asked[1], cost, monkeypatch)
    found = last(fit(asked[0], Budget(memory_mib=230), again=machine))
    assert found.changes == ("training.accumulation=2",)
    assert found.figures["peak_memory_mib"]["value"] == 220
    assert machine.measured[-1].training.accumulation == 2
    assert machine.measured[-1].training.batch_size == asked[0].training.batch_size


def test_time_is_met_by_freezing_deeper(asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch) -> None:
    found = last(fit(asked[0], Budget(seconds=45), again=Machine(asked[1], cost, monkeypatch)))
    assert found.changes == ("backbone.freeze=2",)
    assert found.figures["whole_seconds"]["value"] == 40


def test_epochs_go_last(asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch) -> None:
    """The head alone takes 20 s for two epochs; less takes fewer."""
    found = last(fit(asked[0], Budget(seconds=12), again=Machine(asked[1], cost, monkeypatch)))
    assert "training.epochs=1" in found.changes
    assert "backbone.freeze=all" in found.changes


def test_both_are_met_at_once(asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch) -> None:
    found = last(fit(asked[0], Budget(200, 45), again=Machine(asked[1], cost, monkeypatch)))
    memory, seconds = found.figures["peak_memory_mib"]["value"], found.figures["whole_seconds"]["value"]
    assert memory <= 200
    assert seconds <= 45
    assert "training.epochs" not in " ".join(found.changes)


def test_a_prediction_that_was_too_good_is_corrected(
    asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halving the pass saves less than is predicted: something else holds 200 MiB too."""
    machine = Machine(asked[1], lambda config: (cost(config)[0] + 200, 1.0), monkeypatch)
    found = last(fit(asked[0], Budget(memory_mib=350), again=machine))
    assert found.figures["peak_memory_mib"]["value"] <= 350
    assert 2 < len(machine.measured) <= TRIES + 1


def test_what_cannot_fit_is_refused_with_what_the_cheapest_needs(
    asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(asked[1], cost, monkeypatch)
    with pytest.raises(BudgetError) as refused:
        list(fit(asked[0], Budget(memory_mib=105), again=machine))
    told = str(refused.value)
    assert told.startswith(
        "no settings were found for 105 MiB: the cheapest, backbone.freeze=all, training.accumulation=8"
    )
    assert "needs up to 110 MiB" in told
    assert "\n" not in told
    assert len(machine.measured) <= TRIES + 1


def test_what_does_not_help_is_said_of_the_config_itself(
    asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BudgetError, match="the config as it is, needs up to 500 MiB and 9 s"):
        list(fit(asked[0], Budget(100, 5), again=Machine(asked[1], lambda _: (500.0, 9.0), monkeypatch)))


def test_errors_of_the_config_come_first(make_config: MakeConfig) -> None:
    with pytest.raises(DataError, match="no column 'body'"):
        list(fit(make_config(data={"text": "body"}), Budget(1, 1), again=in_this_process))


def test_a_process_that_dies_is_said(asked: tuple[RunConfig, Estimated], monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(asked[1], cost, monkeypatch)
    with pytest.raises(RootstockError, match="run the command again"):
        list(fit(asked[0], Budget(memory_mib=150), again=lambda *_: iter([Stage("measure", "x")])))


@pytest.mark.parametrize(
    ("memory", "time", "budget"),
    [
        (1500.0, None, Budget(1500.0, None)),
        (None, "90s", Budget(None, 90.0)),
        (None, "30m", Budget(None, 1800.0)),
        (800.0, " 1.5 h ", Budget(800.0, 5400.0)),
    ],
)
def test_budgets_are_read(memory: float | None, time: str | None, budget: Budget) -> None:
    assert budget_of(memory, time) == budget


@pytest.mark.parametrize(
    ("memory", "time", "message"),
    [
        (None, None, "--fit: expected a budget, --memory MIB or --time such as 30m or both"),
        (None, "30", "--time: expected a number with its unit, such as 90s, 30m or 2h; found '30'"),
        (None, "0m", "--time: expected a number with its unit, such as 90s, 30m or 2h; found '0m'"),
        (None, "-5m", "--time: expected a number with its unit, such as 90s, 30m or 2h; found '-5m'"),
        (None, "soon", "--time: expected a number with its unit, such as 90s, 30m or 2h; found 'soon'"),
        (0.0, None, "--memory: expected MiB above 0, found 0"),
        (float("nan"), None, "--memory: expected MiB above 0, found nan"),
    ],
)
def test_other_budgets_are_refused(memory: float | None, time: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        budget_of(memory, time)
    assert str(refused.value) == message


def rootstock(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "ROOTSTOCK_STORE": str(folder / "store")}
    command = [sys.executable, "-m", "service.cli", "estimate", "c.yaml", "--json", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1), done.stderr
    return [*map(json.loads, done.stdout.splitlines()), *([{"error": done.stderr}] if done.returncode else [])]


@pytest.mark.slow
def test_the_command_finds_settings_that_fit(tmp_path: Path) -> None:
    """A wide feed-forward layer and batches of 256: what a pass holds is most of what training takes."""
    write_csv(tmp_path / "toy.csv", toy_rows(600))
    tiny_backbone(tmp_path / "tiny", hidden_size=32, intermediate_size=4096, num_hidden_layers=4)
    raw = toy_config(tmp_path, training={"batch_size": 256, "epochs": 1}, baselines=["majority"])
    write_yaml(tmp_path / "c.yaml", raw)
    (*_, plain) = rootstock(tmp_path)
    whole = plain["figures"]["peak_memory_mib"]
    floor = plain["figures"]["memory_before_mib"]
    assert whole["value"] > 1.5 * floor, "the toy is too small to tell"

    budget = floor + 0.6 * (whole["value"] - floor)
    (*events, found) = rootstock(tmp_path, "--fit", "--memory", f"{budget:.0f}")
    assert any(change.startswith("training.accumulation=") for change in found["changes"]), found["changes"]
    assert not any(change.startswith("training.epochs") for change in found["changes"])
    assert found["figures"]["peak_memory_mib"]["high"] <= budget
    assert [event["name"] for event in events].count("fit") >= 1

    applied = [argument for change in found["changes"] for argument in ("--set", change)]
    (*_, again) = rootstock(tmp_path, *applied)
    assert again["figures"]["peak_memory_mib"]["value"] == pytest.approx(
        found["figures"]["peak_memory_mib"]["value"], rel=0.1
    )
    assert "no settings were found for 100 MiB" in rootstock(tmp_path, "--fit", "--memory", "100")[-1].get("error", "")
