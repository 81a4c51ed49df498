"""An estimate in another process: the same events, figures and errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipelines.activation_store import ActivationStore
from pipelines.config import RunConfig, parse_config
from pipelines.errors import Interrupted, RootstockError
from pipelines.estimate.apart import _event, estimate_apart
from pipelines.records import Estimated, Stage
from tests.toys import toy_config

MakeConfig = Callable[..., RunConfig]


@pytest.mark.slow
def test_another_process_says_the_same(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(backbone={"cache": "on"}, baselines=["majority"])
    store = ActivationStore(tmp_path / "store", 1 << 30)
    *stages, found = estimate_apart(config, lambda: False, store)
    assert all(isinstance(event, Stage) for event in stages)
    assert isinstance(found, Estimated)
    assert found.figures["parameters"] == {"trained": 4754, "total": 15906}
    assert found.figures["store"] == "cold"
    assert not psutil.Process().children()


@pytest.mark.slow
def test_errors_keep_their_message_and_exit_code(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(RootstockError, match="expected at most 3, the hidden layers of") as refused:
        list(estimate_apart(make_config(backbone={"freeze": 9}), lambda: False, None))
    assert refused.value.exit_code == 2


@pytest.mark.slow
def test_stopping_ends_the_other_process(make_config: MakeConfig) -> None:
    with pytest.raises(Interrupted, match="nothing was kept"):
        list(estimate_apart(make_config(), lambda: True, None))
    assert not psutil.Process().children()


def test_a_config_arrives_as_it_was_given(tmp_path: Path) -> None:
    """What was left out stays out: with `start_from`, a backbone that is named must be that of the run."""
    raw = toy_config(tmp_path, evaluation={"learning_curve": [0.5]}) | {"start_from": "x"}
    config = parse_config(raw)
    arrived = parse_config(config.model_dump(mode="json", exclude_unset=True))
    assert arrived == config
    assert arrived.model_fields_set == config.model_fields_set
    assert arrived.training.model_fields_set == config.training.model_fields_set


def test_lines_become_events() -> None:
    stage, estimated = Stage("data", "x"), Estimated(("a=1",), {"steps": 3})
    assert [_event(event.to_json()) for event in (stage, estimated)] == [stage, Estimated(("a=1",), {"steps": 3})]
    with pytest.raises(RootstockError, match="no such file") as refused:
        _event({"event": "error", "message": "no such file", "exit_code": 2})
    assert refused.value.exit_code == 2
