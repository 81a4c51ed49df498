"""What is counted is what a run does: steps, forward passes and their padded tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.backbones.base import Encoding
from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.estimate.plan import epoch_of, padded_tokens, plan_of
from pipelines.predict import predict_logits
from pipelines.records import column
from pipelines.run import finetune
from pipelines.tune import prepare

MakeConfig = Callable[..., RunConfig]
Shapes = list[tuple[int, int]]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Shapes:
    """(B, T) of every batch that is made from now on, in training mode."""
    seen: Shapes = []
    from pipelines.backbones.text import TextBackbone

    collate = TextBackbone.collate

    def recorded(self: TextBackbone, encodings: Sequence[Encoding], at_least: int = 0) -> dict[str, torch.Tensor]:
        inputs = collate(self, encodings, at_least)
        seen.append(tuple(inputs["input_ids"].shape))
        return inputs

    monkeypatch.setattr(TextBackbone, "collate", recorded)
    return seen


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_steps_of_an_epoch_are_those_that_are_trained(
    accumulation: int, make_config: MakeConfig, tmp_path: Path, passes: Shapes
) -> None:
    training = {"accumulation": accumulation, "epochs": 1, "batch_size": 7, "seed": 5}
    config = make_config(training=training, backbone={"freeze": "none"}, baselines=["majority"])
    splits = load_splits(config.data, 5)
    plan = plan_of(config, splits, prepare(config, splits.labels, None).backbone)
    passes.clear()
    list(finetune(config, tmp_path / "run"))
    trained = plan.epoch
    steps = -(-len(splits.train) // 7)
    assert len(trained.batches) == len(trained.tokens) == steps
    counted = accumulation * steps if len(splits.train) % 7 in (0, *range(accumulation, 7)) else None
    assert counted is not None, "the last batch is smaller than a pass each; choose other numbers"
    assert sum(trained.tokens) == sum(B * T for B, T in passes[:counted])
    assert trained.shapes == {T for _, T in passes[:counted]}


def test_tokens_without_training_are_those_of_the_passes(make_config: MakeConfig, passes: Shapes) -> None:
    config = make_config()
    splits = load_splits(config.data, 0)
    backbone = prepare(config, splits.labels, None).backbone
    encodings = backbone.encode(column(splits.train, "text"))
    passes.clear()
    predict_logits(backbone, encodings, "fp32")
    assert padded_tokens([len(own) for own in encodings]) == sum(B * T for B, T in passes)


def test_parts_and_points_of_the_learning_curve_are_counted(make_config: MakeConfig) -> None:
    config = make_config(evaluation={"learning_curve": [0.25, 0.5]})
    splits = load_splits(config.data, 0)
    plan = plan_of(config, splits, prepare(config, splits.labels, None).backbone)
    assert {part: len(own) for part, own in plan.lengths.items()} == {"train": 38, "validation": 10, "test": 12}
    assert [(items, len(epoch.batches)) for items, epoch in plan.smaller] == [(10, 2), (19, 3)]
    assert plan.lengths["test"] == [len(own) for own in plan.encodings["test"]]


def test_longer_texts_are_cut_before_they_are_counted(make_config: MakeConfig) -> None:
    config = make_config(data={"max_length": 12})
    splits = load_splits(config.data, 0)
    plan = plan_of(config, splits, prepare(config, splits.labels, None).backbone)
    assert max(plan.lengths["train"]) == 12
    assert plan.epoch.tokens.max() == 8 * 12  # a batch of 8, and T is not more than what the model takes


def test_later_epochs_hold_the_same_items_in_another_order(make_config: MakeConfig) -> None:
    training = make_config().training
    lengths: Any = [5, 9, 12, 20, 7, 30, 8, 8, 16, 11]
    first, second = (epoch_of(lengths, training, 64, number) for number in (0, 1))
    assert np.concatenate(first.batches).tolist() != np.concatenate(second.batches).tolist()
    assert sorted(np.concatenate(first.batches)) == sorted(np.concatenate(second.batches)) == list(range(10))
