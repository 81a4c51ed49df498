"""runs.jsonl: what has ended survives a kill; what was being written when it came does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.config import RunConfig
from pipelines.durable import MANIFEST, verify
from pipelines.errors import RunDirectoryError
from pipelines.sweep.runs import RUNS, SweepDirectory
from tests.pipelines.sweep.made import run, runs, setting

MakeConfig = Callable[..., RunConfig]
ONE, TWO = setting(0.001), setting(0.002)


@pytest.fixture
def directory(make_config: MakeConfig, tmp_path: Path) -> SweepDirectory:
    """Open."""
    made = SweepDirectory(tmp_path / "out")
    made.open(make_config(), {"kind": "sweep"}, resume=False)
    return made


def reopened(directory: SweepDirectory, config: RunConfig) -> SweepDirectory:
    directory.close()
    again = SweepDirectory(directory.target)
    again.open(config, {"kind": "sweep"}, resume=True)
    return again


def test_what_is_kept_is_read_back(directory: SweepDirectory, make_config: MakeConfig) -> None:
    ended = [run(ONE, 0, 0.5, 0.75), run(TWO, 0, 0.25, state="pruned", store=None)]
    assert directory.runs() == []
    for each in ended:
        directory.keep(each)
    assert reopened(directory, make_config()).runs() == ended
    lines = (directory.partial / RUNS).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["macro_f1"] for line in lines] == [0.75, 0.25]


@pytest.mark.parametrize("left", [1, 20, 10_000])
def test_a_line_that_was_cut_off_is_dropped_and_the_next_one_is_whole(left: int, directory: SweepDirectory) -> None:
    """Cut after one byte, in the middle, or just before its line end."""
    directory.keep(run(ONE, 0, 0.5))
    path = directory.partial / RUNS
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1][:left])
    assert directory.runs() == [run(ONE, 0, 0.5)]
    assert path.read_bytes() == whole
    directory.keep(run(ONE, 1, 0.75))
    assert directory.runs() == [run(ONE, 0, 0.5), run(ONE, 1, 0.75)]


def test_another_line_that_cannot_be_read_is_named(directory: SweepDirectory) -> None:
    directory.keep(run(ONE, 0, 0.5))
    path = directory.partial / RUNS
    path.write_bytes(b'{"setting": 1}\n' + path.read_bytes())
    with pytest.raises(RunDirectoryError, match=r"runs\.jsonl, line 1: not a training of a sweep"):
        directory.runs()


def test_after_a_failure_what_has_ended_stays(directory: SweepDirectory, make_config: MakeConfig) -> None:
    directory.keep(run(ONE, 0, 0.5))
    directory.abandon()
    assert directory.partial.is_dir()
    assert len(reopened(directory, make_config()).runs()) == 1


def test_after_a_failure_before_anything_has_ended_nothing_stays(directory: SweepDirectory) -> None:
    directory.abandon()
    assert not directory.partial.exists()


def test_killed_while_it_is_published_a_sweep_loses_nothing(
    directory: SweepDirectory, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the manifest and the rename, the last moment at which it can happen."""
    directory.keep(run(ONE, 0, 0.5))

    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if target == directory.target:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            directory.finish()
    assert (directory.partial / MANIFEST).exists()
    again = reopened(directory, make_config())
    assert len(again.runs()) == 1
    again.finish()
    assert verify(again.target)["kind"] == "sweep"
    assert not again.partial.exists()


def test_a_training_says_what_it_had_reached_when() -> None:
    """Of 3 epochs: 33, 67 and 100 percent; later scores that are worse do not count."""
    own = run(ONE, 0, 0.5, 0.75, 0.25)
    assert own.macro_f1 == 0.75
    assert [own.reached(percent) for percent in (32, 33, 50, 67, 100)] == [None, 0.5, 0.5, 0.75, 0.75]
    assert own.by_percent() == [(33, 0.5), (67, 0.75), (100, 0.25)]


def test_one_training_that_is_not_complete_drops_its_setting() -> None:
    found = runs(run(ONE, 0, 0.9), run(TWO, 0, 0.5), run(ONE, 1, 0.1, state="pruned"))
    assert (found.dropped(ONE.name), found.dropped(TWO.name)) == (True, False)
    assert found.leader == TWO.name
    assert found.has(ONE.name, 1)
    assert not found.has(TWO.name, 1)
    assert len(found.complete) == 2
    assert runs().leader is None


def test_the_leader_has_the_highest_mean() -> None:
    found = runs(run(ONE, 0, 0.9), run(ONE, 1, 0.5), run(TWO, 0, 0.8), run(TWO, 1, 0.75))
    assert found.leader == TWO.name
