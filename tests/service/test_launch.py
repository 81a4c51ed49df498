"""Several processes on one machine: the same result as one, by our launcher and by torchrun; stopped and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import load_file

from pipelines.config import parse_config
from pipelines.errors import ConfigError, DataError, RunDirectoryError
from service.launch import check_first
from tests.runs import client_config, first_run, report, system, table
from tests.toys import tiny_backbone, toy_config, toy_rows, write_csv, write_yaml

ENVIRONMENT = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
ROOTSTOCK = [sys.executable, "-m", "service.cli", "finetune"]


def prepared(folder: Path, dropout: float, **training: Any) -> Path:
    """A config of 50 steps: 397 uneven items, so that the last batch is short and odd."""
    tiny_backbone(folder / "tiny", hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    rows = toy_rows(500)
    for row in rows[:150]:
        row["label"] = "calm"
    parts = {"train": rows[:397], "validation": rows[400:450], "test": rows[450:]}
    data = {name: str(write_csv(folder / f"{name}.csv", part)) for name, part in parts.items()}
    settings = {"epochs": 1, "class_weights": "balanced"} | training
    raw = toy_config(folder, data=data, training=settings, baselines=["majority"])
    return write_yaml(folder / "config.yaml", raw)


def finetune(config: Path, out: str, *options: str) -> dict[str, Any]:
    command = [*ROOTSTOCK, str(config), "--out", str(config.parent / out), *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(config.parent / out / "model/model.safetensors")


def assert_agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Within 1e-4, but for key biases: softmax cancels them, their gradient is rounding noise that Adam scales up."""
    for name in one:
        if not name.endswith("self.key.bias"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-4, err_msg=name)


def assert_agree_with_one(folder: Path, cache: str, command: list[str]) -> None:
    """Dropout 0, class weights, fp32, 50 steps; one process without the store, then `command` with or without it."""
    config = prepared(folder, dropout=0.0)
    one = finetune(config, "one", "--processes", "1", "--set", "backbone.cache=off")
    start = load_file(folder / "tiny/model.safetensors")
    weight = "encoder.layer.2.output.dense.weight"
    assert np.abs(one["bert." + weight] - start[weight]).max() > 0.05  # far more than the tolerance
    options = ["--set", f"backbone.cache={cache}", "--set", "evaluation.learning_curve=[0.25]"]
    options += [] if "torch.distributed.run" in command else ["--processes", "2"]
    environment = ENVIRONMENT | {"ROOTSTOCK_STORE": str(folder / "store")}
    command = [*command, "finetune", str(config), *options, "--out", str(folder / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_agree(one, load_file(folder / "two/model/model.safetensors"))
    assert json.loads((folder / "two/manifest.json").read_text())["processes"] == 2
    assert system(folder / "two", "fine-tuned")["store"] == {"on": "cold", "off": "off"}[cache]
    points = report(folder / "two")["learning_curve"]["curves"][0]["points"]
    assert [point["items"] for point in points] == [99, 396]  # one is a duplicate of a test item


OURS = [sys.executable, "-m", "service.cli"]
TORCHRUN = [
    sys.executable,
    *["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "service.cli"],
]


@pytest.mark.slow
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """Both compute a share of the hidden states that are kept."""
    assert_agree_with_one(tmp_path, "on", OURS)


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "command"), [("off", OURS), ("on", TORCHRUN), ("off", TORCHRUN)])
def test_two_processes_agree_with_one_however_started(cache: str, command: list[str], tmp_path: Path) -> None:
    assert_agree_with_one(tmp_path, cache, command)


@pytest.mark.slow
def test_two_processes_sweep_as_one_does(tmp_path: Path) -> None:
    """Every training is kept once, with the scores of one process; both share the hidden states."""
    config = prepared(tmp_path, dropout=0.0, epochs=2)
    options = ["--vary", "training.learning_rate=0.01,1e-6", "--seeds", "2", "--set", "backbone.cache=on"]
    ended = {}
    for name, command in (("one", OURS), ("two", TORCHRUN)):
        environment = ENVIRONMENT | {"ROOTSTOCK_STORE": str(tmp_path / f"store-{name}")}
        whole = [*command, "sweep", str(config), *options, "--out", str(tmp_path / name)]
        done = subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "runs.jsonl").read_text(encoding="utf-8").splitlines()
        ended[name] = [json.loads(line) for line in lines]
    for one, two in zip(ended["one"], ended["two"], strict=True):
        assert (one["setting"], one["seed"], one["state"]) == (two["setting"], two["seed"], two["state"])
        assert two["scores"] == pytest.approx(one["scores"], abs=0.05)
    assert [run["store"] for run in ended["two"]] == ["cold", "warm", "warm", "warm"]
    assert json.loads((tmp_path / "two/manifest.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_an_error_in_two_processes_is_one_message(tmp_path: Path) -> None:
    config = prepared(tmp_path, dropout=0.0)
    command = [*ROOTSTOCK, str(config), "--processes", "2", "--set", "data.text=body"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("no column 'body'") == 1
    assert "Traceback" not in done.stderr


def test_before_several_processes_start_the_run_before_is_taken_into_account(tmp_path: Path) -> None:
    """A class that only it knows may be tested; its items and another backbone may not."""
    first = first_run(tmp_path, baselines=[])
    raw = client_config(tmp_path, first)
    rows = toy_rows(40, seed=1)
    write_csv(tmp_path / "client1.csv", [row | {"label": {"harsh": "odd"}.get(row["label"], "calm")} for row in rows])
    check_first(parse_config(raw), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"backbone\.name: expected .*tiny, as in the run at start_from"):
        check_first(parse_config(raw | {"backbone": {"name": "other/model"}}), tmp_path / "out")
    with pytest.raises(RunDirectoryError, match="first: a complete run is here already"):
        check_first(parse_config(raw), first)
    seen = table(first, "training_items")
    write_csv(tmp_path / "client1-test.csv", [{"text": seen["text"][0], "label": "calm"}])
    with pytest.raises(
        DataError, match=r"client1-test\.csv, line 2: the run of start_from has seen 1 of the test items"
    ):
        check_first(parse_config(raw), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_keeps_a_checkpoint_and_resume_ends_bit_for_bit(processes: str, tmp_path: Path) -> None:
    config = prepared(tmp_path, dropout=0.1, epochs=12)
    options = ["--processes", processes, "--set", "backbone.cache=on"]
    whole = finetune(config, "whole", *options)
    out = tmp_path / "parts"
    command = [*ROOTSTOCK, str(config), "--out", str(out), *options]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "parts.partial").glob("checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    assert "--resume" in errors
    assert not out.exists()
    resumed = finetune(config, "parts", *options, "--resume")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


UNFREEZING = ["--set", "training.unfreeze=epoch", "--set", "training.layer_decay=0.5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        [*UNFREEZING, "--set", "backbone.freeze=none", "--set", "training.unfreeze_layers=2"],
        ["--set", "adapter.type=lora", "--set", "adapter.dropout=0"],
    ],
)
def test_two_processes_agree_with_one_whatever_is_trained(options: list[str], tmp_path: Path) -> None:
    """Gradients of what is opened later are exchanged too, those of the embeddings among them."""
    config = prepared(tmp_path, dropout=0.0, epochs=3)
    one, two = (finetune(config, count, "--processes", count, *options) for count in ("1", "2"))
    assert_agree(one, two)


@pytest.mark.slow
def test_gradual_unfreezing_in_two_processes_is_killed_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    """Killed with one hidden layer of two open."""
    config = prepared(tmp_path, dropout=0.1, epochs=4)
    options = ["--processes", "2", "--set", "backbone.cache=on", *UNFREEZING]
    whole = finetune(config, "whole", *options)
    command = [*ROOTSTOCK, str(config), "--out", str(tmp_path / "parts"), *options]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list((tmp_path / "parts.partial").glob("checkpoints/step-000000050-*/manifest.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    parent = psutil.Process(process.pid)
    for each in (*parent.children(recursive=True), parent):
        each.kill()  # as a power cut does
    process.communicate(timeout=60)
    resumed = finetune(config, "parts", *options, "--resume")
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_auto_uses_every_gpu(tmp_path: Path) -> None:
    config = prepared(tmp_path, dropout=0.0)
    command = [*ROOTSTOCK, str(config), "--out", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["processes"] == torch.cuda.device_count()
