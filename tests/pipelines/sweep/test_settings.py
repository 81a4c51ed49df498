"""Settings are sound before they are trained, and each counts once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import RunConfig, auto_learning_rate, parse_config
from pipelines.errors import ConfigError
from pipelines.sweep import settings as module
from pipelines.sweep.settings import AS_GIVEN, Settings
from tests.toys import toy_config

MakeConfig = Callable[..., RunConfig]
LABELS = ("calm", "harsh")
RATE, FREEZE = "training.learning_rate", "backbone.freeze"


@pytest.fixture
def settings(make_config: MakeConfig) -> Settings:
    """Of a backbone with 3 hidden layers."""
    return Settings(make_config(training={"learning_rate": "auto"}), LABELS, None)


def test_a_setting_knows_its_depth_and_what_auto_becomes(settings: Settings) -> None:
    two = settings.of({FREEZE: 2})
    assert (two.depth, two.learning_rate) == (2, auto_learning_rate(2 / 3, lora=False))
    assert two.config.training.learning_rate == "auto"  # as the user wrote it
    assert settings.of({FREEZE: "none"}).depth == -1
    lora = settings.of({FREEZE: 2, "adapter.type": "lora"})
    assert lora.learning_rate == auto_learning_rate(2 / 3, lora=True)
    assert settings.of({FREEZE: 2, RATE: 0.5}).learning_rate == 0.5


def test_the_seed_and_the_rate_of_one_training(settings: Settings) -> None:
    one = settings.of({FREEZE: 2}).seeded(7)
    assert (one.training.seed, one.training.learning_rate) == (7, auto_learning_rate(2 / 3, lora=False))
    assert one.data == settings.config.data


def test_settings_that_come_to_the_same_count_once(settings: Settings) -> None:
    first = settings.of({FREEZE: 3, RATE: 1e-3, "adapter.r": 4})
    assert settings.of({FREEZE: "all", RATE: 1e-3, "adapter.r": 4}) is first
    assert settings.of({FREEZE: 3, RATE: "auto", "adapter.r": 4}) is first  # 1e-3 at this depth
    assert settings.of({FREEZE: 3, RATE: 1e-3, "adapter.r": 8}) is first  # without an adapter it has no rank
    assert settings.all == [first]
    assert settings.of({FREEZE: 3, RATE: 2e-3, "adapter.r": 4}) is not first
    assert len(settings.all) == 2
    settings.checked({FREEZE: 1})
    assert len(settings.all) == 2


def test_what_is_off_makes_no_second_setting(settings: Settings) -> None:
    plain = settings.of({"training.loss": "cross-entropy", "training.focal_gamma": 1.0})
    assert settings.of({"training.loss": "cross-entropy", "training.focal_gamma": 2.0}) is plain
    assert settings.of({"training.unfreeze_layers": 3}) is plain
    focal = settings.of({"training.loss": "focal", "training.focal_gamma": 1.0})
    assert settings.of({"training.loss": "focal", "training.focal_gamma": 2.0}) is not focal
    assert len(settings.all) == 3


def test_a_setting_is_known_however_it_is_written(settings: Settings) -> None:
    three = settings.of({FREEZE: 3, RATE: 1e-3})
    assert settings.known({FREEZE: "all", RATE: "auto"}) is three  # 1e-3 at this depth
    assert settings.known({FREEZE: 2}) is None
    assert settings.known({FREEZE: 9}) is None  # more layers than there are
    assert settings.known({"backbone.name": "./gone"}) is None  # cannot be loaded
    assert settings.all == [three]


def test_a_model_is_loaded_once_for_each_shape(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    real = module.prepare
    monkeypatch.setattr(module, "prepare", lambda *args: loaded.append(args) or real(*args))
    for rate in (1e-3, 2e-3):
        for depth in (1, 2):
            settings.of({FREEZE: depth, RATE: rate})
    assert len(loaded) == 2
    assert settings.deepest.backbone.freeze == 2
    assert list(settings.weights) == [settings.config.backbone.name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {FREEZE: 9},
            "backbone.freeze=9: cannot be trained: backbone.freeze: expected at most 3, the hidden layers",
        ),
        ({FREEZE: 3, "adapter.type": "lora"}, "backbone.freeze=3, adapter.type=lora: cannot be trained: adapter.type"),
        ({FREEZE: "auto"}, "expected depths to compare, such as --vary backbone.freeze=2,4"),
    ],
)
def test_what_cannot_be_trained_is_named_in_one_line(
    changes: dict[str, object], message: str, settings: Settings
) -> None:
    with pytest.raises(ConfigError) as refused:
        settings.of(changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert settings.all == []


def test_names_say_what_is_varied(settings: Settings) -> None:
    assert settings.of({FREEZE: 1, RATE: 3e-4}).name == "backbone.freeze=1, training.learning_rate=0.0003"
    assert settings.of({}).name == AS_GIVEN


def test_what_a_run_chooses_itself_or_is_taught_is_not_swept(tmp_path: Path) -> None:
    for sections, message in (
        ({"training": {"imbalance": "auto"}}, r"training\.imbalance auto chooses by itself"),
        ({"distill": {"teacher": "runs/teacher"}}, r"a sweep has no teacher"),
    ):
        config = parse_config(toy_config(tmp_path, **sections))
        with pytest.raises(ConfigError, match=message):
            Settings(config, ("calm", "harsh"), None).of({})


def test_a_rank_and_an_unfreezing_that_cannot_be_are_refused_before_training(tmp_path: Path) -> None:
    settings = Settings(parse_config(toy_config(tmp_path, adapter={"type": "lora"})), ("calm", "harsh"), None)
    settings.of({"adapter.r": 4})
    with pytest.raises(ConfigError, match=r"adapter\.r=999: cannot be trained: adapter\.r: expected at most"):
        settings.of({"adapter.r": 999})
    opened = Settings(parse_config(toy_config(tmp_path, training={"unfreeze": "epoch"})), ("calm", "harsh"), None)
    opened.of({"training.epochs": 3})
    with pytest.raises(ConfigError, match=r"training\.epochs=2: cannot be trained: training\.unfreeze: 2 hidden"):
        opened.of({"training.epochs": 2})
