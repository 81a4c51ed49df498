"""RunConfig: what a user may set, with every default in this one place.

One YAML file is one RunConfig. Unknown keys are refused, all problems are reported together, and the resolved
config travels with the result.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipelines.errors import ConfigError

EMBEDDED_BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
Baseline = Literal[
    "majority", "logistic-regression-manual", "logistic-regression-tfidf", "logistic-regression-embeddings"
]
OWN_COLUMNS = ("text", "label", "id", "group", "line", "part")  # of every item, so that no slice can have these names
Fraction = Annotated[float, Field(gt=0, lt=1)]
CURVE_SHARES = (0.125, 0.25, 0.5)  # `learning_curve: auto`; the whole training part is the run itself


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        """No setting is a switch but three; pydantic would read `epochs: yes` as 1."""
        if isinstance(value, bool) and info.field_name not in ("learning_curve", "cache", "gradient_checkpointing"):
            raise ValueError("expected a word or a number")
        return value


class SplitFile(Section):
    """A file, or the rows of a file in which every column of `where` has the given value."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    path: Path
    where: dict[str, str] = {}


def _as_split_file(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | Path) else value


def _as_part(value: Any) -> Any:
    """A file, a mapping, or a fraction; one message instead of one per member of the union."""
    if isinstance(value, SplitFile) or (isinstance(value, float) and 0 < value < 1):
        return value
    if isinstance(value, str | Path | dict):
        try:
            return SplitFile.model_validate(_as_split_file(value))
        except ValidationError as error:
            raise PydanticCustomError("part", "not a usable part", {"details": error.errors()}) from None
    raise ValueError("expected a file, a mapping {path, where}, or a fraction between 0 and 1")


def _combination(message: str) -> PydanticCustomError:
    """Of settings that are fine one by one. The message names them."""
    return PydanticCustomError("combination", "{message}", {"message": message})


def _as_depth(value: Any) -> Any:
    if value in ("auto", "none", "all") or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("expected auto, none, all, or how many hidden layers to freeze (0 or more)")


def _as_number_or_auto(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        number = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        number = 0.0
    if math.isfinite(number) and number > 0:
        return number
    raise ValueError("expected auto or a number above 0")


def _as_processes(value: Any) -> Any:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError("expected auto or a number of processes, 1 or more")


def _as_cache(value: Any) -> Any:
    named = {True: "on", False: "off"}  # what YAML makes of the words on and off
    return named[value] if isinstance(value, bool) else value


def _as_shares(value: Any) -> Any:
    named = {"none": (), "auto": CURVE_SHARES, False: (), True: CURVE_SHARES}
    shares = named.get(value) if isinstance(value, str | bool) else value
    if isinstance(shares, list | tuple) and all(isinstance(s, float) and 0 < s < 1 for s in shares):
        return tuple(sorted(set(shares)))
    raise ValueError("expected none, auto, or shares of the training items between 0 and 1, such as [0.25, 0.5]")


class DataConfig(Section):
    train: Annotated[SplitFile, BeforeValidator(_as_split_file)]
    validation: Annotated[SplitFile | float, BeforeValidator(_as_part)] = 0.1  # a file, or a share of training
    test: Annotated[SplitFile | float, BeforeValidator(_as_part)] = 0.2  # a file, or a share of everything
    text: str  # column that holds the content
    label: str  # column that holds the class
    id: str | None = None  # column; default: the row number
    group: str | None = None  # column; items of one group never straddle two parts
    slices: tuple[str, ...] = ()  # columns kept beside every prediction
    max_train_items: PositiveInt | None = None  # of data.train, after a test fraction and before a validation fraction
    max_length: int = Field(default=256, ge=8)  # tokens, special ones included

    @field_validator("slices")
    @classmethod
    def _free_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = [name for name in value if name in OWN_COLUMNS]
        if taken:
            raise ValueError(f"items have a column {taken[0]!r} of their own; rename yours in the data")
        return value


class BackboneConfig(Section):
    name: str = EMBEDDED_BACKBONE  # embedded name, local directory, or hub name with a revision
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")  # commit on the hub
    freeze: Annotated[int | Literal["auto", "none", "all"], BeforeValidator(_as_depth)] = 2  # auto: tried, see probe
    cache: Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_cache)] = "auto"  # keep frozen layers' states
    quantize: Literal["none", "8bit", "4bit"] = "none"  # of the hidden layers' matrices while LoRA is trained on them


class AdapterConfig(Section):
    type: Literal["none", "lora", "rslora", "dora"] = "none"  # see lora.py
    r: PositiveInt = 8
    alpha: PositiveFloat = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05


class TrainingConfig(Section):
    epochs: PositiveInt = 3
    batch_size: PositiveInt = 32  # effective: over all processes and accumulation steps
    accumulation: PositiveInt = 1  # forward passes per optimizer step and process
    learning_rate: Annotated[float | Literal["auto"], BeforeValidator(_as_number_or_auto)] = "auto"
    warmup_frac: Annotated[float, Field(ge=0, lt=1)] = 0.1  # of all optimizer steps, then linear decay to 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: PositiveFloat = 1.0
    class_weights: Literal["auto", "balanced", "none"] = "auto"  # auto: balanced when classes are uneven
    oversampling: Literal["none", "balanced"] = "none"  # balanced: each epoch draws every class equally often
    loss: Literal["cross-entropy", "focal"] = "cross-entropy"
    focal_gamma: Annotated[float, Field(ge=0)] = 2.0  # how little an item that is known already counts; 0: no less
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of every label that is spread over all classes
    imbalance: Literal["none", "auto"] = "none"  # auto: the four above are tried
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # learning rate of a hidden layer over that of the next one
    unfreeze: Literal["none", "epoch", "stall"] = "none"  # open hidden layers from the top: each epoch, or if no gain
    unfreeze_layers: PositiveInt = 1  # hidden layers opened at a time
    gradient_checkpointing: bool = False  # compute hidden states again for the gradient: less memory, more time
    patience: PositiveInt | None = None  # epochs without a better validation macro-F1 before stopping
    checkpoint_steps: PositiveInt | None = None  # default: a checkpoint after every epoch
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    processes: Annotated[int | Literal["auto"], BeforeValidator(_as_processes)] = "auto"
    trackers: tuple[Literal["tensorboard"], ...] = ("tensorboard",)

    @model_validator(mode="after")
    def _counted_once(self) -> TrainingConfig:
        if self.oversampling == "balanced" and self.class_weights == "balanced":
            raise _combination(
                "training.oversampling: balanced with training.class_weights: balanced would balance them twice; "
                "leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _given_or_chosen(self) -> TrainingConfig:
        own = ("class_weights", "oversampling", "loss", "label_smoothing")
        given = [key for key in own if getattr(self, key) != type(self).model_fields[key].default]
        if self.imbalance == "auto" and given:
            raise _combination(f"training.imbalance: auto chooses training.{given[0]} itself; leave one of them out")
        return self


class DistillConfig(Section):
    teacher: Path  # run directory of a finished run on the same classes
    unlabelled: Annotated[SplitFile | None, BeforeValidator(_as_split_file)] = None  # content, column as data.text
    temperature: PositiveFloat = 2.0  # T: the higher, the more of what the teacher says of the other classes counts
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5  # of the teacher; the rest is that of the labels


class EvaluationConfig(Section):
    metric: Literal["macro_f1"] = "macro_f1"
    bootstrap: Annotated[int, Field(ge=100)] = 1000  # resamples
    min_gain: Annotated[float, Field(ge=0, lt=1)] = 0.02  # macro-F1 that makes fine-tuning worth it
    positive: str | None = None  # class that binary ROC-AUC and PR-AUC refer to; default: the rarer one
    operating_points: tuple[Fraction, ...] = (0.8, 0.9, 0.95)  # wanted precision and recall of every class
    learning_curve: Annotated[tuple[Fraction, ...], BeforeValidator(_as_shares)] = ()  # shares of the training items


class RunConfig(Section):
    task: Literal["text-classification"]
    data: DataConfig
    backbone: BackboneConfig = BackboneConfig()
    adapter: AdapterConfig = AdapterConfig()
    training: TrainingConfig = TrainingConfig()
    baselines: tuple[Baseline, ...] = get_args(Baseline)
    evaluation: EvaluationConfig = EvaluationConfig()
    distill: DistillConfig | None = None  # a finished run that teaches this one
    start_from: Path | None = None  # run directory whose model is trained further
    output: Path = Path("runs/run")

    @model_validator(mode="after")
    def _can_be_taught(self) -> RunConfig:
        if self.distill is None:
            return self
        others = {
            "start_from": self.start_from is not None,
            "evaluation.learning_curve": bool(self.evaluation.learning_curve),
            "training.oversampling": self.training.oversampling == "balanced",
            "training.imbalance: auto": self.training.imbalance == "auto",
        }
        for key, given in others.items():
            if given:
                raise _combination(f"distill: cannot be combined with {key}; leave one of them out")
        return self

    @model_validator(mode="after")
    def _can_be_quantized(self) -> RunConfig:
        bits = self.backbone.quantize
        if bits == "none":
            return self
        if self.adapter.type == "none":
            raise _combination(
                f"backbone.quantize: {bits} without an adapter would train weights of so few bits; set adapter.type"
            )
        others = {
            "start_from": self.start_from is not None,
            "backbone.cache: on, since states are those of the whole weights": self.backbone.cache == "on",
        }
        for key, given in others.items():
            if given:
                raise _combination(f"backbone.quantize: cannot be combined with {key}; leave one of them out")
        return self

    @model_validator(mode="after")
    def _can_be_unfrozen(self) -> RunConfig:
        if self.training.unfreeze == "epoch" and self.backbone.freeze == "auto":
            raise _combination(
                "training.unfreeze: epoch with backbone.freeze: auto would not know how many epochs it needs; give a "
                "depth, or set training.unfreeze: stall"
            )
        if self.training.unfreeze != "none" and self.adapter.type != "none":
            raise _combination(
                f"training.unfreeze: {self.training.unfreeze} with adapter.type: {self.adapter.type} would open layers "
                "below an adapter, which leaves the weights of the backbone as they are; leave one of them out"
            )
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def auto_learning_rate(frozen_share: float, lora: bool) -> float:
    """The default learning rate for a share of frozen hidden layers, between 0 (none) and 1 (head only).

    The best rate rises with depth. On 2,000 EDOS texts with MiniLM (6 layers, 3 seeds, a grid of rates per depth): 0
    layers 1e-4, 3 layers 2e-4, 4 layers 3e-4, 5 layers 1e-3; interpolated on a log scale between those. That grid was
    scored on the official test part, so EDOS figures at these rates may be slightly flattered. The rate for head only
    and the factor for LoRA are rules of thumb; `benchmarks/learning_rates.py` measures them, on the dev part.
    """
    shares = (0.0, 1 / 2, 2 / 3, 5 / 6, 1.0)
    rates = (1e-4, 2e-4, 3e-4, 1e-3, 1e-3)
    position = next(i for i in range(1, len(shares)) if frozen_share <= shares[i] or i == len(shares) - 1)
    low, high = shares[position - 1], shares[position]
    weight = (frozen_share - low) / (high - low)
    rate = math.exp((1 - weight) * math.log(rates[position - 1]) + weight * math.log(rates[position]))
    return float(f"{rate * (LORA_RATE_FACTOR if lora else 1):.2g}")


LORA_RATE_FACTOR = 5.0


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which no key stands twice; PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a YAML file, apply `key=value` overrides, validate.

    Args:
        path: the YAML file.
        overrides: dotted keys with YAML values, such as `training.epochs=5`.

    Raises:
        ConfigError: with every problem on a line of its own.
    """
    return _overridden(read_yaml(path), overrides, path)


def data_config(
    data: Path, parts: Mapping[str, Path | None], columns: Mapping[str, str | None], overrides: Iterable[str]
) -> RunConfig:
    """The config of a command that is given a labelled file instead of a config, or a YAML config after all.

    Args:
        data: training part, or a config.
        parts: validation and test, where they are files.
        columns: text and label, where they are not called so.
        overrides: as in `load_config`; they come last.

    Raises:
        ConfigError: with every problem on a line of its own.
    """
    given: dict[str, Any] = {key: str(value) for key, value in (*parts.items(), *columns.items()) if value is not None}
    if data.suffix.lower() in (".yaml", ".yml"):
        raw = read_yaml(data)
        raw["data"] = (raw["data"] if isinstance(raw.get("data"), dict) else {}) | given
    else:
        raw = {"task": "text-classification", "data": {"train": str(data), "text": "text", "label": "label"} | given}
    return _overridden(raw, overrides, data)


def _overridden(raw: dict[str, Any], overrides: Iterable[str], source: Path) -> RunConfig:
    for override in overrides:
        _apply(raw, override)
    return parse_config(raw, str(source))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds, as it is. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        raw = _StrictLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys task and data, found {_name(raw)}")
    return raw


def parse_config(raw: dict[str, Any], source: str = "config") -> RunConfig:
    """Validate a mapping. Raises ConfigError with every problem on a line of its own."""
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        problems = [_problem(detail) for detail in _details(error)]
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise ConfigError(f"{source} has {count}:\n" + "\n".join(f"  {problem}" for problem in problems))


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as training.epochs=5")
    *parents, last = key.split(".")
    section = raw
    for parent in parents:
        child = section.get(parent)
        if isinstance(child, str) and parent in ("train", "validation", "test"):
            child = {"path": child}
        section[parent] = child if isinstance(child, dict) else {}
        section = section[parent]
    try:
        section[last] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError(f"--set {override}: the value is not valid YAML; put it in quotes") from None


def _details(error: ValidationError) -> Iterator[dict[str, Any]]:
    """The errors one by one; those of a validation or test part come nested (see `_as_part`)."""
    for outer in error.errors():
        for inner in outer.get("ctx", {}).get("details", [{"loc": ()}]):
            yield {**outer, **inner, "loc": (*outer["loc"], *inner["loc"])}


def _problem(detail: dict[str, Any]) -> str:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggestion(location)}"
    if detail["type"] == "combination":
        return str(detail["msg"])
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message}; found {_name(detail['input'])}"


def _suggestion(location: list[str]) -> str:
    model: Any = RunConfig
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
        model = next((a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")), None)
    if model is None:
        return ""
    known = list(model.model_fields)
    close = difflib.get_close_matches(location[-1], known, n=1)
    if close:
        return f". Did you mean {'.'.join([*location[:-1], close[0]])}?"
    return f". Known here: {', '.join(known)}"


def _name(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    if isinstance(value, bool):
        text += " (YAML reads yes, no, on and off as true or false: put the word in quotes)"
    return text if len(text) <= 120 else text[:117] + "..."
