"""`rootstock probe` end to end on toy data, and `freeze: auto` in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.config import parse_config
from pipelines.errors import Interrupted, RunDirectoryError
from pipelines.probe import probe
from pipelines.records import Probed, Stage
from pipelines.run import finetune
from tests.runs import report, run, without_times
from tests.toys import toy_config


def probed(raw: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What the last event says."""
    last = list(probe(parse_config(raw), **options))[-1]
    assert isinstance(last, Probed)
    return last.probe


def test_every_layer_is_probed_and_depths_are_tried(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, data={"slices": ["kind"]})
    found = probed(raw, out=tmp_path / "out")
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2, 3]
    assert {s["value"] for s in found["layers"][0]["slices"]} == {"long", "short"}
    assert found["depth"] in [r["depth"] for r in found["short_runs"]]
    assert len(found["short_runs"]) >= 2
    assert json.loads((tmp_path / "out" / "probe.json").read_text(encoding="utf-8")) == found
    page = (tmp_path / "out" / "probe.html").read_text(encoding="utf-8")
    assert f"Freeze {found['depth']} of 3" in page
    assert "<script" not in page


def test_without_short_runs_the_advice_says_so(tmp_path: Path) -> None:
    found = probed(toy_config(tmp_path), confirm=False)
    assert found["short_runs"] == []
    assert found["depth"] == min(found["enough"], 2)
    assert "no short run" in found["sentence"]


@pytest.mark.parametrize("sections", [{"training": {"unfreeze": "epoch"}}, {"adapter": {"type": "lora"}}])
def test_how_it_will_be_trained_does_not_change_what_the_layers_know(sections: dict[str, Any], tmp_path: Path) -> None:
    """The toy config has too few epochs to open every layer, were nothing frozen."""
    plain = probed(toy_config(tmp_path), confirm=False)
    assert probed(toy_config(tmp_path, **sections), confirm=False) == plain


def test_the_same_data_give_the_same_advice(tmp_path: Path) -> None:
    raw = toy_config(tmp_path)
    assert without_times(probed(raw)) == without_times(probed(raw))


def test_what_exists_is_not_overwritten_and_a_stop_leaves_nothing(tmp_path: Path) -> None:
    raw = toy_config(tmp_path)
    (tmp_path / "there").mkdir()
    with pytest.raises(RunDirectoryError, match="exists"):
        list(probe(parse_config(raw), tmp_path / "there"))
    with pytest.raises(Interrupted):
        list(probe(parse_config(raw), tmp_path / "out", stop=lambda: True))
    assert not list(tmp_path.glob("*out*"))


def test_freeze_auto_trains_at_the_depth_that_it_has_chosen(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, backbone={"freeze": "auto"}, training={"learning_rate": "auto"})
    run(raw, tmp_path / "auto")
    inside = report(tmp_path / "auto")["hidden_layers"]
    depth = inside["probe"]["depth"]
    written = yaml.safe_load((tmp_path / "auto" / "config.yaml").read_text(encoding="utf-8"))
    assert inside["chosen"]
    assert written["backbone"]["freeze"] == depth
    run(toy_config(tmp_path, backbone={"freeze": depth}, training={"learning_rate": "auto"}), tmp_path / "fixed")
    assert weights(tmp_path / "auto") == weights(tmp_path / "fixed")
    assert not (tmp_path / "auto" / "depth.json").exists()


def test_freeze_auto_works_with_lora(tmp_path: Path) -> None:
    run(toy_config(tmp_path, backbone={"freeze": "auto"}, adapter={"type": "lora"}), tmp_path / "auto")
    assert (tmp_path / "auto" / "adapter").is_dir()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Config and directory of a run that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole")
    raw = toy_config(folder, backbone={"freeze": "auto"})
    run(raw, folder / "whole")
    return raw, folder / "whole"


@pytest.mark.parametrize("after", ["probe", "short run", "depth", "train"])
def test_a_stopped_run_goes_on_with_the_same_choice(
    after: str, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    raw, undisturbed = whole
    seen: list[str] = []
    events = finetune(parse_config(raw), tmp_path / "halves", stop=lambda: after in seen)
    with pytest.raises(Interrupted):
        seen.extend(event.name for event in events if isinstance(event, Stage))
    run(raw, tmp_path / "halves", resume=True)
    assert weights(tmp_path / "halves") == weights(undisturbed)
    assert without_times(report(tmp_path / "halves")) == without_times(report(undisturbed))


def weights(path: Path) -> bytes:
    return (path / "model" / "model.safetensors").read_bytes()
