"""The same product on one CUDA device. Skipped without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.backbones.text import load_saved_model
from pipelines.classify import classify
from pipelines.config import RunConfig
from pipelines.device import best_precision, device
from pipelines.predict import predict_logits
from pipelines.records import Classified
from pipelines.run import finetune
from tests.toys import toy_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_it_learns_on_a_gpu(
    precision: str, adapter: str, make_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    training = {"precision": precision, "epochs": 12}
    config = make_config(training=training, adapter={"type": adapter, "r": 4}, baselines=["majority"])
    list(finetune(config, tmp_path / "run"))
    history = json.loads((tmp_path / "run/report.json").read_text())["training"]["history"]
    assert max(event["macro_f1"] for event in history if event["event"] == "validation") > 0.8
    assert json.loads((tmp_path / "run/manifest.json").read_text())["device"].startswith("cuda")


def test_logits_agree_with_the_cpu(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    list(finetune(make_config(baselines=[]), tmp_path / "run"))
    backbone = load_saved_model(tmp_path / "run/model")
    encodings = backbone.encode([row["text"] for row in toy_rows(30, seed=2)])
    gpu = predict_logits(backbone, encodings, "fp32")
    with torch.inference_mode():
        cpu_model = backbone.model.cpu().eval()
        cpu = np.concatenate([cpu_model(**backbone.collate([e])).logits.numpy() for e in encodings])
    np.testing.assert_allclose(gpu, cpu, atol=1e-4)


def test_auto_takes_half_precision_and_classifies(make_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    assert device().type == "cuda"
    assert best_precision() in ("bf16", "fp16")
    list(finetune(make_config(training={"precision": "auto"}, baselines=[]), tmp_path / "run"))
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in toy_rows(20, seed=4)), encoding="utf-8")
    *_, last = classify([tmp_path / "run"], str(source), tmp_path / "out.jsonl")
    assert isinstance(last, Classified)
    assert last.summary["rows"] == 20
