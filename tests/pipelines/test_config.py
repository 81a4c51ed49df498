"""RunConfig: defaults, messages, overrides, and the words that YAML reads as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import RunConfig, SplitFile, auto_learning_rate, load_config, parse_config
from pipelines.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
MINIMAL = "task: text-classification\ndata: {train: a.csv, text: tweet, label: class}\n"


def raw(**sections: Any) -> dict[str, Any]:
    data = {"train": "a.csv", "text": "tweet", "label": "class"}
    return {"task": "text-classification"} | sections | {"data": data | sections.get("data", {})}


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def problems(values: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(values, "c.yaml")
    return [line.strip() for line in str(caught.value).splitlines()]


# ---- what is read


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.data.train == SplitFile(path=Path("a.csv"))
    assert (config.data.validation, config.data.test, config.data.max_length) == (0.1, 0.2, 256)
    assert (config.backbone.name, config.backbone.freeze) == ("sentence-transformers/all-MiniLM-L6-v2", 2)
    assert config.adapter.type == "none"
    assert (config.training.epochs, config.training.learning_rate, config.training.seed) == (3, "auto", 0)
    assert config.baselines == (
        "majority",
        "logistic-regression-manual",
        "logistic-regression-tfidf",
        "logistic-regression-embeddings",
    )
    assert (config.evaluation.bootstrap, config.evaluation.min_gain) == (1000, 0.02)
    assert config.evaluation.operating_points == (0.8, 0.9, 0.95)
    assert config.evaluation.learning_curve == ()
    assert config.start_from is None
    assert config.output == Path("runs/run")


@pytest.mark.parametrize(
    ("written", "shares"),
    [
        ("none", ()),
        ("auto", (0.125, 0.25, 0.5)),
        ("[]", ()),
        ("[0.5, 0.1, 0.5]", (0.1, 0.5)),
    ],
)
def test_shares_of_the_learning_curve(tmp_path: Path, written: str, shares: tuple[float, ...]) -> None:
    config = load(tmp_path, MINIMAL + f"evaluation: {{learning_curve: {written}}}\n")
    assert config.evaluation.learning_curve == shares


def test_a_run_to_start_from_is_a_path(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL + "start_from: runs/general\n", "evaluation.operating_points=[0.7]")
    assert config.start_from == Path("runs/general")
    assert config.evaluation.operating_points == (0.7,)


def test_every_example_config_loads() -> None:
    paths = sorted(CONFIGS.rglob("*.yaml"))
    assert len(paths) >= 2
    configs = [load_config(path) for path in paths]
    assert [config.data.text for config in configs] == [
        yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["text"] for path in paths
    ]
    assert len({config.output for config in configs}) == len(paths)  # none overwrites another's run


def test_parts_are_files_rows_of_files_or_shares() -> None:
    config = parse_config(raw(data={"validation": {"path": "b.csv", "where": {"year": 2024}}, "test": "c.csv"}))
    assert config.data.validation == SplitFile(path=Path("b.csv"), where={"year": "2024"})
    assert config.data.test == SplitFile(path=Path("c.csv"))
    assert parse_config(raw(data={"test": 0.25})).data.test == 0.25


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_config(raw()).training.epochs = 4  # type: ignore[misc]


FILE = {"path": "b.csv", "where": {"Ünit": "01", "no": "no"}}
FULL = raw(
    data={"train": FILE, "validation": 0.15, "test": FILE, "slices": ["kind", "no"], "group": "on", "label": "3e-4"},
    backbone={"freeze": "all", "revision": "0" * 40},
    adapter={"type": "lora", "r": 4},
    training={"learning_rate": 1e-5, "patience": 2, "processes": 2, "trackers": []},
    baselines=["majority"],
    evaluation={"positive": "01", "operating_points": [0.5, 0.99], "learning_curve": "auto"},
    start_from="runs/general",
)


@pytest.mark.parametrize("values", [raw(), FULL])
def test_yaml_round_trip(tmp_path: Path, values: dict[str, Any]) -> None:
    config = parse_config(values)
    assert load(tmp_path, config.to_yaml()) == config


def test_yaml_lists_every_default_in_the_order_of_the_sections() -> None:
    written = yaml.safe_load(parse_config(raw(start_from="runs/general")).to_yaml())
    assert list(written) == [name for name in RunConfig.model_fields if name != "distill"]
    assert written["training"]["weight_decay"] == 0.01
    assert "patience" not in written["training"]  # none
    assert "start_from" not in yaml.safe_load(parse_config(raw()).to_yaml())


# ---- combinations


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"oversampling": "balanced", "class_weights": "balanced"}},
            "training.oversampling: balanced with training.class_weights: balanced would balance them twice; "
            "leave one of them out",
        ),
        (
            {"training": {"unfreeze": "epoch"}, "adapter": {"type": "dora"}},
            "training.unfreeze: epoch with adapter.type: dora would open layers below an adapter, which leaves the "
            "weights of the backbone as they are; leave one of them out",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(sections: dict[str, Any], message: str) -> None:
    assert problems(raw(**sections))[1:] == [message]


# ---- YAML traps


@pytest.mark.parametrize("word", ["3e-4", "3.0e-4", "0.0003"])
def test_numbers_in_any_notation(tmp_path: Path, word: str) -> None:
    """YAML 1.1 reads 3e-4 as text."""
    config = load(tmp_path, MINIMAL + f"training: {{learning_rate: {word}, weight_decay: {word}}}\n")
    assert config.training.learning_rate == config.training.weight_decay == 0.0003


@pytest.mark.parametrize(
    "line", ["evaluation: {positive: no}", "training: {epochs: yes}", "training: {seed: off}", "baselines: [on]"]
)
def test_words_that_yaml_reads_as_booleans(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"YAML reads yes, no, on and off .* put the word in quotes"):
        load(tmp_path, MINIMAL + line)


def test_a_boolean_in_where_is_named_once(tmp_path: Path) -> None:
    found = problems(raw(data={"test": {"path": "b.csv", "where": {"safe": False}}}))
    assert found[1].startswith("data.test.where.safe: Input should be a valid string; found False (YAML reads")
    assert found[1].count("found") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML: "),
        ("a: b: c", "not valid YAML: mapping values are not allowed here"),
        ("- a\n", "expected a mapping with the keys task and data, found ['a']"),
        ("", "expected a mapping with the keys task and data, found nothing"),
        ("training: {seed: 1}\ntraining: {epochs: 2}\n", "the key 'training' stands twice"),
        ("a: 2026-13-45", "not valid YAML: month must be in 1..12"),
        ("[" * 500, "not valid YAML: maximum recursion depth"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML: could not determine a constructor"),
    ],
)
def test_unusable_yaml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such config file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load_config(tmp_path)
    (tmp_path / "l.yaml").write_bytes(b"task: caf\xe9")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load_config(tmp_path / "l.yaml")


# ---- problems


def test_all_problems_at_once() -> None:
    found = problems(
        {
            "task": "text",
            "data": {"train": "a.csv", "text": "tweet", "lable": "class", "test": {"pth": "b.csv"}},
            "training": {"epochs": 0, "learning_rate": "fast"},
            "backbone": {"freeze": -1, "revision": "main"},
            "trainning": {},
        }
    )
    assert found == [
        "c.yaml has 10 problems:",
        "task: Input should be 'text-classification'; found 'text'",
        "data.test.path: missing; it has no default",
        "data.test.pth: unknown key. Did you mean data.test.path?",
        "data.label: missing; it has no default",
        "data.lable: unknown key. Did you mean data.label?",
        "backbone.revision: String should match pattern '^[0-9a-f]{40}$'; found 'main'",
        "backbone.freeze: expected auto, none, all, or how many hidden layers to freeze (0 or more); found -1",
        "training.epochs: Input should be greater than 0; found 0",
        "training.learning_rate: expected auto or a number above 0; found 'fast'",
        "trainning: unknown key. Did you mean training?",
    ]


def test_a_key_like_no_other_lists_those_known_there() -> None:
    found = problems(raw(adapter={"xyz": 1}))
    assert found == ["c.yaml has a problem:", "adapter.xyz: unknown key. Known here: type, r, alpha, dropout"]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "test", 0),
        ("data", "test", 1.0),
        ("data", "validation", [0.1]),
        ("data", "max_train_items", 0),
        ("data", "slices", ["group"]),
        ("data", "slices", ["part"]),
        ("backbone", "freeze", 1.5),
        ("backbone", "freeze", "2"),
        ("adapter", "dropout", 1),
        ("training", "learning_rate", 0),
        ("training", "learning_rate", float("nan")),
        ("training", "learning_rate", float("inf")),
        ("training", "processes", 0),
        ("training", "seed", 2**31),
        ("training", "seed", -1),
        ("training", "warmup_frac", 1),
        ("training", "max_grad_norm", 0),
        ("training", "precision", "int8"),
        ("training", "layer_decay", 0),
        ("training", "layer_decay", 1.1),
        ("training", "label_smoothing", 1),
        ("training", "focal_gamma", -1),
        ("training", "unfreeze", "always"),
        ("training", "gradient_checkpointing", "sometimes"),
        ("evaluation", "bootstrap", 99),
        ("evaluation", "min_gain", -0.1),
        ("evaluation", "learning_curve", "all"),
        ("evaluation", "learning_curve", 0.5),
        ("evaluation", "learning_curve", [0.5, 1.0]),
        ("evaluation", "learning_curve", [0.0]),
        ("evaluation", "learning_curve", [1]),
        ("evaluation", "learning_curve", ["0.5"]),
        ("evaluation", "learning_curve", [float("nan")]),
    ],
)
def test_values_out_of_range(section: str, key: str, value: Any) -> None:
    (_, found) = problems(raw(**{section: {key: value}}))
    assert found.startswith(f"{section}.{key}: ")
    assert found.endswith(f"found {value!r}") or repr(value) in found


def test_wanted_precisions_out_of_range_are_named_by_their_place() -> None:
    assert problems(raw(evaluation={"operating_points": [0.9, 1.0, -0.5]})) == [
        "c.yaml has 2 problems:",
        "evaluation.operating_points.1: Input should be less than 1; found 1.0",
        "evaluation.operating_points.2: Input should be greater than 0; found -0.5",
    ]


def test_long_values_are_cut_in_messages() -> None:
    (_, found) = problems(raw(output=["x" * 10_000]))
    assert len(found) < 250


# ---- overrides


def test_overrides_reach_any_depth(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        MINIMAL,
        "training.epochs=5",
        "training.learning_rate=3e-4",
        "data.train.where.split=train",
        "data.slices=[a, b]",
        "evaluation.positive='no'",
        "output=runs/x=y",
    )
    assert (config.training.epochs, config.training.learning_rate) == (5, 0.0003)
    assert config.data.train == SplitFile(path=Path("a.csv"), where={"split": "train"})
    assert config.data.slices == ("a", "b")
    assert config.evaluation.positive == "no"
    assert config.output == Path("runs/x=y")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "--set training.epochs: expected KEY=VALUE, such as training.epochs=5"),
        ("=5", "expected KEY=VALUE"),
        ("data.slices=[a", "the value is not valid YAML; put it in quotes"),
        ("training.epoch=5", "training.epoch: unknown key. Did you mean training.epochs?"),
        ("task.x=5", "task: Input should be 'text-classification'; found {'x': 5}"),
    ],
)
def test_unusable_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL, override)
    assert message in str(caught.value)


# ---- the default learning rate


@pytest.mark.parametrize(
    ("share", "rate"),
    [(0.0, 1e-4), (0.25, 1.4e-4), (0.5, 2e-4), (2 / 3, 3e-4), (0.75, 5.5e-4), (5 / 6, 1e-3), (1.0, 1e-3)],
)
def test_auto_learning_rate(share: float, rate: float) -> None:
    """Measured points, and geometric means half-way between two of them."""
    assert auto_learning_rate(share, lora=False) == rate
    assert auto_learning_rate(share, lora=True) == pytest.approx(5 * rate, rel=0.04)


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_auto_learning_rate_never_falls_with_depth(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 1e-4 <= auto_learning_rate(low, False) <= auto_learning_rate(high, False) <= 1e-3
