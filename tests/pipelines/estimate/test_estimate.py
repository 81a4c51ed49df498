"""Estimates of tiny runs, against those runs themselves."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import checkpoint, durable
from pipelines.activation_store import ActivationStore
from pipelines.artifacts import size_bytes
from pipelines.config import RunConfig, parse_config
from pipelines.errors import Interrupted, RootstockError
from pipelines.estimate.estimate import estimate
from pipelines.records import Estimated, Step
from pipelines.run import finetune
from tests.runs import client_config, first_run
from tests.toys import WORDS, toy_config

MakeConfig = Callable[..., RunConfig]
FAST: dict[str, Any] = {"baselines": ["majority"]}
LAYER = 4 * (16 * 16 + 16) + 2 * 2 * 16 + (16 * 32 + 32) + (32 * 16 + 16)  # attention, two norms, feed-forward
HEAD = (16 * 16 + 16) + (16 * 2 + 2)  # pooler, classifier
LORA = 4 * 2 * (16 + 16) + 2 * 2 * (16 + 32)  # rank 2 on every matrix of a layer


def estimated(config: RunConfig, **options: Any) -> dict[str, Any]:
    *_, last = estimate(config, **options)
    assert isinstance(last, Estimated)
    assert last.changes == ()
    return last.figures


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "cache" / "store", 1 << 30)


@pytest.mark.parametrize(
    ("freeze", "adapter", "trained"),
    [
        ("all", "none", HEAD),
        (1, "none", 2 * LAYER + HEAD),
        (1, "lora", 2 * LORA + HEAD),
        ("none", "none", None),
    ],
)
def test_parameters_are_counted_exactly(
    freeze: str | int, adapter: str, trained: int | None, make_config: MakeConfig
) -> None:
    config = make_config(backbone={"freeze": freeze}, adapter={"type": adapter, "r": 2}, **FAST)
    found = estimated(config)["parameters"]
    positions = 512 * 16 + 2 * 16 + 2 * 16  # positions, token types, norm
    whole = (4 + len(WORDS)) * 16 + positions + 3 * LAYER + HEAD
    added = 2 * LORA + HEAD if adapter == "lora" else 0  # the head is there twice: PEFT trains a copy
    assert found == {"trained": whole if trained is None else trained, "total": whole + added}


def test_steps_are_those_of_the_run(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(training={"epochs": 3, "batch_size": 5, "accumulation": 2}, **FAST)
    found = estimated(config)
    steps = [event for event in finetune(config, tmp_path / "run") if isinstance(event, Step)]
    assert found["steps"] == steps[-1].total_steps == steps[-1].step == 3 * 8
    assert found["items"] == {"train": 38, "validation": 10, "test": 12}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")))
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in files}


def test_nothing_is_left_and_nothing_changes(
    make_config: MakeConfig, tmp_path: Path, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(**FAST)
    before = copy.deepcopy(config)
    store.root.parent.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(work))
    there = digests(tmp_path)
    for cache in ("auto", "on"):
        estimated(
            config.model_copy(update={"backbone": config.backbone.model_copy(update={"cache": cache})}), store=store
        )
    assert digests(tmp_path) == there
    assert config == before


def test_a_store_that_holds_the_states_is_honoured_and_left_alone(
    make_config: MakeConfig, tmp_path: Path, store: ActivationStore
) -> None:
    config = make_config(backbone={"cache": "on", "freeze": 2}, baselines=["logistic-regression-embeddings"])
    cold = estimated(config, store=store)
    list(finetune(config, tmp_path / "run", store=store))
    there = digests(store.root)
    warm = estimated(config, store=store)
    assert (cold["store"], warm["store"], estimated(config)["store"]) == ("cold", "warm", "off")
    assert warm["disk_mib"]["store"]["value"] == 0
    files = sum(path.stat().st_size for path in store.root.rglob("*.safetensors")) / 2**20
    assert cold["disk_mib"]["store"]["value"] == pytest.approx(files, rel=0.3)
    assert digests(store.root) == there


def test_states_of_other_layers_are_not_these(make_config: MakeConfig, tmp_path: Path, store: ActivationStore) -> None:
    shallow, deep = (make_config(backbone={"cache": "on", "freeze": depth}, **FAST) for depth in (1, 2))
    list(finetune(shallow, tmp_path / "run", store=store))
    assert estimated(deep, store=store)["store"] == "cold"


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_disk_is_that_of_the_run(
    adapter: str, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most that lies there is looked at before checkpoints are dropped."""
    config = make_config(adapter={"type": adapter, "r": 2}, evaluation={"learning_curve": [0.5]})
    found = estimated(config)["disk_mib"]
    most = 0
    discard = durable.discard

    def watched(path: Path) -> None:
        nonlocal most
        partial = tmp_path / "run.partial"
        most = max(most, size_bytes(partial) if partial.is_dir() else 0)
        discard(path)

    monkeypatch.setattr(durable, "discard", watched)
    monkeypatch.setattr(checkpoint.durable, "discard", watched)
    list(finetune(config, tmp_path / "run"))
    assert found["run"]["value"] == pytest.approx(size_bytes(tmp_path / "run") / 2**20, rel=0.3)
    assert found["while_running"]["value"] == pytest.approx(most / 2**20, rel=0.3)
    assert found["store"]["value"] == 0


def test_figures_are_json_with_intervals_around_them(make_config: MakeConfig) -> None:
    found = estimated(make_config(training={"patience": 1}))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    intervals = [found["train_seconds"], found["whole_seconds"], found["peak_memory_mib"], *found["disk_mib"].values()]
    assert all(0 <= f["low"] <= f["value"] <= f["high"] for f in intervals)
    assert all(f["low"] < f["high"] for f in intervals[:4])
    assert sum(found["seconds"].values()) == pytest.approx(found["whole_seconds"]["value"])
    assert found["peak_memory_mib"]["value"] >= found["memory_before_mib"] > 100
    assert any("training.patience" in sentence for sentence in found["errors"])


def test_a_continued_run_with_a_learning_curve(tmp_path: Path) -> None:
    start = first_run(tmp_path)
    raw = client_config(tmp_path, start, evaluation={"bootstrap": 100, "learning_curve": [0.5]})
    found = estimated(parse_config(raw))
    assert found["seconds"]["learning curve"] > 0
    assert found["items"]["test"] == 40
    without = client_config(tmp_path, start)
    assert estimated(parse_config(without))["seconds"]["learning curve"] == 0


@pytest.mark.parametrize(
    ("sections", "overrides"),
    [
        ({"backbone": {"freeze": 9}}, []),
        ({"backbone": {"freeze": "all"}, "adapter": {"type": "lora"}}, []),
        ({"data": {"text": "body"}}, []),
        ({"data": {"train": "nowhere.csv"}}, []),
        ({"evaluation": {"positive": "purple"}}, []),
        ({"backbone": {"name": "nobody/nothing"}}, []),
        ({"start_from": "nowhere"}, []),
        ({"training": {"precision": "fp16"}}, []),
    ],
)
def test_what_finetune_refuses_is_refused_alike(
    sections: dict[str, Any], overrides: list[str], make_config: MakeConfig, tmp_path: Path
) -> None:
    config = make_config(**sections)
    told = []
    for events in (estimate(config), finetune(config, tmp_path / "run")):
        with pytest.raises(RootstockError) as refused:
            list(events)
        told.append((type(refused.value), str(refused.value), refused.value.exit_code))
    assert told[0] == told[1]
    assert "\n" not in told[0][1]


@pytest.mark.parametrize("at", [0, 3, 11])
def test_stopped_it_keeps_nothing(
    at: int, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked after the first step, in the middle, and after the baseline."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    config = make_config(**FAST)
    asked: Iterator[bool] = iter([False] * at + [True] * 99)
    there = digests(tmp_path)
    with pytest.raises(Interrupted, match=r"^stopped; nothing was kept$"):
        list(estimate(config, stop=lambda: next(asked)))
    assert digests(tmp_path) == there


@pytest.mark.parametrize("batch_size", [64, 38, 19])
def test_an_epoch_may_have_a_step_or_two(batch_size: int, make_config: MakeConfig) -> None:
    found = estimated(make_config(training={"batch_size": batch_size}, **FAST))
    assert found["steps"] == 2 * -(-38 // batch_size)
    assert found["train_seconds"]["high"] > found["train_seconds"]["value"] > 0


def test_many_classes_of_few_items(tmp_path: Path) -> None:
    raw = toy_config(tmp_path)
    lines = (tmp_path / "toy.csv").read_text(encoding="utf-8").splitlines()
    named = [f"{line.split(',')[0]},class {number % 9},x" for number, line in enumerate(lines[1:])]
    (tmp_path / "toy.csv").write_text("\n".join([lines[0], *named]) + "\n", encoding="utf-8")
    found = estimated(parse_config(raw))
    assert found["parameters"]["trained"] == 2 * LAYER + HEAD + 7 * (16 + 1)
