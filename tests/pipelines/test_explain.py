"""`explain` as a whole: what it finds in a planted run, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.attributions import CAVEAT, GAP
from pipelines.errors import ConfigError, Interrupted, RunDirectoryError
from pipelines.explain import FEATURES, explain
from pipelines.records import Event, Explained, Explanation
from service.cli import app
from tests.runs import TFIDF, planted_run, report
from tests.toys import TRIGGER, planted_rows, write_csv

MANUAL, EMBEDDINGS = "logistic-regression-manual", "logistic-regression-embeddings"
HOSTILE = "<script>alert(1)</script> {{ 7 * 7 }} \u202ethen\u200f & the \"cat\" 'sleeps'"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("explain"), baselines=["majority", MANUAL, TFIDF, EMBEDDINGS])


def explained(events: list[Event]) -> tuple[list[dict[str, Any]], Explained]:
    last = events[-1]
    assert isinstance(last, Explained)
    return [event.item for event in events if isinstance(event, Explanation)], last


def words(item: dict[str, Any], opinion: str) -> dict[str, float]:
    return {word["word"]: word[opinion] for word in item["words"]}


def test_a_planted_word_moved_the_model_and_decided_the_regression(planted: Path, tmp_path: Path) -> None:
    rows = [row for row in planted_rows(40, seed=4) if row["label"] == "planted"]
    items, last = explained(list(explain(planted, file=write_csv(tmp_path / "t.csv", rows), limit=10)))
    assert [item["text"] for item in items] == [row["text"] for row in rows[:10]]
    right = [item for item in items if item["predicted"] == "planted"]
    assert len(right) >= 9
    for opinion in ("attribution", "occlusion"):
        assert sum(max(words(item, opinion), key=words(item, opinion).__getitem__) == TRIGGER for item in right) >= 9
    for item in items:
        assert item["label"] == "planted"
        added = sum(word["attribution"] for word in item["words"])
        assert added == pytest.approx(sum(token["attribution"] for token in item["tokens"]), abs=1e-4)
        assert abs(added - (item["score"] - item["reference"])) == pytest.approx(item["gap"], abs=1e-4)
        for word in item["words"]:
            assert item["text"][word["start"] : word["end"]] == word["word"]
        (tfidf,) = [own for own in item["regressions"] if own["name"] == TFIDF]
        assert len(tfidf["features"]) == FEATURES
        if tfidf["predicted"] == "planted":
            assert tfidf["features"][0]["name"] == f"words: {TRIGGER}"
    assert last.summary["complete"] == last.summary["explained"] == 10
    assert last.summary["same_top_word"] >= 9
    assert last.summary["tolerance"] == GAP
    assert last.path is None


def test_by_default_it_explains_what_the_report_lists(planted: Path) -> None:
    listed = report(planted)["mistakes"]
    items, _ = explained(list(explain(planted)))
    wrong = [item for item in items if "surest errors" in item["why"]]
    assert [item["id"] for item in wrong] == [entry["id"] for entry in listed["worst_errors"]]
    assert {item["id"] for item in items} == {
        entry["id"] for entries in listed.values() if isinstance(entries, list) for entry in entries
    }
    assert all(item["predicted"] != item["label"] for item in wrong)


def test_every_regression_is_there_and_embeddings_name_no_dimension(planted: Path) -> None:
    (item,), _ = explained(list(explain(planted, texts=[f"the cat {TRIGGER} sleeps"])))
    regressions = {own["name"]: own for own in item["regressions"]}
    assert list(regressions) == [MANUAL, TFIDF, EMBEDDINGS]
    assert [name for name, own in regressions.items() if own["rival"]] == [report(planted)["verdict"]["rival"]]
    assert regressions[EMBEDDINGS]["features"] == []
    assert regressions[EMBEDDINGS]["note"] == "a dimension of an embedding has no meaning of its own, so none is named"
    assert regressions[MANUAL]["features"][0]["name"]
    assert item["label"] is None


def test_page_and_json_are_written_with_the_caveat_and_hostile_text_is_text(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    items, last = explained(list(explain(planted, out, [HOSTILE, "a " * 100])))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert {path.name for path in out.iterdir()} == {"explain.html", "explain.json", "manifest.json"}
    saved = json.loads((out / "explain.json").read_text(encoding="utf-8"))
    assert saved == json.loads(json.dumps(last.summary | {"items": items}))
    assert saved["caveat"] == CAVEAT
    assert "not a cause" in CAVEAT
    page = (out / "explain.html").read_text(encoding="utf-8")
    assert CAVEAT in page
    assert "<script" not in page
    assert "&lt;" in page
    assert "49" not in page.split('class="read"')[1].split("</p>")[0]
    assert "http" not in page.replace("http-equiv", "")
    assert "The model did not read the last 38 tokens" in page
    assert items[1]["cut_tokens"] == 38
    assert page.count("<section") == page.count("</section>") == 3
    with pytest.raises(RunDirectoryError, match="choose another --out"):
        list(explain(planted, out))


def test_the_same_again_gives_the_same_bytes(planted: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        list(explain(planted, tmp_path / name, [f"the cat {TRIGGER} sleeps"]))
    for file in ("explain.json", "explain.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_asked_to_stop_it_keeps_nothing(planted: Path, tmp_path: Path) -> None:
    asked = iter(range(10))
    with pytest.raises(Interrupted, match="nothing was kept"):
        list(explain(planted, tmp_path / "out", ["a", "b", "c"], stop=lambda: next(asked) == 2))
    assert list(tmp_path.iterdir()) == []


def test_bad_calls_are_refused_before_anything_is_loaded(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="nowhere: no such directory"):
        list(explain(tmp_path / "nowhere"))
    with pytest.raises(RunDirectoryError, match=r"not a complete run directory \(manifest\.json is missing\)"):
        list(explain(planted / "model"))
    with pytest.raises(ConfigError, match="found both"):
        list(explain(planted, texts=["a"], file=tmp_path / "t.csv"))


def test_the_command_says_a_line_for_every_item_and_what_it_is_not(planted: Path) -> None:
    done = CliRunner().invoke(app, ["explain", str(planted), "--text", f"the {TRIGGER} sleeps", "--text", "the dog"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    (first,) = [line for line in lines if line.startswith("  text 1: planted ")]
    assert f": {TRIGGER} +" in first
    assert any(line.startswith("  text 2: plain ") for line in lines)
    assert any(line.startswith("words add up to the change of the score within 5% in 2 of 2") for line in lines)
    assert CAVEAT in lines
    assert "--out DIR writes a page with all words, and JSON" in lines


@pytest.mark.slow
def test_the_embedded_backbone_adds_up_on_real_texts_and_finds_a_planted_word(tmp_path: Path) -> None:
    """Texts of the demo, about 60 tokens each; half of them hold a word that tells the class, at a random place."""
    from importlib.resources import files

    from pipelines.config import parse_config
    from pipelines.run import finetune

    lines = (files("pipelines") / "examples/brand_safety/general.jsonl").read_text(encoding="utf-8").splitlines()
    rng = np.random.default_rng(0)
    rows = []
    for number, line in enumerate(lines[:260]):
        told, planted = json.loads(line)["text"].split(), bool(number % 2)
        if planted:
            told.insert(int(rng.integers(0, len(told) + 1)), "heliotrope")
        rows.append({"text": " ".join(told), "label": "planted" if planted else "plain"})
    for name, part in (("train", rows[:220]), ("test", rows[220:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    data = {"train": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")}
    raw = {
        "task": "text-classification",
        "data": data | {"text": "text", "label": "label"},
        "backbone": {"freeze": 2},
        "training": {"epochs": 4, "precision": "fp32"},
        "baselines": ["majority"],
    }
    list(finetune(parse_config(raw), tmp_path / "run"))
    items, last = explained(list(explain(tmp_path / "run", file=tmp_path / "test.jsonl", limit=40)))
    gaps = np.array([item["gap"] / abs(item["score"] - item["reference"]) for item in items])
    planted_items = [item for item in items if item["label"] == "planted"]
    top = [max(item["words"], key=lambda word: word["attribution"])["word"] for item in planted_items]
    added_up, first = np.mean(gaps <= GAP), np.mean(np.array(top) == "heliotrope")
    print(f"within 5%: {added_up:.1%} of {len(items)}; planted word first: {first:.1%} of {len(top)}; {last.summary}")
    assert added_up >= 0.95
    assert first >= 0.95
