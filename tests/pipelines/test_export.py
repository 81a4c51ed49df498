"""Exports that other runtimes load without Rootstock, equal to PyTorch; complete or absent."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipelines.export
from pipelines import durable
from pipelines.backbones import Backbone
from pipelines.errors import BackboneError, ConfigError, RunDirectoryError
from pipelines.export import FORMATS, export
from pipelines.predict import predict_logits
from pipelines.saved_run import SavedRun
from tests.runs import run
from tests.toys import ARCHITECTURES, tiny_backbone, toy_config, toy_rows

NEEDED = {"transformers": (), "onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
INSTALLED = [f for f in FORMATS if all(importlib.util.find_spec(name) for name in NEEDED[f])]
TEXTS = [row["text"] for row in toy_rows(40, seed=5)] + ["cat"]

# A user's script: it knows nothing of Rootstock, and the network is out of reach.
ELSEWHERE = """
import json, socket, sys
def refuse(*args, **kwargs):
    raise OSError("no network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.modules["pipelines"] = sys.modules["service"] = sys.modules["openvino_telemetry"] = None
from transformers import AutoTokenizer
format, path = sys.argv[1:3]
texts = json.load(open(sys.argv[3], encoding="utf-8"))
inputs = dict(AutoTokenizer.from_pretrained(path)(texts, padding=True, truncation=True, return_tensors="np"))
if format == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(path + "/model.onnx", providers=["CPUExecutionProvider"])
    assert {axis for entry in session.get_inputs() for axis in entry.shape} == {"batch", "sequence"}
    logits = session.run(["logits"], {entry.name: inputs[entry.name] for entry in session.get_inputs()})[0]
elif format == "openvino":
    import openvino
    model = openvino.Core().compile_model(path + "/openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    logits = model({name: inputs[name] for name in ("input_ids", "attention_mask")})["logits"]
else:
    import torch
    from transformers import AutoModelForSequenceClassification
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits.numpy()
labels = json.load(open(path + "/config.json"))["id2label"]
json.dump([logits.tolist(), [labels[str(i)] for i in logits.argmax(axis=1)]], open(sys.argv[4], "w"))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("model")
    run(toy_config(folder, rows=100, baselines=["majority"], training={"epochs": 12}), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(model: Path) -> Path:
    """All formats whose packages are installed."""
    export(model, INSTALLED, model.parent / "exported")
    return model.parent / "exported"


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_another_program_gets_the_same_logits(format: str, model: Path, exported: Path, tmp_path: Path) -> None:
    if format not in INSTALLED:
        pytest.skip(f"{', '.join(NEEDED[format])}: not all installed")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    files = [str(tmp_path / "texts.json"), str(tmp_path / "logits.json")]
    command = [sys.executable, "-c", ELSEWHERE, format, str(exported / format), *files]
    subprocess.run(
        command, check=True, cwd=tmp_path, env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path)}
    )
    logits, labels = json.loads((tmp_path / "logits.json").read_text())
    saved = SavedRun(model)
    backbone = saved.model()
    expected = predict_logits(backbone, backbone.encode(TEXTS), "fp32")
    assert np.asarray(logits) == pytest.approx(expected, abs=1e-3)
    assert labels == [saved.labels[number] for number in expected.argmax(axis=1)]
    assert len(set(labels)) == 2


def test_what_lies_where(exported: Path) -> None:
    own = {"transformers": {"model.safetensors"}, "onnx": {"model.onnx"}}
    own["openvino"] = {"openvino_model.xml", "openvino_model.bin"}
    for format in INSTALLED:
        names = {path.name for path in (exported / format).iterdir()}
        assert names == own[format] | {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in exported.iterdir()} == {*INSTALLED, "manifest.json"}


def test_files_do_not_tell_where_they_were_made(exported: Path) -> None:
    here = [str(Path(path).resolve()).encode() for path in (sys.prefix, pipelines.__path__[0], exported)]
    for path in (path for path in exported.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert not [name for name in here if name in content], path


def test_the_manifest_tells_what_was_checked(model: Path, exported: Path) -> None:
    manifest = durable.verify(exported)
    assert (manifest["kind"], manifest["from"], manifest["labels"]) == ("export", "run", ["calm", "harsh"])
    assert manifest["model_sha256"] == durable.verify(model)["sha256"]["model/model.safetensors"]
    assert list(manifest["formats"]) == INSTALLED
    for format, found in manifest["formats"].items():
        assert 0 <= found["max_difference"] < 1e-3
        assert found["texts"] == 32
        sizes = [path.stat().st_size for path in (exported / format).iterdir()]
        assert found["size_bytes"] == sum(sizes)
        assert found["runtime"].split()[0] == {"onnx": "onnxruntime"}.get(format, format)


QUICK = ("bert",)  # the others are left to make test-slow: ten seconds each
TYPES = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in ARCHITECTURES]


@pytest.mark.parametrize("model_type", TYPES)
def test_every_architecture(model_type: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_backbone(tmp_path / "tiny", model_type)
    raw = toy_config(tmp_path, baselines=["majority"], training={"epochs": 1})
    run(raw, tmp_path / "run")
    capfd.readouterr()
    found = export(tmp_path / "run", INSTALLED, tmp_path / "out")["formats"]
    assert list(found) == INSTALLED
    assert max(details["max_difference"] for details in found.values()) < 1e-3
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("format", INSTALLED)
def test_an_export_that_does_not_agree_is_refused(
    format: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pipelines.export._WRITERS[format]

    def write_another(backbone: Backbone, source: Path, target: Path) -> None:
        with torch.no_grad():
            backbone.model.classifier.bias.add_(torch.tensor([0.0, 0.01]))
        write(backbone, source, target)
        if format == "transformers":
            backbone.model.save_pretrained(target)

    monkeypatch.setitem(pipelines.export._WRITERS, format, write_another)
    with pytest.raises(BackboneError, match=rf"^{format}: .* found a difference of 0\.01 and \d+ other labels on 32"):
        export(model, ["transformers", format] if format != "transformers" else [format], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_no_numbers_are_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> Any:
        return lambda inputs: np.full((len(inputs["input_ids"]), 2), np.nan)

    monkeypatch.setitem(pipelines.export._OPENERS, "transformers", broken)
    with pytest.raises(BackboneError, match="found a difference of inf"):
        export(model, ["transformers"], tmp_path / "out")


def test_what_stands_there_is_kept(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RunDirectoryError, match=r"out: exists already; choose another --out or delete it"):
        export(model, ["transformers"], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_killed_export_left_is_replaced(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "half").write_text("x", encoding="utf-8")
    export(model, ["transformers", "transformers"], tmp_path / "out")
    durable.verify(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"transformers", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_at_once_are_refused(model: Path, tmp_path: Path) -> None:
    with pipelines.export._staging(tmp_path / "out") as partial:
        assert partial.is_dir()
        with pytest.raises(RunDirectoryError, match="another process is working on this export"):
            export(model, ["transformers"], tmp_path / "out")


def test_misuse_is_refused_with_a_reason(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for formats, found in ((["onnx", "pickle"], "'pickle'"), ([], "none")):
        with pytest.raises(ConfigError, match=f"expected formats of transformers, onnx, openvino, found {found}"):
            export(model, formats, tmp_path / "out")
    with pytest.raises(RunDirectoryError, match="no such directory"):
        export(tmp_path / "nothing", ["transformers"], tmp_path / "out")
    for format, needs in (("onnx", "onnx, onnxscript and onnxruntime"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, NEEDED[format][-1], None)
        with pytest.raises(ConfigError, match=rf"export to {format} needs {needs}: pip install 'rootstock\[export\]'"):
            export(model, [format], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
