"""A run directory is taken by one process, resumed with the same settings only, and complete or absent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines import durable
from pipelines.artifacts import CHECKPOINTS, RunDirectory, environment, refuse_existing, size_bytes
from pipelines.config import RunConfig, parse_config
from pipelines.errors import RunDirectoryError
from pipelines.records import Finished, Stage

FROM = {"kind": "run", "seed": 3, "data_sha256": {"train": "aa"}}


def config(**sections: Any) -> RunConfig:
    data = {"train": "a.csv", "text": "text", "label": "label"}
    return parse_config({"task": "text-classification", "data": data, **sections})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


def unfinished(target: Path, config: RunConfig) -> Path:
    """Leave a run behind as an interruption does: with one checkpoint, and unlocked."""
    run = RunDirectory(target)
    run.open(config, FROM, resume=False)
    (run.partial / CHECKPOINTS / "step-000000001").mkdir(parents=True)
    run.close()
    return run.partial


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_work_is_done_beside_the_target_until_it_is_finished(target: Path) -> None:
    run = RunDirectory(target)
    run.open(config(), FROM, resume=False)
    run.record(Stage("data", "reading ä"))
    run.record(Finished(target, "Worth it."))
    (run.partial / CHECKPOINTS / "step-000000001").mkdir(parents=True)
    assert not target.exists()
    run.finish()
    assert contents(target.parent) == {"one", "one/config.yaml", "one/metrics.jsonl", "one/manifest.json"}
    manifest = durable.verify(target)
    assert (manifest["kind"], manifest["seed"], set(manifest["sha256"])) == ("run", 3, {"config.yaml", "metrics.jsonl"})
    lines = (target / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "stage", "name": "data", "message": "reading ä"},
        {"event": "finished", "path": str(target), "sentence": "Worth it."},
    ]


def test_a_complete_run_is_refused_even_to_resume(target: Path) -> None:
    run = RunDirectory(target)
    run.open(config(), FROM, resume=False)
    run.finish()
    for resume in (False, True):
        with pytest.raises(RunDirectoryError, match=r"one: a complete run is here already; choose another --out or"):
            RunDirectory(target).open(config(), FROM, resume)


def test_anything_else_at_the_target_is_refused(target: Path) -> None:
    refuse_existing(target)
    target.mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match="one: exists and is not a run directory; choose another --out"):
        refuse_existing(target)


def test_an_unfinished_run_is_refused_without_resume_and_unlocked_again(target: Path) -> None:
    partial = unfinished(target, config())
    with pytest.raises(RunDirectoryError, match=r"one\.partial: an unfinished run is here; add --resume"):
        RunDirectory(target).open(config(), FROM, resume=False)
    assert (partial / CHECKPOINTS / "step-000000001").is_dir()
    run = RunDirectory(target)
    run.open(config(), FROM, resume=True)
    assert (partial / CHECKPOINTS / "step-000000001").is_dir()
    run.close()


def test_resume_with_other_settings_names_their_keys(target: Path) -> None:
    partial = unfinished(target, config())
    before = contents(partial)
    other = config(training={"epochs": 7}, evaluation={"bootstrap": 101})
    with pytest.raises(
        RunDirectoryError, match=r"other settings: evaluation\.bootstrap, training\.epochs; restore them"
    ):
        RunDirectory(target).open(other, FROM, resume=True)
    assert contents(partial) == before
    assert not list(target.parent.glob("*.lock"))  # and the refused process has let it go


def test_resume_with_other_data_or_weights_is_refused(target: Path) -> None:
    unfinished(target, config())
    changed = FROM | {"data_sha256": {"train": "bb"}}
    with pytest.raises(RunDirectoryError, match=r"other settings: from\.data_sha256\.train; restore them"):
        RunDirectory(target).open(config(), changed, resume=True)


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="file/one: cannot be written: "):
        RunDirectory(tmp_path / "file" / "one").open(config(), FROM, resume=False)


def test_metrics_can_be_written_anew(target: Path) -> None:
    run = RunDirectory(target)
    run.open(config(), FROM, resume=False)
    run.record(Stage("a", "b"))
    run.replace_metrics([{"event": "step", "step": 1}])
    assert (run.partial / "metrics.jsonl").read_text() == '{"event": "step", "step": 1}\n'
    run.close()


def test_resume_where_nothing_is_unfinished_starts_afresh(target: Path) -> None:
    run = RunDirectory(target)
    run.open(config(), FROM, resume=True)
    assert (run.partial / "config.yaml").read_text(encoding="utf-8") == config().to_yaml()
    run.close()


def test_what_was_killed_before_its_config_stood_is_cleared_away(target: Path) -> None:
    partial = target.with_name("one.partial")
    partial.mkdir(parents=True)
    (partial / ".identity.json").write_text('{"task": "text-cl')
    run = RunDirectory(target)
    run.open(config(), FROM, resume=False)
    assert contents(partial) == {"config.yaml", "identity.json"}
    run.close()


def test_a_run_that_another_process_works_on_is_refused(target: Path) -> None:
    lock = RunDirectory(target)._lock.lock_file
    target.parent.mkdir(parents=True)
    holder = (
        f"import filelock, sys; lock = filelock.FileLock({str(lock)!r}); lock.acquire(); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunDirectoryError, match=r"one\.partial: another process is working on this run"):
            RunDirectory(target).open(config(), FROM, resume=True)
        assert not target.with_name("one.partial").exists()
        process.communicate()
    run = RunDirectory(target)
    run.open(config(), FROM, resume=True)  # a process that is gone holds nothing
    run.close()


def test_a_failed_run_stays_only_if_it_can_be_resumed(target: Path) -> None:
    run = RunDirectory(target)
    run.open(config(), FROM, resume=False)
    run.record(Stage("train", "x"))
    run.abandon()
    assert contents(target.parent) == set()
    unfinished(target, config())
    run = RunDirectory(target)
    run.open(config(), FROM, resume=True)
    run.abandon()
    assert contents(target.parent) == {
        "one.partial",
        "one.partial/config.yaml",
        "one.partial/identity.json",
        "one.partial/checkpoints",
        "one.partial/checkpoints/step-000000001",
    }


def test_environment_names_the_libraries_and_the_machine() -> None:
    import numpy

    found = environment()
    assert found["versions"]["numpy"] == numpy.__version__
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] >= 1


def test_size_counts_all_files_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "x").write_bytes(b"123")
    (tmp_path / "a" / "b" / "y").write_bytes(b"4567")
    assert size_bytes(tmp_path) == 7
