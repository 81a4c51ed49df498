"""The authored example, and the demo that runs on it."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.demo import demo, example_config
from pipelines.duplicates import near_duplicate_pairs, normalise
from pipelines.errors import RunDirectoryError
from pipelines.records import Finished, column
from tests.toys import tiny_backbone

FOLDER = Path(str(files("pipelines"))) / "examples" / "brand_safety"
SUITABLE = {"report", "educate", "fiction", "humour"}
UNSUITABLE = {"promote", "glorify", "attack"}


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    lines = (FOLDER / "general.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_column_has_an_allowed_value(items: list[dict[str, Any]]) -> None:
    assert len(items) >= 300
    assert {tuple(item) for item in items} == {("id", "text", "label", "category", "content_type", "stance", "pair_id")}
    assert len({item["id"] for item in items}) == len(items)
    for item in items:
        assert item["stance"] in (SUITABLE if item["label"] == "suitable" else UNSUITABLE), item["id"]
        assert item["content_type"] in ("article", "caption", "video description")
        assert 5 <= len(item["text"].split()) <= 100
        assert "\n" not in item["text"]
    assert len({item["category"] for item in items}) == 12


def test_half_of_the_items_are_contrast_pairs(items: list[dict[str, Any]]) -> None:
    pairs: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        if item["pair_id"]:
            pairs.setdefault(item["pair_id"], []).append(item)
    assert 2 * len(pairs) >= len(items) / 2
    for name, pair in pairs.items():
        assert sorted(item["label"] for item in pair) == ["suitable", "unsuitable"], name
        assert len({(item["category"], item["content_type"]) for item in pair}) == 1, name


def test_items_are_distinct_and_not_filled_templates(items: list[dict[str, Any]]) -> None:
    texts = [item["text"] for item in items]
    assert len({normalise(text) for text in texts}) == len(texts)
    assert near_duplicate_pairs(texts) == []
    openings = Counter(" ".join(normalise(text).split()[:4]) for text in texts)
    assert openings.most_common(1)[0][1] == 1


def test_length_does_not_give_the_label_away(items: list[dict[str, Any]]) -> None:
    for kind in ("article", "caption", "video description"):
        means = [
            sum(lengths) / len(lengths)
            for label in ("suitable", "unsuitable")
            if (lengths := [len(i["text"].split()) for i in items if (i["label"], i["content_type"]) == (label, kind)])
        ]
        assert abs(means[0] - means[1]) < 0.1 * means[0]


def test_the_data_card_states_the_counts(items: list[dict[str, Any]]) -> None:
    card = (FOLDER / "DATA_CARD.md").read_text(encoding="utf-8")
    labels = Counter(item["label"] for item in items)
    pairs = len({item["pair_id"] for item in items} - {""})
    for fact in (
        f"{len(items)} short",
        f"`suitable` ({labels['suitable']})",
        f"({labels['unsuitable']})",
        f"{pairs} contrast",
    ):
        assert fact in card


def test_a_contrast_pair_lies_whole_in_one_part() -> None:
    splits = load_splits(example_config(FOLDER).data, seed=0)
    groups = [set(column(part, "group")) for part in (splits.train, splits.validation, splits.test)]
    assert all(a.isdisjoint(b) for a, b in combinations(groups, 2))
    assert len(splits.test) == pytest.approx(0.2 * 531, abs=12)


def small(folder: Path, backbone: Path) -> RunConfig:
    """The example's config on a tiny backbone."""
    config = example_config(folder)
    training = config.training.model_copy(update={"epochs": 1, "precision": "fp32", "trackers": ()})
    named = config.backbone.model_copy(update={"name": str(backbone), "freeze": 1})
    return config.model_copy(update={"backbone": named, "training": training, "baselines": ("majority",)})


def test_demo_leaves_the_report_on_top_and_replaces_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_backbone(tmp_path / "tiny")
    monkeypatch.setattr("pipelines.demo.example_config", lambda _: small(FOLDER, tiny))
    out = tmp_path / "demo"
    for _ in range(2):
        events = list(demo(out))
        assert events[-1] == Finished(out, events[-1].sentence)  # type: ignore[attr-defined]
        assert {p.name for p in out.iterdir()} == {"report.json", "report.html", "stages"}
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        assert report["systems"][-1]["name"] == "fine-tuned"
        assert report["positive"] == "unsuitable"


def test_demo_does_not_replace_what_is_no_demo(tmp_path: Path) -> None:
    (tmp_path / "thesis/stages").mkdir(parents=True)
    (tmp_path / "thesis/stages/chapter.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="exists and is not an earlier demo"):
        list(demo(tmp_path / "thesis"))
    assert (tmp_path / "thesis/stages/chapter.tex").is_file()
