"""The small run's items, and what is read off its events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from pipelines.artifacts import RunDirectory
from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.estimate.miniature import PART, Watch, miniature_config, miniature_splits, some_of
from pipelines.estimate.plan import plan_of
from pipelines.records import Event, Splits, Stage, column
from pipelines.tune import prepare

MakeConfig = Callable[..., RunConfig]


def items(labels: str) -> Dataset:
    numbers = list(range(len(labels)))
    return Dataset.from_dict({"text": [f"t{n}" for n in numbers], "label": list(labels), "line": numbers})


def test_some_items_have_the_shares_of_all_and_every_class() -> None:
    chosen = some_of(items("a" * 300 + "b" * 99 + "c"), 41, seed=0)
    counts = Counter(column(chosen, "label"))
    assert sum(counts.values()) == 41
    assert counts["c"] == 1
    assert 29 <= counts["a"] <= 31
    assert column(chosen, "line") == sorted(set(column(chosen, "line")))


def test_wanted_items_are_among_them_and_few_are_all_taken() -> None:
    always = np.array([7, 11, 13])
    chosen = column(some_of(items("ab" * 20), 6, 0, always), "line")
    assert {0, 1, 7, 11, 13} <= set(chosen)
    assert len(chosen) == 6
    assert column(some_of(items("ab" * 3), 100, 0), "line") == list(range(6))


def test_more_classes_than_items_are_wanted() -> None:
    assert len(some_of(items("abcdefgh" * 2), 3, 0)) == 8


def test_the_same_seed_chooses_the_same_items() -> None:
    first, again, other = (column(some_of(items("ab" * 50), 20, seed), "line") for seed in (1, 1, 2))
    assert first == again != other


def test_the_largest_step_of_the_run_is_among_the_training_items(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(training={"batch_size": 2})
    splits = load_splits(config.data, 0)
    plan = plan_of(config, splits, prepare(config, splits.labels, None).backbone)
    small = miniature_splits(splits, plan, config)
    largest = plan.epoch.batches[int(plan.epoch.tokens.argmax())]
    lines = column(splits.train, "line")
    assert {lines[i] for i in largest} <= set(column(small.train, "line"))
    assert len(small.train) == 16  # 8 batches of 2
    assert len(small.validation) <= PART
    assert len(small.test) <= PART
    assert (small.labels, len(splits.train)) == (splits.labels, 38)


def test_what_an_earlier_run_has_seen_is_thinned_out_too(make_config: MakeConfig) -> None:
    config = make_config(training={"batch_size": 2})
    splits = load_splits(config.data, 0)
    plan = plan_of(config, splits, prepare(config, splits.labels, None).backbone)
    earlier = splits.train.add_column("part", ["train"] * len(splits.train))
    seen = Splits(splits.train, splits.validation, splits.test, splits.labels, {}, earlier)
    thinned = miniature_splits(seen, plan, config).earlier
    assert thinned is not None
    assert len(thinned) == 16


def test_the_recipe_is_kept_but_for_what_would_make_it_long(make_config: MakeConfig) -> None:
    training = {"epochs": 30, "patience": 2, "checkpoint_steps": 5, "accumulation": 4}
    config = make_config(training=training, evaluation={"learning_curve": "auto", "bootstrap": 222})
    small = miniature_config(config)
    assert (small.training.epochs, small.training.patience, small.training.checkpoint_steps) == (2, None, None)
    assert (small.training.accumulation, small.training.batch_size, small.evaluation.bootstrap) == (4, 8, 222)
    assert small.evaluation.learning_curve == ()
    assert config.training.epochs == 30


def test_a_watch_passes_the_users_answer_on_and_notes_when_it_was_asked(tmp_path: Path) -> None:
    answers = iter([False, True])
    watch = Watch(lambda: next(answers), RunDirectory(tmp_path / "run"))
    assert [watch.stop(), watch.stop()] == [False, True]
    assert len(watch.asked) == 2
    assert watch.asked[0] <= watch.asked[1]


def test_an_error_among_the_events_passes(tmp_path: Path) -> None:
    def events() -> Iterator[Event]:
        yield Stage("data", "x")
        raise ValueError("on the way")

    watch = Watch(lambda: False, RunDirectory(tmp_path / "run"))
    with pytest.raises(ValueError, match="on the way"):
        watch.follow(events())
    assert [event for _, event in watch.came] == [Stage("data", "x")]
    assert len(watch.times(Stage, "data")) == 1
    assert watch.times(Stage, "other") == []
