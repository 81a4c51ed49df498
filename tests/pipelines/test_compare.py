"""Finished runs on any labelled file: the same figures as their own reports, and nothing that they have seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from pipelines import durable
from pipelines.compare import compare
from pipelines.errors import ConfigError, DataError, Interrupted, RunDirectoryError
from pipelines.records import Event, Finished, Stage
from tests import runs
from tests.runs import TFIDF, client_config, first_run, report, system, table, without_times
from tests.toys import toy_rows, write_csv


@pytest.fixture(scope="module", autouse=True)
def fp32() -> Any:
    """`compare` scores in the precision that is fast here; the runs are in fp32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.device.best_precision", lambda: "fp32")
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    baselines = ["majority", TFIDF, "logistic-regression-embeddings"]
    return first_run(folder, data={"slices": ["kind"]}, baselines=baselines)


@pytest.fixture(scope="module")
def second(first: Path) -> Path:
    """Continues `first`."""
    runs.run(client_config(first.parent, first), first.parent / "second")
    return first.parent / "second"


@pytest.fixture(scope="module")
def other(first: Path) -> Path:
    """Another run whose directory is called `first` too; it knows a class more."""
    folder = first.parent / "other"
    folder.mkdir()
    rows = [row | {"label": "bees"} if i % 5 == 0 else row for i, row in enumerate(toy_rows(60, seed=8))]
    write_csv(folder / "toy.csv", rows)
    return first_run(folder, backbone={"name": str(first.parent / "tiny")}, baselines=["majority"])


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A labelled file that no run has seen."""
    return write_csv(tmp_path / "fresh.csv", toy_rows(30, seed=9))


def scored(model_dirs: list[Path], data: Path, out: Path, curve: bool = False, **options: Any) -> list[Event]:
    return list(compare(model_dirs, data, out, curve=curve, **options))


def names(path: Path) -> list[str]:
    return [entry["name"] for entry in report(path)["systems"]]


# ---- one run


def test_on_the_runs_own_data_the_report_is_the_same(first: Path, tmp_path: Path) -> None:
    """What it was trained and validated on is left out, so its test part remains."""
    events = scored([first], first.parent / "toy.csv", tmp_path / "out")
    own, found = without_times(report(first)), without_times(report(tmp_path / "out"))
    assert names(tmp_path / "out") == ["majority", TFIDF, "logistic-regression-embeddings", "fine-tuned"]
    assert found.pop("provenance")["kind"] == "comparison"
    assert found.pop("data") == {"read": 60, "left_out_because_seen_by_a_model": 48, "test": 12}
    assert table(tmp_path / "out")["text"] == table(first)["text"]
    assert set(own) - set(found) == {"data", "data_check", "hidden_layers", "training", "provenance"}
    for name in ("worst_errors", "only_rival_right", "only_fine_tuned_right"):  # a run looks deeper into its items
        for item in own["mistakes"][name]:
            assert item.pop("nearest")
    assert found == {key: own[key] for key in found}
    assert events[-1] == Finished(tmp_path / "out", own["verdict"]["sentence"])


def test_scores_can_be_recomputed_from_the_predictions(first: Path, fresh: Path, tmp_path: Path) -> None:
    scored([first], fresh, tmp_path / "out")
    found = table(tmp_path / "out")
    assert found["label"] == [row["label"] for row in toy_rows(30, seed=9)]
    for name in names(tmp_path / "out"):
        metrics = system(tmp_path / "out", name)["metrics"]
        assert metrics["accuracy"] == pytest.approx(accuracy_score(found["label"], found[name]))
        expected = f1_score(found["label"], found[name], average="macro", zero_division=0)
        assert metrics["macro_f1"] == pytest.approx(expected)
    assert report(tmp_path / "out")["n_test"] == 30


def test_the_directory_is_complete_and_says_which_models_it_is_about(first: Path, fresh: Path, tmp_path: Path) -> None:
    scored([first], fresh, tmp_path / "runs/out")
    out = tmp_path / "runs/out"
    assert {path.name for path in out.iterdir()} == {
        "report.json", "report.html", "predictions.parquet", "manifest.json",
    }  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    manifest = durable.verify(out)
    assert manifest["kind"] == "comparison"
    digest = durable.read_manifest(first)["sha256"]["model/model.safetensors"]
    assert manifest["models"] == [{"name": "first", "sha256": digest}]


def test_the_first_run_is_not_touched(first: Path, fresh: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    scored([first], fresh, tmp_path / "out")
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_seen_items_and_their_near_duplicates_are_left_out_and_counted(first: Path, tmp_path: Path) -> None:
    seen = table(first, "training_items")["text"]
    long = max(seen, key=len)
    rows = toy_rows(30, seed=9)
    rows[3]["text"], rows[10]["text"], rows[20]["text"] = seen[0].upper() + "!", seen[-1], long + " a"
    write_csv(tmp_path / "some.csv", rows)
    scored([first], tmp_path / "some.csv", tmp_path / "out")
    counts = report(tmp_path / "out")["data"]
    assert counts == {"read": 30, "left_out_because_seen_by_a_model": 3, "test": 27}
    kept = [row["text"] for number, row in enumerate(rows) if number not in (3, 10, 20)]
    assert table(tmp_path / "out")["text"] == kept


def test_a_file_of_seen_items_only_is_refused(first: Path, tmp_path: Path) -> None:
    seen = table(first, "training_items")
    rows = [{"text": seen["text"][i], "label": seen["label"][i]} for i in range(10)]
    path = write_csv(tmp_path / "seen.csv", rows)
    with pytest.raises(
        DataError, match=r"seen\.csv: the models have seen every item in training; give a file with new"
    ):
        scored([first], path, tmp_path / "out")


def test_an_unknown_label_is_refused_with_its_line(first: Path, tmp_path: Path) -> None:
    rows = toy_rows(10, seed=9)
    rows[4]["label"] = "odd"
    path = write_csv(tmp_path / "odd.csv", rows)
    with pytest.raises(DataError) as caught:
        scored([first], path, tmp_path / "out")
    assert (
        str(caught.value)
        == f"{path}, line 6: no model knows the label 'odd'; they know: calm, harsh; correct the row or remove it"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["odd.csv"]


def test_columns_may_be_called_otherwise_and_slices_may_be_missing(first: Path, tmp_path: Path) -> None:
    rows = [{"tweet": row["text"], "class": row["label"]} for row in toy_rows(30, seed=9)]
    path = write_csv(tmp_path / "renamed.csv", rows)
    with pytest.raises(DataError, match=r"no column 'text' .*columns found: tweet, class"):
        scored([first], path, tmp_path / "out")
    scored([first], path, tmp_path / "out", columns={"text": "tweet", "label": "class"})
    scored([first], write_csv(tmp_path / "fresh.csv", toy_rows(30, seed=9)), tmp_path / "sliced")
    bare, sliced = report(tmp_path / "out"), report(tmp_path / "sliced")
    assert bare["systems"][-1]["metrics"] == sliced["systems"][-1]["metrics"]
    assert "kind" not in json.dumps(bare["slices"])
    assert "kind" in json.dumps(sliced["slices"])


# ---- the learning curve


def test_the_learning_curve_trains_on_the_runs_own_items(first: Path, fresh: Path, tmp_path: Path) -> None:
    """38 training items: 1/8, 1/4 and 1/2 of them, then all."""
    scored([first], fresh, tmp_path / "out", curve=True)
    found = report(tmp_path / "out")["learning_curve"]["curves"]
    rival = report(tmp_path / "out")["verdict"]["rival"]
    assert [curve["system"] for curve in found] == ["fine-tuned", rival]
    for curve in found:
        assert [point["items"] for point in curve["points"]] == [5, 10, 19, 38]
        assert curve["points"][-1]["macro_f1"] == system(tmp_path / "out", curve["system"])["metrics"]["macro_f1"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.json", "report.html", "predictions.parquet", "manifest.json",
    }  # fmt: skip


def test_without_the_learning_curve_nothing_is_trained(
    first: Path, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pipelines.tune.train", trained)
    scored([first], fresh, tmp_path / "out", curve=False)
    assert "learning_curve" not in report(tmp_path / "out")


def test_a_run_whose_start_is_gone_has_no_learning_curve(second: Path, fresh: Path, tmp_path: Path) -> None:
    first = second.with_name("first")
    first.rename(first.with_name("away"))
    try:
        events = scored([second], fresh, tmp_path / "out", curve=True)
    finally:
        first.with_name("away").rename(first)
    told = [event.message for event in events if isinstance(event, Stage) and event.name == "learning curve"]
    assert told == [f"left out: {first}: no such directory"]
    assert report(tmp_path / "out")["no_learning_curve"].endswith(f"is gone: {first}: no such directory")
    assert "learning_curve" not in report(tmp_path / "out")
    assert names(tmp_path / "out") == ["majority", TFIDF, f"{TFIDF}-client", "fine-tuned-client"]


def test_the_curve_of_a_continued_run_starts_from_the_run_before(second: Path, fresh: Path, tmp_path: Path) -> None:
    scored([second], fresh, tmp_path / "out", curve=True)
    found = report(tmp_path / "out")
    assert [curve["system"] for curve in found["learning_curve"]["curves"]] == [
        "fine-tuned-client", f"{TFIDF}-client",
    ]  # fmt: skip
    assert [point["items"] for point in found["learning_curve"]["curves"][1]["points"]] == [4, 8, 16, 32]
    assert found["start_from"] == {"name": "first", "system": "fine-tuned"}


# ---- several runs


def test_systems_of_several_runs_are_told_apart_by_their_directories(
    first: Path, second: Path, fresh: Path, tmp_path: Path
) -> None:
    scored([second, first], fresh, tmp_path / "out")
    assert names(tmp_path / "out") == [
        "second/majority", f"second/{TFIDF}", f"second/{TFIDF}-client", "second/fine-tuned-client",
        "first/majority", f"first/{TFIDF}", "first/logistic-regression-embeddings", "first/fine-tuned",
    ]  # fmt: skip
    found = report(tmp_path / "out")
    assert found["main"] == "second/fine-tuned-client"
    pairs = [(pair["system"], pair["baseline"]) for pair in found["comparisons"]]
    assert pairs[: len(names(tmp_path / "out")) - 1] == [
        ("second/fine-tuned-client", name) for name in names(tmp_path / "out") if name != "second/fine-tuned-client"
    ]
    assert ("first/fine-tuned", f"first/{TFIDF}") in pairs
    said = table(tmp_path / "out")  # the second run has kept the first one's regression as it was
    np.testing.assert_array_equal(said[f"second/{TFIDF}/probabilities"], said[f"first/{TFIDF}/probabilities"])
    for name in ("fine-tuned", TFIDF):  # their validation part is not at hand
        recorded = system(first, name)["validation_macro_f1"]
        assert system(tmp_path / "out", f"first/{name}")["validation_macro_f1"] == recorded


def test_what_any_of_the_runs_has_seen_is_left_out(first: Path, second: Path, tmp_path: Path) -> None:
    own = table(second, "training_items")
    rows = toy_rows(30, seed=9)
    rows[0]["text"] = next(t for t, o in zip(own["text"], own["origin"], strict=True) if o == "own")
    path = write_csv(tmp_path / "some.csv", rows)
    scored([first, second], path, tmp_path / "out")
    assert report(tmp_path / "out")["data"]["left_out_because_seen_by_a_model"] == 1
    scored([first], path, tmp_path / "alone")
    assert report(tmp_path / "alone")["data"]["left_out_because_seen_by_a_model"] == 0


def test_directories_of_the_same_name_are_told_apart_by_more_of_their_paths(
    first: Path, other: Path, tmp_path: Path
) -> None:
    """The second one knows a class more; the first one gives it no probability, its curve trains without it."""
    rows = [row | {"label": "bees"} if i % 5 == 0 else row for i, row in enumerate(toy_rows(30, seed=9))]
    path = write_csv(tmp_path / "bees.csv", rows)
    scored([first, other], path, tmp_path / "out", curve=True)
    folder = first.parent.name
    assert names(tmp_path / "out")[0] == f"{folder}/first/majority"
    assert names(tmp_path / "out")[-2:] == ["other/first/majority", "other/first/fine-tuned"]
    found, told = table(tmp_path / "out"), report(tmp_path / "out")
    assert told["labels"] == ["calm", "harsh", "bees"]
    said = np.array(found[f"{folder}/first/fine-tuned/probabilities"])
    assert (said[:, 2] == 0).all()
    np.testing.assert_allclose(said.sum(axis=1), 1.0)
    assert (np.array(found["other/first/fine-tuned/probabilities"]) > 0).all()
    assert [curve["system"].rpartition("/")[0] for curve in told["learning_curve"]["curves"]] == [f"{folder}/first"] * 2


def test_the_same_directory_twice_is_refused(first: Path, fresh: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a run directory is named twice; name each once"):
        scored([first, first / "../first"], fresh, tmp_path / "out")


# ---- refusals and interruptions


def test_what_is_no_run_or_exists_already_is_refused(first: Path, fresh: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="nowhere: no such directory"):
        scored([tmp_path / "nowhere"], fresh, tmp_path / "out")
    scored([first], fresh, tmp_path / "out")
    with pytest.raises(RunDirectoryError, match="out: not a run directory of rootstock finetune"):
        scored([tmp_path / "out"], fresh, tmp_path / "again")
    with pytest.raises(RunDirectoryError, match="out: a complete run is here already"):
        scored([first], fresh, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.csv"]


@pytest.mark.parametrize("calls", [0, 2, 4, 6])
def test_an_interrupted_comparison_leaves_nothing(calls: int, first: Path, fresh: Path, tmp_path: Path) -> None:
    """Asked before each of 4 systems, then after every step of the curve."""
    asked = iter(range(100))
    with pytest.raises(Interrupted, match=r"^stopped; nothing was kept$"):
        scored([first], fresh, tmp_path / "out", curve=True, stop=lambda: next(asked) == calls)
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.csv"]


def test_a_dropped_comparison_leaves_nothing(first: Path, fresh: Path, tmp_path: Path) -> None:
    events = compare([first], fresh, tmp_path / "out")
    while not (isinstance(event := next(events), Stage) and event.name == "learning curve"):
        pass
    events.close()  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.csv"]
