"""One run from files to a run directory: what it holds, what it refuses, how it resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score

from pipelines import durable
from pipelines.config import RunConfig
from pipelines.errors import ConfigError, Interrupted, RunDirectoryError
from pipelines.records import Event, Finished, Scored, Step, Validation
from pipelines.run import finetune
from tests.toys import toy_rows, write_csv

MakeConfig = Callable[..., RunConfig]


def run(config: RunConfig, out: Path, **options: object) -> list[Event]:
    return list(finetune(config, out, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """One complete run with every baseline, shared by the tests that only look."""
    from pipelines.config import parse_config
    from tests.toys import toy_config

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
        "config.yaml", "model", "baselines", "predictions.parquet", "report.json", "report.html", "README.md",
        "metrics.jsonl", "tensorboard", "manifest.json",
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


def test_lora_run_saves_adapter_with_head_and_base(make_config: MakeConfig, tmp_path: Path) -> None:
    run(make_config(adapter={"type": "lora", "r": 2}), tmp_path / "out")
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

    monkeypatch.setattr("pipelines.run.train", broken)
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
