"""One fine-tuning: where it starts, what it freezes, what it trains on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig, auto_learning_rate, parse_config
from pipelines.data import load_splits
from pipelines.device import start_accelerator
from pipelines.errors import BackboneError, ConfigError, TrainingError
from pipelines.loop import Progress
from pipelines.predict import predict_logits
from pipelines.records import Splits, Step, column
from pipelines.saved_run import SavedRun
from pipelines.trunk import Trunk
from pipelines.tune import finished_model, freeze_depth, prepare, tune, with_rate
from tests.runs import first_run
from tests.toys import tiny_backbone, toy_config

MakeConfig = Callable[..., RunConfig]
LABELS = ("calm", "harsh")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    return SavedRun(first_run(tmp_path_factory.mktemp("first"), baselines=[]))


def trained(trunk: Trunk, splits: Splits, config: RunConfig, folder: Path, items: int) -> tuple[list[Step], Progress]:
    """Tune on the first `items` training items."""
    accelerator = start_accelerator("fp32", (), folder)
    some = splits.train.select(range(items))
    events = tune(trunk, splits, some, config, accelerator, "fp32", Checkpoints(folder / "c"), lambda: False, None)
    steps: list[Step] = []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return steps, end.value
        steps += [event] if isinstance(event, Step) else []


@pytest.mark.parametrize(
    ("freeze", "adapter", "expected"),
    [
        ("none", "none", "none"),
        ("none", "lora", 0),
        ("all", "none", "all"),
        (2, "lora", 2),
        (0, "none", 0),
    ],
)
def test_lora_freezes_the_embeddings_at_least(freeze: str | int, adapter: str, expected: str | int) -> None:
    data = {"train": "a.csv", "text": "text", "label": "label"}
    raw = {"data": data, "task": "text-classification", "backbone": {"freeze": freeze}, "adapter": {"type": adapter}}
    assert freeze_depth(parse_config(raw)) == expected


def test_a_rate_that_is_auto_follows_the_depth_and_another_is_left_alone(make_config: MakeConfig) -> None:
    auto = make_config(training={"learning_rate": "auto"})
    assert with_rate(auto, 0.5).training.learning_rate == auto_learning_rate(0.5, lora=False)
    lora = make_config(training={"learning_rate": "auto"}, adapter={"type": "lora"})
    assert with_rate(lora, 0.5).training.learning_rate == auto_learning_rate(0.5, lora=True)
    assert with_rate(make_config(training={"learning_rate": 0.7}), 0.5).training.learning_rate == 0.7


def test_without_a_start_the_backbone_is_the_pretrained_one(make_config: MakeConfig, tmp_path: Path) -> None:
    trunk = prepare(make_config(), LABELS, None)
    assert trunk.backbone.name == str(tmp_path / "tiny")
    assert trunk.backbone.labels == LABELS
    assert trunk.depth == 1
    assert trunk.backbone.adapter is None
    frozen = {name for name, p in trunk.backbone.model.named_parameters() if not p.requires_grad}
    assert any("layer.0." in name for name in frozen)
    assert not any("layer.1." in name for name in frozen)


def test_with_a_start_the_backbone_is_the_trained_one(first: SavedRun) -> None:
    config = parse_config(toy_config(first.path.parent, backbone={"freeze": 2}))
    trunk = prepare(config, (*LABELS, "new"), first)
    saved = first.model()
    texts = ["the cat sleeps cruelly", "a bee sings"]
    before = predict_logits(saved, saved.encode(texts), "fp32")
    now = predict_logits(trunk.backbone, trunk.backbone.encode(texts), "fp32")
    assert now.shape == (2, 3)
    np.testing.assert_allclose(now[:, :2], before, atol=1e-6)
    assert (trunk.depth, trunk.backbone.name) == (2, str(first.path))


def test_labels_that_do_not_begin_with_those_of_the_start_are_refused(first: SavedRun, make_config: MakeConfig) -> None:
    with pytest.raises(BackboneError, match="expected its labels calm, harsh first, found harsh, calm"):
        prepare(make_config(), ("harsh", "calm"), first)


def test_lora_is_attached_above_the_cut_of_a_trained_model(first: SavedRun, make_config: MakeConfig) -> None:
    trunk = prepare(make_config(adapter={"type": "lora", "r": 2}), LABELS, first)
    assert trunk.backbone.adapter is not None
    adapted = {name for name, p in trunk.backbone.model.named_parameters() if "lora_" in name and p.requires_grad}
    assert adapted
    assert {name.split("layer.")[1][0] for name in adapted} == {"1", "2"}


def test_only_the_given_items_are_trained_on(make_config: MakeConfig, tmp_path: Path) -> None:
    """20 items in batches of 8 are 3 steps; the texts that were encoded say which items they were."""
    config = make_config()
    splits = load_splits(config.data, 0)
    trunk = prepare(config, splits.labels, None)
    encoded: list[str] = []
    encode = trunk.backbone.encode
    trunk.backbone.encode = lambda texts: encoded.extend(texts) or encode(texts)  # type: ignore[method-assign, assignment, func-returns-value]
    steps, progress = trained(trunk, splits, config, tmp_path, items=20)
    assert steps[-1].total_steps == progress.step == 2 * 3
    assert encoded == [*column(splits.train, "text")[:20], *column(splits.validation, "text")]


def test_tokenizing_counts_as_training(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that hardly anything but tokenizing moves, its 5 s are all that training took."""
    config = make_config()
    splits = load_splits(config.data, 0)
    trunk = prepare(config, splits.labels, None)
    now = [0.0]
    encode = trunk.backbone.encode

    def slow(texts: list[str]) -> list[object]:
        now[0] += 5.0
        return encode(texts)

    trunk.backbone.encode = slow  # type: ignore[method-assign, assignment]
    ticks = count()
    monkeypatch.setattr("time.perf_counter", lambda: now[0] + 1e-6 * next(ticks))
    _, progress = trained(trunk, splits, config, tmp_path, items=20)
    assert progress.seconds == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_finished_model_is_a_plain_one_with_the_same_answers(
    adapter: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(adapter={"type": adapter, "r": 2})
    splits = load_splits(config.data, 0)
    trunk = prepare(config, splits.labels, None)
    trained(trunk, splits, config, tmp_path, items=20)
    encodings = trunk.backbone.encode(column(splits.test, "text"))
    before = predict_logits(trunk.backbone, encodings, "fp32")
    model = finished_model(trunk)
    assert not [name for name, _ in model.model.named_parameters() if "lora_" in name]
    assert not isinstance(model.model, torch.nn.parallel.DistributedDataParallel)
    np.testing.assert_allclose(predict_logits(model, encodings, "fp32"), before, atol=2e-5)


def test_gradient_checkpointing_needs_a_model_that_can(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, training={"gradient_checkpointing": True})
    tiny_backbone(tmp_path / "mpnet", "mpnet")
    raw["backbone"] |= {"name": str(tmp_path / "mpnet")}
    with pytest.raises(ConfigError, match=r"gradient_checkpointing: mpnet models cannot; leave it out"):
        prepare(parse_config(raw), LABELS, None)


def test_out_of_memory_where_passes_do_not_help_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    config = parse_config(toy_config(tmp_path))
    with pytest.raises(TrainingError, match=r"out of memory where more passes a step do not help; .* 2\.00 GiB"):
        trained(prepare(config, LABELS, None), load_splits(config.data, 0), config, tmp_path, 20)
