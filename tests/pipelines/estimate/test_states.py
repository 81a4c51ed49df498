"""What the store means for a run, against what filling it really computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.activation_store import ActivationStore
from pipelines.activations import kept
from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.estimate.miniature import miniature_config, miniature_splits
from pipelines.estimate.plan import Plan, plan_of
from pipelines.estimate.states import States, states_of
from pipelines.lower_layers import LowerLayers, trunk_layers
from pipelines.records import finished
from pipelines.trunk import Trunk
from pipelines.tune import prepare

MakeConfig = Callable[..., RunConfig]


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "store", 1 << 30)


@pytest.fixture
def scratch(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "scratch", 1 << 30)


def planned(config: RunConfig) -> tuple[Trunk, Plan, Plan]:
    """A run and its miniature, of 16 of 38 training items."""
    splits = load_splits(config.data, 0)
    trunk = prepare(config, splits.labels, None)
    plan = plan_of(config, splits, trunk.backbone)
    return trunk, plan, plan_of(miniature_config(config), miniature_splits(splits, plan, config), trunk.backbone)


def lower_of(trunk: Trunk) -> LowerLayers:
    lower = trunk_layers(trunk, "fp32")
    assert lower is not None
    return lower


@pytest.mark.parametrize("freeze", ["none", 0])
def test_without_frozen_layers_the_store_means_nothing(
    freeze: str | int, make_config: MakeConfig, store: ActivationStore, scratch: ActivationStore
) -> None:
    found = states_of(*planned(make_config(backbone={"freeze": freeze})), "fp32", store, scratch)
    assert found == States()


def test_an_empty_store_lacks_everything(
    make_config: MakeConfig, store: ActivationStore, scratch: ActivationStore
) -> None:
    trunk, plan, small = planned(make_config(training={"batch_size": 2}))
    found = states_of(trunk, plan, small, "fp32", store, scratch)
    tokens = {part: sum(plan.lengths[part]) for part in ("train", "validation")}
    assert found.new_bytes == 2 * 16 * sum(tokens.values())
    assert found.mapped_bytes == 2 * 16 * (tokens["train"] - sum(small.lengths["train"]))
    assert found.fill >= 1
    assert found.fill_validation > 0
    assert found.begun == 1
    assert not scratch.root.exists()
    states = [finished(kept(lower_of(trunk), plan.encodings[part], store)) for part in tokens]
    kept_bytes = sum(own.states[key].nbytes for own in states for key in own.keys)
    assert kept_bytes == found.new_bytes


def test_a_full_store_lends_the_miniature_its_part(
    make_config: MakeConfig, store: ActivationStore, scratch: ActivationStore
) -> None:
    trunk, plan, small = planned(make_config(training={"batch_size": 2}))
    lower = lower_of(trunk)
    for part in ("train", "validation"):
        finished(kept(lower, plan.encodings[part], store))
    found = states_of(trunk, plan, small, "fp32", store, scratch)
    assert (found.new_bytes, found.fill_validation) == (0, 0)
    assert found.fill == 38 / 16
    for part in ("train", "validation"):
        assert finished(kept(lower, small.encodings[part], scratch)).computed == 0
    assert finished(kept(lower, plan.encodings["train"], scratch)).computed == 38 - 16


def test_a_store_with_some_of_the_items_lacks_the_others(
    make_config: MakeConfig, store: ActivationStore, scratch: ActivationStore
) -> None:
    trunk, plan, small = planned(make_config(training={"batch_size": 2}))
    finished(kept(lower_of(trunk), plan.encodings["train"][:30], store))
    found = states_of(trunk, plan, small, "fp32", store, scratch)
    missing = sum(plan.lengths["train"][30:]) + sum(plan.lengths["validation"])
    assert found.new_bytes == 2 * 16 * missing
    assert not scratch.root.exists()


def test_the_head_alone_reads_one_state_of_an_item(
    make_config: MakeConfig, store: ActivationStore, scratch: ActivationStore
) -> None:
    trunk, plan, small = planned(make_config(backbone={"freeze": "all"}))
    found = states_of(trunk, plan, small, "fp32", store, scratch)
    assert found.new_bytes == 2 * 16 * (38 + 10)
    assert found.begun == 0
