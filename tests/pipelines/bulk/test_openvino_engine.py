"""OpenVINO's logits are those of PyTorch, whatever the order and the batch; nothing reaches for the network."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.backbones import Backbone, load_text_backbone
from pipelines.bulk import openvino_engine
from pipelines.bulk.openvino_engine import OpenVinoEngine, available, load_openvino
from pipelines.config import BackboneConfig
from pipelines.errors import BackboneError, ConfigError
from pipelines.predict import predict_logits
from pipelines.records import FloatArray
from tests.toys import ARCHITECTURES, tiny_backbone, toy_rows

pytestmark = pytest.mark.skipif(not available(), reason="openvino is not installed")
needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")

TEXTS = [row["text"] for row in toy_rows(24, seed=3)] + ["cat"]
OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    print("network:", args[:2])
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import multiprocessing
multiprocessing.Process.start = refuse  # the reports are sent by a child process
from pathlib import Path
from pipelines.backbones import load_text_backbone
from pipelines.bulk.openvino_engine import OpenVinoEngine
from pipelines.config import BackboneConfig
backbone = load_text_backbone(BackboneConfig(name=sys.argv[1]), ("calm", "harsh"), 64, 0)
for precision in sys.argv[2:]:
    OpenVinoEngine(backbone, precision, backbone.encode(["the cat sleeps"]))
assert sys.modules["openvino_telemetry"] is None
"""


def toy(model_type: str = "bert", **changes: Any) -> Backbone:
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_backbone(Path(folder), model_type, **changes)
        backbone = load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh", "other"), 64, 0)
    backbone.model.eval()
    return backbone


@functools.cache
def fp32() -> tuple[Backbone, OpenVinoEngine]:
    """A toy BERT and its engine, made once."""
    backbone = toy()
    return backbone, OpenVinoEngine(backbone, "fp32")


def has_bf16() -> bool:
    return "BF16" in load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def clear(logits: FloatArray) -> Any:
    """Which items, (N,), have a margin that rounding does not reach."""
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    return first - second > 0.2


@pytest.mark.parametrize(
    "model_type", [pytest.param(name, marks=[] if name == "bert" else [pytest.mark.slow]) for name in ARCHITECTURES]
)
def test_logits_are_those_of_pytorch(model_type: str) -> None:
    backbone = toy(model_type)
    encodings = backbone.encode(TEXTS)
    with torch.inference_mode():  # one by one and by the model alone
        plain = [backbone.model(**backbone.collate([encoding])).logits for encoding in encodings]
    found = OpenVinoEngine(backbone, "fp32").logits(encodings)
    assert found.dtype == np.float64
    assert found == pytest.approx(torch.cat(plain).double().numpy(), abs=1e-3)
    assert np.ptp(found, axis=0).min() > 0.01  # the toy tells the texts apart


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=40))
def test_order_and_neighbours_make_no_difference(numbers: list[int]) -> None:
    backbone, engine = fp32()
    encodings = backbone.encode(TEXTS)
    expected = predict_logits(backbone, encodings, "fp32")[numbers]
    assert engine.logits([encodings[i] for i in numbers]) == pytest.approx(expected, abs=1e-3)


def test_batches_of_several_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, engine = fp32()
    encodings = backbone.encode(TEXTS)
    expected = predict_logits(backbone, encodings, "fp32")
    for tokens in (1, 40, 100):
        monkeypatch.setattr(openvino_engine, "BATCH_TOKENS", tokens)
        assert engine.logits(encodings) == pytest.approx(expected, abs=1e-3)


def test_nothing_to_do() -> None:
    assert fp32()[1].logits([]).shape == (0, 3)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=needs_nncf)])
def test_low_precision_agrees_on_clear_items(precision: Any) -> None:
    if precision == "bf16" and not has_bf16():
        pytest.skip("this CPU has no bf16 instructions")
    backbone = toy()
    encodings = backbone.encode(TEXTS)
    expected = predict_logits(backbone, encodings, "fp32")
    sure = clear(expected)
    assert sure.sum() >= 5
    found = OpenVinoEngine(backbone, precision, encodings).logits(encodings)
    assert (found.argmax(axis=1) == expected.argmax(axis=1))[sure].all()
    assert 0 < np.abs(found - expected).max() < 0.2  # it is another precision, and close


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_nncf)])
def test_equal_settings_give_equal_bits(precision: Any) -> None:
    backbone = toy()
    encodings = backbone.encode(TEXTS)
    first, second = (OpenVinoEngine(backbone, precision, encodings) for _ in range(2))
    assert first.settings == second.settings
    once = first.logits(encodings)
    assert (first.logits(encodings[:7]) == first.logits(encodings[:7])).all()
    for again in (first.logits(encodings), second.logits(encodings)):
        assert again.tobytes() == once.tobytes()


@needs_nncf
def test_settings_tell_what_decides_the_bits(capfd: pytest.CaptureFixture[str]) -> None:
    backbone = toy()
    encodings = backbone.encode(TEXTS)
    engine = OpenVinoEngine(backbone, "int8", encodings)
    other = OpenVinoEngine(backbone, "int8", encodings[:3])
    assert engine.settings["precision"] == "int8"
    assert engine.settings["threads"] == torch.get_num_threads()
    assert engine.settings | {"calibrated_on": ""} == other.settings | {"calibrated_on": ""}
    assert engine.settings["calibrated_on"] != other.settings["calibrated_on"]
    assert "INFO" not in capfd.readouterr().out


def test_later_changes_of_the_model_make_no_difference() -> None:
    """The weights are copied: another engine may cast them in place."""
    backbone = toy()
    engine = OpenVinoEngine(backbone, "fp32")
    encodings = backbone.encode(TEXTS)
    before = engine.logits(encodings)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            parameter.zero_()
    assert (engine.logits(encodings) == before).all()


def test_the_model_is_left_as_it_was() -> None:
    backbone = toy("llama")
    before = predict_logits(backbone, backbone.encode(TEXTS), "fp32")
    OpenVinoEngine(backbone, "fp32")
    assert "forward" not in vars(backbone.layers[-1])
    assert backbone.model.config.use_cache is True
    assert (predict_logits(backbone, backbone.encode(TEXTS), "fp32") == before).all()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_nncf)])
def test_usage_reports_are_off(precision: str, tmp_path: Path) -> None:
    path, home = tiny_backbone(tmp_path / "tiny"), tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OFFLINE, str(path), precision],
        env=os.environ | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not (home / "intel").exists()  # where it would keep the user's number


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy()
    with pytest.raises(ConfigError, match="needs texts to be calibrated on"):
        OpenVinoEngine(backbone, "int8")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"int8 needs nncf: pip install 'rootstock\[openvino\]'"):
        OpenVinoEngine(backbone, "int8", backbone.encode(TEXTS))
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not available()
    with pytest.raises(ConfigError, match=r"OpenVINO is not installed: pip install 'rootstock\[openvino\]'"):
        OpenVinoEngine(backbone, "fp32")


def test_bf16_needs_a_cpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        def get_property(self, *_: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(load_openvino(), "Core", Old)
    with pytest.raises(ConfigError, match="this CPU has no bf16 instructions"):
        OpenVinoEngine(toy(), "bf16")


def test_a_model_that_is_no_graph_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = toy()
    plain = type(backbone.layers[0]).forward

    def forward(self: Any, states: torch.Tensor, *args: Any, **options: Any) -> Any:
        if float(states.sum()) > 1e9:  # a branch on values
            raise AssertionError
        return plain(self, states, *args, **options)

    monkeypatch.setattr(type(backbone.layers[0]), "forward", forward)
    with pytest.raises(BackboneError, match="cannot be exported: "):
        OpenVinoEngine(backbone, "fp32")
