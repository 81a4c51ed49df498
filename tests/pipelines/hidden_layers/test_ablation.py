"""A layer left out passes its input on, on every architecture, and is back afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.backbones import load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.hidden_layers.ablation import left_out
from pipelines.predict import predict_logits
from tests.toys import ARCHITECTURES, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(6)]


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_leaving_out_is_the_same_as_not_having_the_layer(model_type: str, tmp_path: Path) -> None:
    backbone = load_text_backbone(
        BackboneConfig(name=str(tiny_backbone(tmp_path / "b", model_type))), ("calm", "harsh"), 32, seed=0
    )
    encodings = backbone.encode(TEXTS)
    whole = predict_logits(backbone, encodings, "fp32")
    with left_out(backbone, backbone.layers[2]):
        without = predict_logits(backbone, encodings, "fp32")
    assert not np.allclose(whole, without)
    assert np.array_equal(predict_logits(backbone, encodings, "fp32"), whole)
    layers = backbone.model.get_submodule(backbone.layers_path)
    assert isinstance(layers, torch.nn.ModuleList)
    del layers[2]
    assert np.allclose(predict_logits(backbone, encodings, "fp32"), without, atol=1e-5)
