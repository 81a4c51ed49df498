"""The authored example, and the demo that runs on it in two stages."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from pipelines.config import RunConfig
from pipelines.data import load_splits
from pipelines.demo import client_config, demo, general_config
from pipelines.duplicates import near_duplicate_pairs, normalise
from pipelines.errors import Interrupted, RunDirectoryError
from pipelines.records import Finished, Stage, column
from tests.runs import report
from tests.toys import tiny_backbone

FOLDER = Path(str(files("pipelines"))) / "examples" / "brand_safety"
FILES = ("general", "client_train", "client_test")
FEWEST = {"general": 500, "client_train": 400, "client_test": 400}
FROZEN = "0af5670bd08567e4d99d7c01f852c581f913ddc1acea0865aae153721666031f"  # sha256 of client_test.jsonl
SUITABLE = {"report", "educate", "fiction", "humour"}
UNSUITABLE = {"promote", "glorify", "attack"}
CONTENT_TYPES = ("article", "caption", "video description")

Items = list[dict[str, Any]]


def read(name: str) -> Items:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest) -> tuple[str, Items]:
    """Name and items of each file in turn."""
    return request.param, read(request.param)


def pairs_of(items: Items) -> dict[str, Items]:
    pairs: dict[str, Items] = {}
    for item in items:
        if item["pair_id"]:
            pairs.setdefault(item["pair_id"], []).append(item)
    return pairs


# ---- the data


def test_every_column_has_an_allowed_value(file: tuple[str, Items]) -> None:
    name, items = file
    assert len(items) >= FEWEST[name]
    rule = () if name == "general" else ("rule",)
    columns = ("id", "text", "label", "category", "content_type", "stance", *rule, "pair_id")
    assert {tuple(item) for item in items} == {columns}
    assert len({item["id"] for item in items}) == len(items)
    for item in items:
        assert item["label"] in ("suitable", "unsuitable")
        assert item["content_type"] in CONTENT_TYPES
        assert 5 <= len(item["text"].split()) <= 100
        assert "\n" not in item["text"]


def test_ids_and_pairs_of_one_file_are_not_in_another() -> None:
    for key in ("id", "pair_id"):
        values = [{item[key] for item in read(name)} - {""} for name in FILES]
        assert all(a.isdisjoint(b) for a, b in combinations(values, 2))


def test_every_category_content_type_and_stance_is_in_every_file(file: tuple[str, Items]) -> None:
    _, items = file
    assert {item["category"] for item in items} == {item["category"] for item in read("general")}
    assert len({item["category"] for item in items}) == 12
    assert {item["content_type"] for item in items} == set(CONTENT_TYPES)
    assert {item["stance"] for item in items} == SUITABLE | UNSUITABLE


def test_both_labels_are_common_in_every_file(file: tuple[str, Items]) -> None:
    labels = Counter(item["label"] for item in file[1])
    assert min(labels.values()) >= 0.4 * len(file[1])


def test_under_the_general_standard_the_stance_decides(file: tuple[str, Items]) -> None:
    """Praising and selling what is harmless is no harm."""
    by_standard = [item for item in file[1] if item.get("rule", 0) == 0]
    assert len(by_standard) >= 60
    for item in by_standard:
        harm = item["stance"] in UNSUITABLE and item["category"] != "harmless"
        assert item["label"] == ("unsuitable" if harm else "suitable"), item["id"]


@pytest.mark.parametrize("name", ["client_train", "client_test"])
def test_every_rule_of_the_client_is_there_with_both_labels(name: str) -> None:
    found = Counter((item["rule"], item["label"]) for item in read(name))
    assert {rule for rule, _ in found} == set(range(9))
    for rule in range(9):
        assert min(found[rule, "suitable"], found[rule, "unsuitable"]) >= 5, rule


@pytest.mark.parametrize("name", ["client_train", "client_test"])
def test_the_client_differs_from_the_general_standard_in_both_directions(name: str) -> None:
    """Rules 1 to 4 and 8 are stricter, 5 to 7 and an exception of 4 looser."""
    items = read(name)
    stricter = {i["rule"] for i in items if i["label"] == "unsuitable" and i["stance"] in SUITABLE}
    looser = {i["rule"] for i in items if i["label"] == "suitable" and i["stance"] in UNSUITABLE}
    assert {1, 2, 3, 4, 8} <= stricter
    assert {4, 5, 6, 7} <= looser


def test_contrast_pairs_differ_in_their_label_alone(file: tuple[str, Items]) -> None:
    pairs = pairs_of(file[1])
    for name, pair in pairs.items():
        assert sorted(item["label"] for item in pair) == ["suitable", "unsuitable"], name
        assert len({(item["category"], item["content_type"]) for item in pair}) == 1, name
    assert 2 * len(pairs) >= 0.4 * len(file[1])


def test_items_are_distinct_and_not_filled_templates(file: tuple[str, Items]) -> None:
    texts = [item["text"] for item in file[1]]
    assert len({normalise(text) for text in texts}) == len(texts)
    openings = Counter(" ".join(normalise(text).split()[:4]) for text in texts)
    assert openings.most_common(1)[0][1] == 1


def test_no_item_is_a_near_duplicate_of_another_in_any_file() -> None:
    texts = [item["text"] for name in FILES for item in read(name)]
    assert near_duplicate_pairs(texts) == []
    assert near_duplicate_pairs([*texts, texts[600] + " Too."]) == [(600, len(texts))]


def test_length_does_not_give_the_label_away(file: tuple[str, Items]) -> None:
    items = file[1]
    lengths = [len(item["text"].split()) for item in items]
    assert roc_auc_score([item["label"] == "unsuitable" for item in items], lengths) == pytest.approx(0.5, abs=0.05)
    for kind in CONTENT_TYPES:
        means = [
            sum(own) / len(own)
            for label in ("suitable", "unsuitable")
            if (own := [len(i["text"].split()) for i in items if (i["label"], i["content_type"]) == (label, kind)])
        ]
        assert abs(means[0] - means[1]) < 0.1 * means[0]


def test_the_client_test_part_is_the_one_that_was_frozen() -> None:
    assert hashlib.sha256((FOLDER / "client_test.jsonl").read_bytes()).hexdigest() == FROZEN
    assert FROZEN[:12] in (FOLDER / "DATA_CARD.md").read_text(encoding="utf-8")


def test_the_data_card_states_the_counts(file: tuple[str, Items]) -> None:
    name, items = file
    labels = Counter(item["label"] for item in items)
    card = (FOLDER / "DATA_CARD.md").read_text(encoding="utf-8")
    row = next(line for line in card.splitlines() if f"`{name}.jsonl`" in line and line.startswith("|"))
    facts = [len(items), labels["suitable"], labels["unsuitable"], len(pairs_of(items))]
    assert [int(cell) for cell in row.split("|") if cell.strip().isdigit()] == facts
    assert f"{sum(len(read(each)) for each in FILES):,}" in card


@pytest.mark.parametrize("stage", ["general", "client"])
def test_a_contrast_pair_lies_whole_in_one_part(stage: str) -> None:
    config = general_config(FOLDER) if stage == "general" else client_config(FOLDER, Path("general"))
    splits = load_splits(config.data, seed=0)
    pair_of = {item["text"]: item["pair_id"] for name in FILES for item in read(name)}
    held = [
        {pair_of[text] for text in column(part, "text")} - {""}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert all(held)
    assert all(a.isdisjoint(b) for a, b in combinations(held, 2))
    if stage == "general":
        assert len(splits.test) == pytest.approx(0.2 * 531, abs=12)
    else:
        assert column(splits.test, "text") == [item["text"] for item in read("client_test")]
        assert splits.counts["dropped_from_train"] == 0


# ---- the demo


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where to put a demo whose both stages use a tiny backbone and the fewest baselines."""
    tiny = tiny_backbone(tmp_path / "tiny")

    def small(config: RunConfig) -> RunConfig:
        training = config.training.model_copy(update={"epochs": 1, "precision": "fp32", "trackers": ()})
        evaluation = config.evaluation.model_copy(update={"bootstrap": 100, "learning_curve": (0.25,)})
        changes = {"training": training, "evaluation": evaluation, "baselines": ("majority",)}
        if config.start_from is None:
            changes |= {"backbone": config.backbone.model_copy(update={"name": str(tiny), "freeze": 1})}
        return config.model_copy(update=changes)

    monkeypatch.setattr("pipelines.demo.general_config", lambda folder: small(general_config(folder)))
    monkeypatch.setattr("pipelines.demo.client_config", lambda folder, run: small(client_config(folder, run)))
    return tmp_path / "demo"


def test_the_configs_are_complete_and_differ_where_they_should(tmp_path: Path) -> None:
    general, client = general_config(FOLDER), client_config(FOLDER, tmp_path / "general")
    assert general.data.train.path.is_file()
    assert client.data.train.path.name == "client_train.jsonl"
    assert not isinstance(client.data.test, float)
    assert client.data.test.path.is_file()
    assert (general.start_from, client.start_from) == (None, tmp_path / "general")
    assert general.evaluation.positive == client.evaluation.positive == "unsuitable"
    assert client.data.slices == (*general.data.slices, "rule")
    assert client.evaluation.learning_curve
    assert general.baselines == client.baselines
    assert len(client.baselines) == 4
    assert "name" not in client.backbone.model_fields_set


def test_demo_leaves_the_clients_report_on_top_and_replaces_an_earlier_one(quick: Path) -> None:
    (quick / "stages/client").mkdir(parents=True)
    (quick / "stages/client/old").write_text("of an earlier demo")
    (quick / "report.json").write_text("of an earlier demo")
    events = list(demo(quick))
    assert [event for event in events if isinstance(event, Finished)] == [events[-1]]
    assert events[-1] == Finished(quick, report(quick)["verdict"]["sentence"])
    stages = [event.name for event in events if isinstance(event, Stage)]
    assert (stages[0], stages.index("client")) == ("general", stages.index("data", 2) - 1)
    assert {path.name for path in quick.iterdir()} == {"report.json", "report.html", "stages"}
    assert {path.name for path in (quick / "stages").iterdir()} == {"general", "client"}
    assert not (quick / "stages/client/old").exists()
    for name in ("report.json", "report.html"):
        assert (quick / name).read_bytes() == (quick / "stages/client" / name).read_bytes()
    found = report(quick)
    assert [entry["name"] for entry in found["systems"]] == ["majority", "fine-tuned", "fine-tuned-client"]
    assert (found["positive"], found["n_test"]) == ("unsuitable", 408)
    assert found["start_from"] == {"name": "general", "system": "fine-tuned"}
    assert {row["column"] for row in found["slices"]["rows"]} >= {"category", "content_type", "stance", "rule"}
    assert len(found["learning_curve"]["curves"][0]["points"]) == 2


def test_a_stopped_demo_can_be_replaced(quick: Path) -> None:
    for _ in range(2):
        asked = iter(range(10_000))
        with pytest.raises(Interrupted):
            list(demo(quick, stop=lambda asked=asked: next(asked) == 3))  # type: ignore[misc]
        assert {path.name for path in (quick / "stages").iterdir()} == {"general.partial"}
        assert not (quick / "report.json").exists()


def test_demo_does_not_replace_what_is_no_demo(tmp_path: Path) -> None:
    (tmp_path / "thesis/stages").mkdir(parents=True)
    (tmp_path / "thesis/stages/chapter.tex").write_text("years of work")
    with pytest.raises(RunDirectoryError, match="exists and is not an earlier demo"):
        list(demo(tmp_path / "thesis"))
    assert (tmp_path / "thesis/stages/chapter.tex").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="exists and is not an earlier demo"):
        list(demo(tmp_path / "file"))
