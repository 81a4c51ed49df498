"""What may be varied, how it is read, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import parse_config
from pipelines.errors import ConfigError
from pipelines.sweep.plan import Factor, Method, Plan, changed, combinations, factors_of, shown
from tests.pipelines.sweep.made import CONFIG, DATA

RATE, EPOCHS, FREEZE = "training.learning_rate", "training.epochs", "backbone.freeze"


def read(*vary: str, method: Method = "grid") -> list[Factor]:
    return factors_of(Plan(vary, method=method), CONFIG)


def test_values_are_those_of_the_config_whatever_yaml_makes_of_them() -> None:
    """YAML reads 3e-4 as a word; a value that is given twice counts once."""
    (rates,) = read(f"{RATE}=3e-4, 1.0e-3,0.001,auto")
    assert rates == Factor(RATE, (3e-4, 1e-3, "auto"))
    (depths,) = read(f"{FREEZE}=none,2,all")
    assert depths.values == ("none", 2, "all")
    (patience,) = read("training.patience=null,2")
    assert patience.values == (None, 2)
    (names,) = read("backbone.name='../a,b',../c")
    assert names.values == ("../a,b", "../c")


def test_ranges_are_for_optuna_and_log_uniform_where_they_span_a_factor_of_ten() -> None:
    texts = (f"{RATE}=1e-5..1e-3", f"{EPOCHS}=1..20", "adapter.alpha=8..64", "adapter.dropout=0..0.5")
    rate, epochs, alpha, dropout = read(*texts, method="optuna")
    assert (rate.values, rate.is_range, rate.logarithmic) == ((1e-5, 1e-3), True, True)
    assert (epochs.values, epochs.logarithmic) == ((1, 20), True)
    assert (alpha.values, alpha.logarithmic) == ((8.0, 64.0), False)
    assert isinstance(alpha.values[0], float)  # as the config has it
    assert not dropout.logarithmic
    assert rate.to_json() == {"low": 1e-5, "high": 1e-3, "log": True}
    assert read(f"{EPOCHS}=2")[0].to_json() == [2]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("training.epochs", "--vary training.epochs: expected KEY=V1,V2,..., such as"),
        ("training.epochs=", "expected KEY=V1,V2,..."),
        ("training.epochs=1,,2", "expected words or numbers with commas between"),
        ("training.epochs=[1,2]", "expected words or numbers with commas between"),
        ("training.epochs=1], [2", "expected words or numbers with commas between"),
        ("training.epochs=0,2", "--vary training.epochs: Input should be greater than 0; found 0"),
        ("training.epochs=yes,3", "--vary training.epochs: expected a word or a number; found True"),
        ("training.epoch=1,2", "--vary training.epoch: unknown key. Did you mean training.epochs?"),
        ("training=1", "--vary training: expected a key of training, backbone or adapter"),
        ("training.epochs.x=1", "expected a key of training, backbone or adapter"),
        ("data.max_length=64,128", "--vary data.max_length: expected a key of training, backbone or adapter"),
        ("output=a,b", "expected a key of training, backbone or adapter"),
        ("training.seed=0,1", "--vary training.seed: cannot be varied: the seed is varied by --seeds"),
        ("training.precision=fp32,bf16", "cannot be varied: it is the same for the whole sweep; --set it"),
        ("training.imbalance=none,auto", "cannot be varied: auto chooses by itself; vary its answers"),
        ("backbone.cache=on,off", "cannot be varied: it changes no result"),
        ("training.learning_rate=1e-5..1e-3", "a range is for --method optuna; grid needs values with commas between"),
    ],
)
def test_what_cannot_be_varied_is_refused_in_one_line(vary: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(vary)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_value_that_needs_another_one_is_read_alone() -> None:
    """Whether they go together is asked of every setting."""
    adapters, bits = read("adapter.type=lora,dora", "backbone.quantize=none,4bit")
    assert (adapters.values, bits.values) == (("lora", "dora"), ("none", "4bit"))
    (saving,) = read("training.gradient_checkpointing=yes,no")
    assert saving.values == (True, False)
    with pytest.raises(ConfigError, match="4bit without an adapter"):
        changed(CONFIG, {"backbone.quantize": "4bit"})


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ("training.epochs=5..2", "expected two numbers, the lower one first"),
        ("training.epochs=2..2", "expected two numbers, the lower one first"),
        ("training.epochs=1.5..3", "training.epochs: Input should be a valid integer"),
        ("training.learning_rate=-1..1", "training.learning_rate: expected auto or a number above 0"),
    ],
)
def test_ranges_that_are_none_are_refused(vary: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(vary, method="optuna")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(seeds=0), "--seeds: expected 1 or more, found 0"),
        (Plan(trials=5), "--trials belongs to --method optuna; add it"),
        (Plan((f"{EPOCHS}=1",), method="optuna", trials=0), "--trials: expected 1 or more, found 0"),
        (Plan(method="optuna"), "--method optuna: expected something to vary, found nothing"),
        (Plan((f"{EPOCHS}=1", f"{EPOCHS}=2")), f"--vary {EPOCHS}: found twice"),
        (Plan((f"{RATE}=1e-5..1e-3",), method="one-factor"), "one-factor needs values with commas between"),
    ],
)
def test_plans_that_make_no_sense_are_refused(plan: Plan, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        factors_of(plan, CONFIG)


def test_a_sweep_of_another_runs_model_keeps_its_backbone() -> None:
    config = parse_config({"task": "text-classification", "data": DATA, "start_from": "runs/x"})
    with pytest.raises(ConfigError, match=r"backbone\.name: cannot be varied: the run at start_from has the backbone"):
        factors_of(Plan(("backbone.name=a,b",)), config)


def test_a_grid_has_every_combination_and_one_factor_changes_one_thing_at_a_time() -> None:
    factors = read(f"{EPOCHS}=3,5", f"{FREEZE}=2,4")
    assert [tuple(changes.values()) for changes in combinations(factors, "grid", CONFIG)] == [
        (3, 2), (3, 4), (5, 2), (5, 4),
    ]  # fmt: skip
    alone = [tuple(changes.values()) for changes in combinations(factors, "one-factor", CONFIG)]
    assert alone == [(3, 2), (3, 2), (5, 2), (3, 2), (3, 4)]  # the config (3, 2) first; it is counted once later
    assert combinations([], "grid", CONFIG) == [{}]


def test_for_optuna_the_ends_of_ranges_stand_for_what_is_between() -> None:
    factors = read(f"{FREEZE}=0..6", "adapter.type=none,lora", method="optuna")
    ends = [tuple(changes.values()) for changes in combinations(factors, "optuna", CONFIG)]
    assert ends == [(0, "none"), (0, "lora"), (6, "none"), (6, "lora")]


def test_only_what_is_changed_changes() -> None:
    config = changed(CONFIG, {RATE: 1e-3, "training.patience": None})
    assert config.training.learning_rate == 1e-3
    assert changed(config, {RATE: "auto"}) == CONFIG
    with pytest.raises(ConfigError) as refused:
        changed(CONFIG, {EPOCHS: 0, "adapter.r": 0})
    assert str(refused.value).count("Input should be greater than 0") == 2
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-4, "0.0001"), (16.0, "16"), (0.12345678, "0.12345678"), (None, "null"), ("auto", "auto"), (3, "3")],
)
def test_values_are_shown_as_they_are_written(value: Any, text: str) -> None:
    assert shown(value) == text
