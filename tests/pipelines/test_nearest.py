"""Nearest training items: an item is nearest to itself; few items, no texts, long texts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from datasets import Dataset

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.nearest import LONGEST, nearest_items
from tests.toys import tiny_backbone, toy_rows

ITEMS = Dataset.from_list([row | {"id": str(number)} for number, row in enumerate(toy_rows(20))])
TEXTS = [row["text"] for row in toy_rows(20)]


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    return load_text_backbone(BackboneConfig(name=str(tiny_backbone(tmp_path / "b"))), ("calm", "harsh"), 64, seed=0)


def test_a_training_item_is_nearest_to_itself_and_others_follow_by_likeness(backbone: Backbone) -> None:
    found = nearest_items(backbone, ITEMS, TEXTS[:4], "fp32")
    assert [own[0]["id"] for own in found] == ["0", "1", "2", "3"]
    assert all(own[0]["similarity"] == pytest.approx(1, abs=1e-3) for own in found)
    assert all(a["similarity"] >= b["similarity"] for own in found for a, b in pairwise(own))
    assert [own[0]["label"] for own in found] == ["calm", "harsh", "calm", "harsh"]


def test_the_store_changes_nothing(backbone: Backbone, tmp_path: Path) -> None:
    store = ActivationStore(tmp_path / "store", 1 << 30)
    kept = nearest_items(backbone, ITEMS, TEXTS[:4], "fp32", store)
    assert [[i["id"] for i in own] for own in kept] == [
        [i["id"] for i in own] for own in nearest_items(backbone, ITEMS, TEXTS[:4], "fp32")
    ]


def test_fewer_items_than_wanted_and_no_texts_are_fine(backbone: Backbone) -> None:
    assert len(nearest_items(backbone, ITEMS.select([5]), TEXTS[:2], "fp32")[0]) == 1
    assert nearest_items(backbone, ITEMS, [], "fp32") == []
    assert nearest_items(backbone, ITEMS.select([]), TEXTS[:2], "fp32") == [[], []]


def test_long_texts_are_shown_by_their_beginning(backbone: Backbone) -> None:
    long = Dataset.from_list([{"id": "a", "text": "the owl " * 200, "label": "calm"}])
    assert len(nearest_items(backbone, long, ["the owl"], "fp32")[0][0]["text"]) == LONGEST
