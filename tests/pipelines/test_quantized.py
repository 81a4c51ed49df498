"""LoRA on a backbone of few bits: what is quantized, what is trained, and that the original weights come back."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipelines.backbones import load_text_backbone
from pipelines.config import BackboneConfig, parse_config
from pipelines.errors import ConfigError
from pipelines.predict import predict_logits
from pipelines.saved_run import SavedRun
from pipelines.tune import prepare
from tests.runs import report, run, system
from tests.toys import ARCHITECTURES, tiny_backbone, toy_config

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'rootstock[quantized]'"
)


def config(folder: Path, bits: str, **sections: Any) -> dict[str, Any]:
    """64 wide: blocks of 4 bits are that long."""
    if not (folder / "tiny").exists():
        tiny_backbone(folder / "tiny", hidden_size=64, intermediate_size=64)
    base: dict[str, Any] = {"backbone": {"quantize": bits}, "adapter": {"type": "lora", "r": 4}}
    return toy_config(folder, **base | sections)


@needs_bitsandbytes
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "llama", "modernbert"])
def test_matrices_of_the_hidden_layers_are_quantized(bits: Any, model_type: str, tmp_path: Path) -> None:
    assert model_type in ARCHITECTURES
    path = str(tiny_backbone(tmp_path / "tiny", model_type))
    backbone = load_text_backbone(BackboneConfig(name=path), ("a", "b"), 32, 0, bits)
    plain = load_text_backbone(BackboneConfig(name=path), ("a", "b"), 32, 0)
    assert backbone.quantized
    assert not plain.quantized
    heads = tuple(f"{path}." for path in backbone.head_paths)
    for name, parameter in backbone.model.named_parameters():
        matrix = f"{backbone.layers_path}." in name and name.endswith("weight") and "norm" not in name.lower()
        assert (parameter.dtype in (torch.uint8, torch.int8)) == matrix, name
        if name.startswith(heads):
            assert torch.equal(parameter.cpu(), dict(plain.model.named_parameters())[name])


@needs_bitsandbytes
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_run_ends_with_lora_on_the_original_weights(bits: str, tmp_path: Path) -> None:
    run(config(tmp_path, bits, training={"epochs": 12}, baselines=["majority"]), tmp_path / "out")
    base, saved = load_file(tmp_path / "tiny/model.safetensors"), load_file(tmp_path / "out/model/model.safetensors")
    name = "encoder.layer.0.output.dense.weight"  # below the cut
    assert torch.equal(base[name], saved["bert." + name])
    assert not torch.equal(base[name.replace(".0.", ".2.")], saved["bert." + name.replace(".0.", ".2.")])
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    assert any("lora_A" in key for key in load_file(tmp_path / "out/adapter/adapter_model.safetensors"))
    assert system(tmp_path / "out", "fine-tuned")["metrics"]["macro_f1"] > 0.8
    assert system(tmp_path / "out", "fine-tuned")["store"] == "off"
    assert "LoRA" in report(tmp_path / "out")["freeze_sentence"]
    model = SavedRun(tmp_path / "out").model()
    assert np.isfinite(predict_logits(model, model.encode(["the cat sleeps gladly"]), "fp32")).all()


@needs_bitsandbytes
def test_a_stopped_run_resumes_alike(tmp_path: Path) -> None:
    raw = config(tmp_path, "4bit", baselines=[])
    run(raw, tmp_path / "whole")
    calls = iter(range(1000))
    with pytest.raises(Exception, match="stopped"):
        run(raw, tmp_path / "parts", stop=lambda: next(calls) == 7)
    run(raw, tmp_path / "parts", resume=True)
    first, second = (tmp_path / name / "model/model.safetensors" for name in ("whole", "parts"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"type": "none"}}, r"quantize: 4bit without an adapter .*; set adapter\.type"),
        ({"start_from": "runs/first"}, r"cannot be combined with start_from"),
        ({"backbone": {"quantize": "4bit", "cache": "on"}}, r"cannot be combined with backbone\.cache: on"),
    ],
)
def test_what_does_not_go_with_few_bits(sections: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(config(tmp_path, "4bit", **sections))


def test_without_the_library_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes; pip install 'rootstock\[quantized\]'"):
        prepare(parse_config(config(tmp_path, "8bit")), ("calm", "harsh"), None)
