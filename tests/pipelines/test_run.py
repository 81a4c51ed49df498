"""One run from files to a run directory: what it holds, what it refuses, how it resumes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file
from scipy.special import softmax
from sklearn.metrics import accuracy_score, f1_score

from pipelines import durable
from pipelines.activation_store import ActivationStore
from pipelines.attributions import attribute
from pipelines.backbones.text import load_saved_model
from pipelines.config import RunConfig, parse_config
from pipelines.errors import ConfigError, DataError, Interrupted, RunDirectoryError, StoreError
from pipelines.keep_or_recompute import Choice
from pipelines.mistakes import LISTS, SHADED, STEPS
from pipelines.predict import predict_logits
from pipelines.records import Event, Finished, FloatArray, Scored, Stage, Step, Validation
from pipelines.run import finetune
from tests import runs
from tests.runs import TFIDF, client_config, first_run, without_times
from tests.toys import toy_config, toy_rows, write_csv

MakeConfig = Callable[..., RunConfig]


def run(config: RunConfig, out: Path, **options: object) -> list[Event]:
    return list(finetune(config, out, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """One complete run with every baseline, shared by the tests that only look."""
    folder = tmp_path_factory.mktemp("finished")
    baselines = [
        "majority",
        "logistic-regression-manual",
        "logistic-regression-tfidf",
        "logistic-regression-embeddings",
    ]
    raw = toy_config(
        folder, rows=120, baselines=baselines, data={"slices": ["kind"]}, training={"trackers": ["tensorboard"]}
    )
    events = run(parse_config(raw), folder / "run")
    return folder / "run", events


def test_the_directory_is_complete_and_nothing_else_is_left(finished: tuple[Path, list[Event]]) -> None:
    path, _ = finished
    assert {p.name for p in path.iterdir()} == {
        "config.yaml", "model", "baselines", "predictions.parquet", "training_items.parquet", "report.json",
        "report.html", "README.md", "metrics.jsonl", "tensorboard", "manifest.json",
    }  # fmt: skip
    assert {p.name for p in path.parent.iterdir()} == {"run", "toy.csv", "tiny"}
    assert not [p for p in path.rglob("*") if p.suffix in (".pkl", ".pt", ".bin", ".pth", ".joblib")]


def test_the_manifest_holds_every_digest_and_where_the_run_comes_from(finished: tuple[Path, list[Event]]) -> None:
    path, _ = finished
    manifest = durable.verify(path)
    files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {"manifest.json"}
    assert set(manifest["sha256"]) == files
    assert manifest["data_sha256"]["train"] == hashlib.sha256((path.parent / "toy.csv").read_bytes()).hexdigest()
    assert (
        manifest["backbone"]["sha256"]
        == hashlib.sha256((path.parent / "tiny" / "model.safetensors").read_bytes()).hexdigest()
    )
    assert manifest["labels"] == ["calm", "harsh"]


def test_the_report_can_be_recomputed_from_the_predictions(finished: tuple[Path, list[Event]]) -> None:
    path, _ = finished
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    table = pq.read_table(path / "predictions.parquet").to_pydict()
    assert [system["name"] for system in report["systems"]] == [
        "majority", "logistic-regression-manual", "logistic-regression-tfidf", "logistic-regression-embeddings",
        "fine-tuned",
    ]  # fmt: skip
    assert report["n_train"] + report["n_validation"] + report["n_test"] == 120
    assert len(table["label"]) == report["n_test"]
    for system in report["systems"]:
        said = table[system["name"]]
        assert system["metrics"]["accuracy"] == pytest.approx(accuracy_score(table["label"], said))
        expected = f1_score(table["label"], said, average="macro", zero_division=0)
        assert system["metrics"]["macro_f1"] == pytest.approx(expected)
        low, high = system["metrics"]["macro_f1_ci"]
        assert low <= expected <= high or system["name"] == "majority"
        probabilities = np.array(table[f"{system['name']}/probabilities"])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert [report["labels"][i] for i in probabilities.argmax(axis=1)] == said
    assert set(table["kind"]) == {"long", "short"}


def test_listed_items_of_the_report_have_the_words_that_moved_the_model(finished: tuple[Path, list[Event]]) -> None:
    path, _ = finished
    section = json.loads((path / "report.json").read_text(encoding="utf-8"))["mistakes"]
    entries = [entry for name in LISTS for entry in section[name][:SHADED]]
    assert entries
    for entry in entries:
        assert [word for word, _ in entry["words"]] == entry["text"].split()
    assert "an approximation, no cause" in section["caveat"]
    model = load_saved_model(path / "model")
    entry = entries[0]
    found = attribute(model, entry["text"], model.labels.index(entry["fine_tuned"]), STEPS, STEPS)
    np.testing.assert_allclose([weight for _, weight in entry["words"]], found.weights, atol=1e-3)
    assert "towards: <bdi>" in (path / "report.html").read_text(encoding="utf-8")


def test_events_and_metrics_file_tell_the_same_story(finished: tuple[Path, list[Event]]) -> None:
    path, events = finished
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [e["step"] for e in lines if e["event"] == "step"] == [e.step for e in events if isinstance(e, Step)]
    assert [e["macro_f1"] for e in lines if e["event"] == "validation"] == [
        e.macro_f1 for e in events if isinstance(e, Validation)
    ]
    assert len([e for e in events if isinstance(e, Scored)]) == 5
    assert isinstance(events[-1], Finished)
    assert list((path / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_resolved_config_has_no_auto_left(finished: tuple[Path, list[Event]]) -> None:
    path, _ = finished
    text = (path / "config.yaml").read_text(encoding="utf-8")
    config = RunConfig.model_validate(yaml.safe_load(text))
    assert config.training.processes == 1
    assert config.training.precision == "fp32"
    assert "processes: auto" not in text


@pytest.mark.parametrize("adapter", ["lora", "rslora", "dora"])
def test_lora_run_saves_adapter_with_head_and_base(adapter: str, make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config(adapter={"type": adapter, "r": 2}, training={"patience": 1}), tmp_path / "out")
    base = json.loads((tmp_path / "out/adapter/base.json").read_text(encoding="utf-8"))
    assert base["sha256"] == hashlib.sha256((tmp_path / "tiny/model.safetensors").read_bytes()).hexdigest()
    tensors = load_file(tmp_path / "out/adapter/adapter_model.safetensors")
    assert any("lora_A" in name for name in tensors)
    assert any("classifier" in name for name in tensors)
    assert any("pooler" in name for name in tensors)
    assert not any("layer.0." in name for name in tensors)
    assert str(tmp_path) not in (tmp_path / "out/adapter/adapter_config.json").read_text().replace(
        str(tmp_path / "tiny"), ""
    )
    assert not any("lora" in name for name in load_file(tmp_path / "out/model/model.safetensors"))


def test_lora_with_freeze_none_leaves_the_base_alone(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(adapter={"type": "lora", "r": 2}, backbone={"freeze": "none"}, baselines=[])
    run(config, tmp_path / "out")
    before, after = load_file(tmp_path / "tiny/model.safetensors"), load_file(tmp_path / "out/model/model.safetensors")
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(before[name], after["bert." + name])


def test_a_stopped_run_resumes_to_the_same_report(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(baselines=["majority"])
    run(config, tmp_path / "whole")
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(config, tmp_path / "parts", stop=lambda: next(calls) == 6)
    assert not (tmp_path / "parts").exists()
    assert (tmp_path / "parts.partial/checkpoints").is_dir()
    with pytest.raises(RunDirectoryError, match="an unfinished run is here; add --resume"):
        run(config, tmp_path / "parts")
    run(config, tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / name / "model/model.safetensors") for name in ("whole", "parts"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])
    first, second = (json.loads((tmp_path / n / "report.json").read_text())["systems"] for n in ("whole", "parts"))
    assert [s["metrics"] for s in first] == [s["metrics"] for s in second]
    assert not (tmp_path / "parts.partial").exists()
    assert not (tmp_path / "parts/checkpoints").exists()


def test_resume_with_other_settings_names_them(make_config: MakeConfig, tmp_path: Path) -> None:
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(make_config(), tmp_path / "out", stop=lambda: next(calls) == 3)
    with pytest.raises(RunDirectoryError, match=r"other settings: training\.batch_size, training\.epochs"):
        run(make_config(training={"epochs": 5, "batch_size": 4}), tmp_path / "out", resume=True)


def test_resume_with_other_data_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        run(make_config(), tmp_path / "out", stop=lambda: next(calls) == 3)
    with (tmp_path / "toy.csv").open("a", encoding="utf-8") as file:
        file.write("the cat sleeps,calm,long\n")
    with pytest.raises(RunDirectoryError, match=r"other settings: from\.data_sha256\.train"):
        run(make_config(), tmp_path / "out", resume=True)


def test_resume_starts_afresh_where_nothing_was_committed(make_config: MakeConfig, tmp_path: Path) -> None:
    assert isinstance(run(make_config(baselines=["majority"]), tmp_path / "out", resume=True)[-1], Finished)


def test_a_run_killed_among_the_baselines_keeps_them(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config()
    events = finetune(config, tmp_path / "out")
    for event in events:
        if isinstance(event, Scored) and event.name == "majority":
            break
    events.close()
    saved = (tmp_path / "out.partial/baselines/majority/model.json").stat().st_mtime_ns
    run(config, tmp_path / "out", resume=True)
    assert (tmp_path / "out/baselines/majority/model.json").stat().st_mtime_ns == saved


def test_a_run_can_be_stopped_between_baselines(make_config: MakeConfig, tmp_path: Path) -> None:
    asked = iter(range(100))  # 10 steps of training, then once before every baseline
    with pytest.raises(Interrupted, match="stopped after training; what is done was kept"):
        run(make_config(), tmp_path / "out", stop=lambda: next(asked) == 11)
    assert (tmp_path / "out.partial/baselines/majority").is_dir()
    assert isinstance(run(make_config(), tmp_path / "out", resume=True)[-1], Finished)


def test_a_complete_run_is_never_overwritten(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="a complete run is here already; choose another --out"):
        run(make_config(), tmp_path / "out")


def test_an_unknown_positive_class_is_refused_before_training(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no class 'bad'; classes found: calm, harsh"):
        run(make_config(evaluation={"positive": "bad"}), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_failure_leaves_nothing_behind(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pipelines.tune.train", broken)
    with pytest.raises(OSError, match="disk full"):
        run(make_config(), tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"toy.csv", "tiny"}


def test_not_worth_it_where_a_count_tells_everything(make_config: MakeConfig, tmp_path: Path) -> None:
    """The class is whether a text shouts; the tokenizer of the frozen backbone cannot see it, manual features can."""
    rows = toy_rows(400)
    for number, row in enumerate(rows):
        shouts = number % 3 == 0
        row["text"] += "!!!" if shouts else "..."
        row["label"] = "harsh" if shouts else "calm"
    write_csv(tmp_path / "toy.csv", rows)
    config = make_config(baselines=["majority", "logistic-regression-manual"], backbone={"freeze": "all"})
    run(config, tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["worth_it"] == "no"
    assert report["verdict"]["rival"] == "logistic-regression-manual"
    assert report["verdict"]["sentence"].startswith("Not worth it. ")
    assert "Not worth it." in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def probabilities(path: Path, texts: list[str]) -> FloatArray:
    """What the model that a run has saved says in fp32."""
    model = load_saved_model(path / "model")
    found: FloatArray = softmax(predict_logits(model, model.encode(texts), "fp32"), axis=1)
    return found


def test_seen_items_are_recorded_with_their_part_and_origin(finished: tuple[Path, list[Event]]) -> None:
    path, _ = finished
    seen, told = runs.table(path, "training_items"), runs.report(path)
    assert list(seen) == ["text", "label", "id", "group", "line", "part", "origin"]
    assert set(seen["origin"]) == {"own"}
    assert (seen["part"].count("train"), seen["part"].count("validation")) == (told["n_train"], told["n_validation"])
    rows = {row["text"]: row["label"] for row in toy_rows(120)}
    assert set(seen["text"]) | set(runs.table(path)["text"]) == set(rows)
    assert [rows[text] for text in seen["text"]] == seen["label"]


# ---- the temperature


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_temperature_is_part_of_the_saved_model(
    adapter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that differ in nothing else: p ** (1 / T), normalised."""
    raw = toy_config(tmp_path, adapter={"type": adapter, "r": 2}, baselines=[])
    runs.run(raw, tmp_path / "plain")
    monkeypatch.setattr("pipelines.run.choose_temperature", lambda *_: (2.5, "Scaling is on: as the test wants it."))
    runs.run(raw, tmp_path / "scaled")
    plain, scaled = (np.array(runs.table(tmp_path / name)["fine-tuned/probabilities"]) for name in ("plain", "scaled"))
    expected = plain ** (1 / 2.5)
    np.testing.assert_allclose(scaled, expected / expected.sum(axis=1, keepdims=True), atol=1e-5)
    assert np.abs(scaled - plain).max() > 0.01
    np.testing.assert_allclose(
        probabilities(tmp_path / "scaled", runs.table(tmp_path / "scaled")["text"]), scaled, atol=1e-5
    )
    assert runs.report(tmp_path / "plain")["calibration"]["temperature"] == 1.0  # 10 validation items are too few
    told = runs.report(tmp_path / "scaled")["calibration"]
    assert (told["temperature"], told["reason"]) == (2.5, "Scaling is on: as the test wants it.")
    assert told["before"]["ece"] == pytest.approx(
        runs.report(tmp_path / "plain")["calibration"]["after"]["ece"], abs=1e-5
    )
    if adapter == "lora":
        heads = [load_file(tmp_path / "scaled" / name) for name in (
            "adapter/adapter_model.safetensors", "model/model.safetensors",
        )]  # fmt: skip
        weights = [next(head[name] for name in head if name.endswith("classifier.weight")) for head in heads]
        np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)


# ---- the learning curve


def stop_in(training: int, config: RunConfig, out: Path) -> None:
    """Stop in the n-th training of the learning curve."""
    begun: Counter[str] = Counter()
    for event in finetune(config, out, stop=lambda: begun["learning curve"] == training):
        if isinstance(event, Stage):
            begun[event.name] += 1


@pytest.mark.slow
def test_a_run_stopped_in_the_learning_curve_resumes_to_the_same_report(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, rows=80, evaluation={"learning_curve": [0.3, 0.6]})
    runs.run(raw, tmp_path / "whole")
    with pytest.raises(Interrupted, match="a checkpoint was kept"):
        stop_in(2, parse_config(raw), tmp_path / "parts")
    assert len(list((tmp_path / "parts.partial/checkpoints/curve").iterdir())) == 2
    assert not (tmp_path / "parts.partial/baselines").exists()

    again = runs.run(raw, tmp_path / "parts", resume=True)
    names = [event.name for event in again if isinstance(event, Stage)]
    assert names[:5] == ["data", "backbone", "train", "learning curve", "learning curve"]
    stages = [number for number, event in enumerate(again) if isinstance(event, Stage)]
    assert stages[4] == stages[3] + 1  # the first share was done
    whole, parts = (without_times(runs.report(tmp_path / name)) for name in ("whole", "parts"))
    assert whole == parts
    assert len(whole["learning_curve"]["curves"][0]["points"]) == 3
    assert not (tmp_path / "parts/checkpoints").exists()


# ---- start_from


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first`, `second` that continues it, and `third` that continues `second` with a new class and a curve."""
    folder = tmp_path_factory.mktemp("chain")
    first_run(folder)
    runs.run(client_config(folder, folder / "first"), folder / "second")
    raw = client_config(folder, folder / "second", seed=2, evaluation={"learning_curve": [0.5]})
    for name in ("client2.csv", "client2-test.csv"):
        rows = toy_rows(40, 2 if name == "client2.csv" else 102)
        write_csv(folder / name, [row | {"label": "bees"} if i % 5 == 0 else row for i, row in enumerate(rows)])
    runs.run(raw, folder / "third")
    return folder


def trained_on(path: Path) -> dict[str, int]:
    return {entry["name"]: entry["trained_on"] for entry in runs.report(path)["systems"]}


def test_the_ladder_goes_from_majority_to_the_new_model(chain: Path) -> None:
    """32 of 40 client items are trained on; the first run has trained on 38 of its 60."""
    assert list(trained_on(chain / "first").items()) == [("majority", 38), (TFIDF, 38), ("fine-tuned", 38)]
    for name, before, own in (("second", 38, 32), ("third", 70, 32)):
        assert list(trained_on(chain / name).items()) == [
            ("majority", own),
            (TFIDF, before),
            ("fine-tuned", before),
            (f"{TFIDF}-client", before + own),
            ("fine-tuned-client", before + own),
        ]
        assert runs.report(chain / name)["main"] == "fine-tuned-client"
    assert runs.report(chain / "third")["start_from"] == {"name": "second", "system": "fine-tuned-client"}


def test_the_new_model_is_compared_with_all_and_the_old_one_with_its_equal(chain: Path) -> None:
    pairs = [(pair["system"], pair["baseline"]) for pair in runs.report(chain / "second")["comparisons"]]
    assert pairs == [
        ("fine-tuned-client", "majority"),
        ("fine-tuned-client", TFIDF),
        ("fine-tuned-client", "fine-tuned"),
        ("fine-tuned-client", f"{TFIDF}-client"),
        ("fine-tuned", TFIDF),
    ]


@pytest.mark.parametrize(
    ("later", "earlier", "saved"), [("second", "first", TFIDF), ("third", "second", TFIDF + "-client")]
)
def test_baselines_of_the_run_before_are_copied_byte_for_byte(
    chain: Path, later: str, earlier: str, saved: str
) -> None:
    before = {path.name: path.read_bytes() for path in (chain / earlier / "baselines" / saved).iterdir()}
    assert {path.name: path.read_bytes() for path in (chain / later / "baselines" / TFIDF).iterdir()} == before
    assert {path.name for path in (chain / later / "baselines").iterdir()} == {"majority", TFIDF, f"{TFIDF}-client"}


@pytest.mark.parametrize(("later", "earlier"), [("second", "first"), ("third", "second")])
def test_the_model_of_the_run_before_is_scored_as_it_is(chain: Path, later: str, earlier: str) -> None:
    found = runs.table(chain / later)
    said = np.array(found["fine-tuned/probabilities"])
    expected = probabilities(chain / earlier, found["text"])
    np.testing.assert_allclose(said[:, :2], expected, atol=1e-6)
    assert (said[:, 2:] == 0).all()
    main = runs.report(chain / earlier)["main"]
    old, now = runs.system(chain / earlier, main), runs.system(chain / later, "fine-tuned")
    assert old["train_seconds"] == now["train_seconds"]


def test_a_new_class_is_added_behind_the_known_ones(chain: Path) -> None:
    assert runs.report(chain / "second")["labels"] == ["calm", "harsh"]
    assert runs.report(chain / "third")["labels"] == ["calm", "harsh", "bees"]
    assert load_saved_model(chain / "third/model").labels == ("calm", "harsh", "bees")
    said = np.array(runs.table(chain / "third")["fine-tuned-client/probabilities"])
    assert (said > 0).all()
    np.testing.assert_allclose(said, probabilities(chain / "third", runs.table(chain / "third")["text"]), atol=1e-5)


def test_every_run_of_a_chain_remembers_what_all_have_seen(chain: Path) -> None:
    first, second, third = (runs.table(chain / name, "training_items") for name in ("first", "second", "third"))
    assert second["text"][:48] == first["text"]
    assert third["text"][:88] == second["text"]
    assert third["part"][:88] == second["part"]
    for seen, earlier in ((second, 48), (third, 88)):
        assert seen["origin"] == ["earlier"] * earlier + ["own"] * 40
        assert (seen["part"][earlier:].count("train"), seen["part"][earlier:].count("validation")) == (32, 8)
    assert runs.report(chain / "third")["data"]["seen_by_start_from"] == 88


def test_training_goes_on_from_the_weights_of_the_run_before(chain: Path) -> None:
    before, after = (load_file(chain / name / "model/model.safetensors") for name in ("first", "second"))
    frozen = "bert.encoder.layer.0.attention.self.query.weight"
    np.testing.assert_array_equal(before[frozen], after[frozen])
    trained = "bert.encoder.layer.2.attention.self.query.weight"
    assert 0 < np.abs(before[trained] - after[trained]).max() < 0.25
    manifest = durable.verify(chain / "second")
    digest = hashlib.sha256((chain / "first/model/model.safetensors").read_bytes()).hexdigest()
    assert manifest["start_from"] == {"name": "first", "sha256": digest}
    assert manifest["backbone"] == durable.read_manifest(chain / "first")["backbone"]
    assert manifest["data_sha256"]["test"] == hashlib.sha256((chain / "client1-test.csv").read_bytes()).hexdigest()


def test_the_curve_of_a_continued_run_grows_by_new_items_only(chain: Path) -> None:
    curves = runs.report(chain / "third")["learning_curve"]["curves"]
    assert [found["system"] for found in curves] == ["fine-tuned-client", f"{TFIDF}-client"]
    for found in curves:
        assert [point["items"] for point in found["points"]] == [16, 32]
        assert found["points"][-1]["macro_f1"] == runs.system(chain / "third", found["system"])["metrics"]["macro_f1"]


def test_a_test_file_with_items_of_the_run_before_is_refused(chain: Path, tmp_path: Path) -> None:
    seen = runs.table(chain / "second", "training_items")
    rows = toy_rows(10, seed=50)
    rows[6]["text"] = seen["text"][3]  # of the first run
    raw = client_config(tmp_path, chain / "second", seed=7)
    write_csv(tmp_path / "client7-test.csv", rows)
    with pytest.raises(
        DataError, match=r"client7-test\.csv, line 8: the run of start_from has seen 1 of the test items"
    ):
        runs.run(raw, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_fractions_never_hold_what_the_run_before_has_seen(chain: Path, tmp_path: Path) -> None:
    """The client's file repeats everything that the first run had."""
    raw = client_config(tmp_path, chain / "first", seed=7, data={"test": 0.25}, baselines=[])
    write_csv(tmp_path / "client7.csv", toy_rows(60) + toy_rows(40, seed=7))
    runs.run(raw, tmp_path / "out")
    seen = set(runs.table(chain / "first", "training_items")["text"])
    own = runs.table(tmp_path / "out", "training_items")
    validation = {text for text, part, origin in zip(own["text"], own["part"], own["origin"], strict=True)
                  if (part, origin) == ("validation", "own")}  # fmt: skip
    test = set(runs.table(tmp_path / "out")["text"])
    assert not (validation | test) & seen
    assert (len(test), len(validation)) == (13, 8)  # a quarter of the 52 that are new, a fifth of the other 39
    assert runs.report(tmp_path / "out")["data"]["exact_duplicates"] == 48


def test_new_items_of_one_class_are_learned_and_looked_into(chain: Path, tmp_path: Path) -> None:
    """A client may have corrections of one kind only; probes then learn from the items of both runs."""
    raw = client_config(tmp_path, chain / "first", seed=7, baselines=[])
    rows = [row for row in toy_rows(60, 7) if row["label"] == "harsh"]
    write_csv(tmp_path / "client7.csv", rows)
    runs.run(raw, tmp_path / "out")
    found = runs.report(tmp_path / "out")["hidden_layers"]
    assert len(found["probe"]["layers"]) == len(found["ablation"]["without"]) + 1


def test_another_backbone_is_refused(chain: Path, tmp_path: Path) -> None:
    raw = client_config(tmp_path, chain / "first", backbone={"name": "other/model"})
    with pytest.raises(
        ConfigError,
        match=r"backbone\.name: expected .*tiny, as in the run at start_from, found other/model; leave it out",
    ):
        runs.run(raw, tmp_path / "out")
    same = client_config(tmp_path, chain / "first", backbone={"name": str(chain / "tiny")}, baselines=[])
    assert isinstance(runs.run(same, tmp_path / "out")[-1], Finished)


def test_what_is_no_run_cannot_be_continued(chain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"start_from: .*nowhere: no such directory; expected the directory of"):
        runs.run(client_config(tmp_path, tmp_path / "nowhere"), tmp_path / "out")
    with pytest.raises(ConfigError, match="tiny: not a complete run directory"):
        runs.run(client_config(tmp_path, chain / "tiny"), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_continued_run_resumes(chain: Path, tmp_path: Path) -> None:
    raw = client_config(tmp_path, chain / "first", adapter={"type": "lora", "r": 2})
    runs.run(raw, tmp_path / "whole")
    asked = iter(range(100))  # 8 steps of training, then before every baseline
    with pytest.raises(Interrupted):
        runs.run(raw, tmp_path / "parts", stop=lambda: next(asked) == 10)
    assert {path.name for path in (tmp_path / "parts.partial/baselines").iterdir()} == {"majority", TFIDF}
    runs.run(raw, tmp_path / "parts", resume=True)
    whole, parts = (without_times(runs.report(tmp_path / name)) for name in ("whole", "parts"))
    assert whole == parts


# ---- the store of hidden states


def cached(folder: Path, out: str, cache: str, root: str = "store", freeze: int | str = 2, **sections: Any) -> Path:
    raw = toy_config(folder, backbone={"freeze": freeze, "cache": cache}, baselines=["majority"], **sections)
    run(parse_config(raw), folder / out, store=ActivationStore(folder / root, 1 << 30))
    return folder / out


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("freeze", [2, "all"])
def test_from_the_store_training_is_bitwise_the_same_every_time(
    freeze: int | str, precision: str, tmp_path: Path
) -> None:
    own = {"training": {"precision": precision}}
    runs_of = (("a", "one"), ("b", "one"), ("c", "two"))
    paths = [cached(tmp_path, out, "on", root, freeze, **own) for out, root in runs_of]
    weights = [(path / "model/model.safetensors").read_bytes() for path in paths]
    assert weights[0] == weights[1] == weights[2]
    assert [runs.system(path, "fine-tuned")["store"] for path in paths] == ["cold", "warm", "cold"]


@pytest.mark.parametrize("freeze", [2, "all"])
def test_without_the_store_the_result_is_the_same_within_the_rounding(freeze: int | str, tmp_path: Path) -> None:
    on, off = (load_file(cached(tmp_path, c, c, freeze=freeze) / "model/model.safetensors") for c in ("on", "off"))
    assert runs.system(tmp_path / "off", "fine-tuned")["store"] == "off"
    for name in on:
        np.testing.assert_allclose(on[name], off[name], atol=0.02, err_msg=name)


@pytest.mark.parametrize("trouble", ["full", "no directory", "vanishes", "read-only"])
def test_a_store_that_fails_is_said_and_training_goes_on(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store" if trouble != "read-only" else Path("/proc/rootstock")
    if trouble == "no directory":
        root.write_text("a file")
    if trouble == "read-only" and not Path("/proc/self").exists():
        pytest.skip("no file system here that refuses to be written to")
    write = ActivationStore.write

    def failing(self: ActivationStore, *args: Any) -> None:
        if trouble == "full":
            raise StoreError("hidden states cannot be kept: No space left on device")
        write(self, *args)
        shutil.rmtree(self.root)

    if trouble in ("full", "vanishes"):
        monkeypatch.setattr(ActivationStore, "write", failing)
    raw = toy_config(tmp_path, backbone={"freeze": 2, "cache": "on"}, baselines=["majority"])
    events = run(parse_config(raw), tmp_path / "out", store=ActivationStore(root, 1 << 30))
    said = [event.message for event in events if isinstance(event, Stage) and event.name == "store"]
    assert [text for text in said if text.startswith("going on without it. ")], said
    assert runs.system(tmp_path / "out", "fine-tuned")["store"] == "off"
    assert isinstance(events[-1], Finished)


def test_a_run_whose_store_failed_stays_without_when_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its later steps would see other bits than its earlier ones, and the result depend on the interruption."""

    def full(*_: object) -> None:
        raise StoreError("hidden states cannot be kept: No space left on device")

    raw = toy_config(tmp_path, backbone={"freeze": 2, "cache": "on"}, baselines=[])
    store = ActivationStore(tmp_path / "store", 1 << 30)
    with monkeypatch.context() as patch:
        patch.setattr(ActivationStore, "write", full)
        run(parse_config(raw), tmp_path / "whole", store=store)
        asked: list[int] = []
        with pytest.raises(Interrupted):
            run(parse_config(raw), tmp_path / "out", store=store, stop=lambda: bool(asked.append(1)) or len(asked) > 4)
    events = run(parse_config(raw), tmp_path / "out", store=store, resume=True)
    assert not [e for e in events if isinstance(e, Stage) and "computing the hidden states" in e.message]
    weights = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]
    assert runs.system(tmp_path / "out", "fine-tuned")["store"] == "off"


def test_a_resumed_run_says_where_its_store_has_failed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = toy_config(tmp_path, backbone={"freeze": 2, "cache": "on"}, baselines=["majority"])
    store = ActivationStore(tmp_path / "store", 1 << 30)
    asked: list[int] = []
    with pytest.raises(Interrupted):
        run(parse_config(raw), tmp_path / "out", store=store, stop=lambda: bool(asked.append(1)) or len(asked) > 13)
    shutil.rmtree(store.root)
    store.root.write_text("a file")
    events = run(parse_config(raw), tmp_path / "out", store=store, resume=True)
    said = [event.message for event in events if isinstance(event, Stage) and event.name == "store"]
    assert [text for text in said if "close to that of an uninterrupted run, not bit for bit the same" in text], said
    assert runs.system(tmp_path / "out", "fine-tuned")["store"] == "off"


def test_a_run_may_be_resumed_without_the_store(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, backbone={"freeze": 2, "cache": "on"}, baselines=[])
    store = ActivationStore(tmp_path / "store", 1 << 30)
    asked: list[int] = []
    with pytest.raises(Interrupted):
        run(parse_config(raw), tmp_path / "out", store=store, stop=lambda: bool(asked.append(1)) or len(asked) > 13)
    raw["backbone"]["cache"] = "off"
    events = run(parse_config(raw), tmp_path / "out", store=store, resume=True)
    said = [event.message for event in events if isinstance(event, Stage)]
    assert "hidden states of the frozen layers are not kept: backbone.cache is off" in said


def test_what_auto_has_measured_stays_chosen_when_a_run_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = toy_config(tmp_path, baselines=[])
    store = ActivationStore(tmp_path / "store", 1 << 30)
    monkeypatch.setattr("pipelines.keep_or_recompute.measured", lambda *_: Choice(True, "as measured"))
    asked: list[int] = []
    with pytest.raises(Interrupted):
        run(parse_config(raw), tmp_path / "out", store=store, stop=lambda: bool(asked.append(1)) or len(asked) > 12)
    monkeypatch.setattr("pipelines.keep_or_recompute.measured", lambda *_: Choice(False, "otherwise"))
    events = run(parse_config(raw), tmp_path / "out", store=store, resume=True)
    assert "hidden states of the frozen layers are kept: as measured" in [
        e.message for e in events if isinstance(e, Stage)
    ]
    assert not (tmp_path / "out/cache.json").exists()
