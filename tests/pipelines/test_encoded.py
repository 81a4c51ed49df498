"""Encoded items: logits of any of them, by the whole model or by what is above the cut."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from pipelines.activations import Computed
from pipelines.backbones import load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.encoded import Encoded, Replayed
from pipelines.lower_layers import trunk_layers
from pipelines.trunk import Freeze, Trunk
from tests.toys import ARCHITECTURES, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(12)]


@pytest.mark.parametrize("freeze", [1, 2, "all"])
def test_replayed_logits_are_those_of_the_whole_model_within_the_rounding(freeze: Freeze, tmp_path: Path) -> None:
    backbone = load_text_backbone(BackboneConfig(name=str(tiny_backbone(tmp_path / "t"))), ("calm", "harsh"), 32, 0)
    trunk, encodings = Trunk(backbone, freeze), backbone.encode(TEXTS)
    lower = trunk_layers(trunk, "fp32")
    assert lower is not None
    whole = Encoded(backbone, encodings)
    replayed = Replayed(trunk, encodings, Computed(lower, encodings), lower.kind == "pooled")
    assert replayed.lengths == whole.lengths == [len(ids) for ids in encodings]  # batches are the same
    numbers = np.array([7, 0, 3])
    with torch.inference_mode():
        model = backbone.model.eval()
        exact = whole.logits(model, numbers)
        alone = torch.cat([whole.logits(model, np.array([n])) for n in numbers])
        found = replayed.logits(model, numbers)
    torch.testing.assert_close(alone, exact, atol=1e-5, rtol=1e-4)
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_padding_to_a_multiple_changes_no_logits(model_type: str, tmp_path: Path) -> None:
    """13 tokens are padded to 16; where the model takes 13, to 13."""
    config = BackboneConfig(name=str(tiny_backbone(tmp_path / "t", model_type)))
    for most, expected in ((32, 16), (13, 13)):
        backbone = load_text_backbone(config, ("calm", "harsh"), most, 0)
        encodings = [ids[:13] for ids in backbone.encode([" ".join(TEXTS)] * 2)]
        with torch.inference_mode():
            exact = backbone.model.eval()(**backbone.collate(encodings)).logits
            with mock.patch.object(backbone, "collate", wraps=backbone.collate) as collate:
                found = Encoded(backbone, encodings).logits(backbone.model, np.arange(2))
        collate.assert_called_once_with(encodings, expected)
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
