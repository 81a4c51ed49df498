"""What a sweep varies, as a user writes it: `KEY=V1,V2,...` or `KEY=LOW..HIGH`, checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from pipelines.config import RunConfig, parse_config
from pipelines.errors import ConfigError

Method = Literal["grid", "one-factor", "optuna"]
SECTIONS = ("training", "backbone", "adapter")
TRIALS = 20  # settings that Optuna tries, where nobody says how many
EXAMPLE = "such as --vary training.learning_rate=1e-4,3e-4"
SAME_FOR_ALL = {
    "training.seed": "the seed is varied by --seeds",
    "training.precision": "it is the same for the whole sweep; --set it",
    "training.processes": "it is the same for the whole sweep; --set it",
    "training.checkpoint_steps": "it changes no result; --set it",
    "training.trackers": "a sweep has none",
    "training.imbalance": "auto chooses by itself; vary its answers, such as training.loss=cross-entropy,focal",
    "backbone.cache": "it changes no result; --set it",
}  # keys of those sections that cannot be varied, and why
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\.\.({_NUMBER})\s*")
_LOGARITHMIC = 10  # high over low from which a range is looked at on a log scale


@dataclass(frozen=True)
class Plan:
    """How a sweep is carried out.

    Attributes:
        vary: `KEY=V1,V2,...`, and for Optuna `KEY=LOW..HIGH`.
        seeds: trainings of every setting; they differ in `training.seed` only, from that of the config upwards.
        method: all combinations (grid), the config and each value changed alone (one-factor), or Optuna.
        trials: settings that Optuna tries; TRIALS where it is None.
        prune: whether hopeless trainings are stopped.
    """

    vary: Sequence[str] = ()
    seeds: int = 3
    method: Method = "grid"
    trials: int | None = None
    prune: bool = True

    @property
    def trials_wanted(self) -> int:
        return self.trials or TRIALS

    def to_json(self) -> dict[str, Any]:
        """What a resumed sweep must have in common with the one that it goes on with."""
        trials = {"trials": self.trials_wanted} if self.method == "optuna" else {}
        return {"method": self.method, "vary": list(self.vary), "seeds": self.seeds, "prune": self.prune} | trials


@dataclass(frozen=True)
class Factor:
    """One key that is varied.

    Attributes:
        values: as the config has them once they are checked; of a range its two ends.
    """

    key: str
    values: tuple[Any, ...]
    is_range: bool = False

    @property
    def logarithmic(self) -> bool:
        """Whether a range of numbers is looked at on a log scale."""
        low, high = self.values
        return isinstance(low, float | int) and low > 0 and high / low >= _LOGARITHMIC

    def to_json(self) -> Any:
        if not self.is_range:
            return list(self.values)
        low, high = self.values
        return {"low": low, "high": high, "log": self.logarithmic}


def factors_of(plan: Plan, config: RunConfig) -> list[Factor]:
    """What the plan varies. Raises ConfigError for what cannot be varied, or not so, in one line."""
    if plan.seeds < 1:
        raise ConfigError(f"--seeds: expected 1 or more, found {plan.seeds}")
    if plan.trials is not None and plan.method != "optuna":
        raise ConfigError("--trials belongs to --method optuna; add it")
    if plan.trials is not None and plan.trials < 1:
        raise ConfigError(f"--trials: expected 1 or more, found {plan.trials}")
    if plan.method == "optuna" and not plan.vary:
        raise ConfigError(f"--method optuna: expected something to vary, found nothing; add it, {EXAMPLE}")
    factors = [_factor(text, plan.method, config) for text in plan.vary]
    keys = [factor.key for factor in factors]
    if config.start_from is not None and (fixed := {"backbone.name", "backbone.revision"} & set(keys)):
        raise ConfigError(f"--vary {min(fixed)}: cannot be varied: the run at start_from has the backbone")
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ConfigError(f"--vary {twice}: found twice; put all its values into one, with commas between")
    return factors


def combinations(factors: Sequence[Factor], method: Method, config: RunConfig) -> list[dict[str, Any]]:
    """What is changed in every setting, key -> value; of Optuna's, all combinations of values and ends of ranges."""
    if method == "one-factor":
        base = values_in(config, factors)
        return [base, *(base | {factor.key: value} for factor in factors for value in factor.values)]
    keys = [factor.key for factor in factors]
    return [dict(zip(keys, values, strict=True)) for values in product(*(factor.values for factor in factors))]


def values_in(config: RunConfig, factors: Sequence[Factor]) -> dict[str, Any]:
    """What the config itself has for what is varied."""
    return {factor.key: _value(config, factor.key) for factor in factors}


def changed(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The config with other values. Raises ConfigError with the problems in one line."""
    raw = config.model_dump(mode="json", exclude_none=True)
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section][name] = value
    try:
        return parse_config(raw)
    except ConfigError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        raise ConfigError("; ".join(problems)) from None


def shown(value: Any) -> str:
    """A value as a user would write it, no digit of a number lost."""
    if value is None:
        return "null"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short


def _factor(text: str, method: Method, config: RunConfig) -> Factor:
    key, separator, values = (part.strip() for part in text.partition("="))
    if not separator or not values:
        raise ConfigError(f"--vary {text}: expected KEY=V1,V2,..., {EXAMPLE}")
    _refuse(key)
    ends = _RANGE.fullmatch(values)
    if ends is None:
        return Factor(key, tuple(dict.fromkeys(_checked(config, key, value) for value in _listed(key, values))))
    if method != "optuna":
        raise ConfigError(f"--vary {text}: a range is for --method optuna; {method} needs values with commas between")
    low, high = (_checked(config, key, yaml.safe_load(end)) for end in ends.groups())
    if isinstance(low, str) or not low < high:
        raise ConfigError(f"--vary {text}: expected two numbers, the lower one first")
    return Factor(key, (low, high), is_range=True)


def _refuse(key: str) -> None:
    """Raise ConfigError for a key that is not of a training's own."""
    section, _, name = key.partition(".")
    if section not in SECTIONS or not name or "." in name:
        raise ConfigError(
            f"--vary {key}: expected a key of {', '.join(SECTIONS[:-1])} or {SECTIONS[-1]}, {EXAMPLE}; the rest is the "
            "same for all trainings"
        )
    if key in SAME_FOR_ALL:
        raise ConfigError(f"--vary {key}: cannot be varied: {SAME_FOR_ALL[key]}")


def _listed(key: str, text: str) -> list[Any]:
    """YAML scalars with commas between."""
    try:
        values = yaml.safe_load(f"[{text}]")
    except (yaml.YAMLError, ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not values or any(isinstance(value, list | dict) for value in values):
        raise ConfigError(f"--vary {key}={text}: expected words or numbers with commas between, {EXAMPLE}")
    return values


def _checked(config: RunConfig, key: str, value: Any) -> Any:
    """The value as the config has it: `3e-4`, which YAML reads as a word, as a number.

    What it does not go with is for `Settings` to say: another value that is varied may be what it needs.
    """
    section, _, name = key.partition(".")
    field = type(getattr(config, section)).model_fields.get(name)
    if field is not None and not isinstance(value, bool):  # yes and no are for the config to read
        with suppress(ValidationError):
            return TypeAdapter(field.rebuild_annotation()).validate_python(value)
    try:
        return _value(changed(config, {key: value}), key)
    except ConfigError as error:
        raise ConfigError(f"--vary {error}") from None


def _value(config: RunConfig, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
