"""The last layer for the first token alone: the logits and gradients of the whole layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines import first_token, lora
from pipelines.backbones import load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.config import AdapterConfig, BackboneConfig
from pipelines.first_token import first_token_only
from pipelines.trunk import Trunk
from tests.toys import ARCHITECTURES, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(8)]
KNOWN = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")


def load(folder: Path, model_type: str, attention: str = "sdpa") -> TextBackbone:
    path = tiny_backbone(folder / model_type, model_type)
    backbone = load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 32, seed=0)
    backbone.model.set_attn_implementation(attention)
    backbone.model.eval()  # no dropout
    return backbone


def logits_and_gradients(backbone: TextBackbone) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    backbone.model.zero_grad()
    logits = backbone.model(**backbone.collate(backbone.encode(TEXTS))).logits
    logits.square().sum().backward()
    parameters = backbone.model.named_parameters()
    return logits.detach(), {name: p.grad.clone() for name, p in parameters if p.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("use_lora", [False, True])
def test_logits_and_gradients_are_those_of_the_whole_layer(
    model_type: str, attention: str, use_lora: bool, tmp_path: Path
) -> None:
    backbone = load(tmp_path, model_type, attention)
    if use_lora:
        lora.attach(Trunk(backbone, 1), AdapterConfig(type="lora", r=2, dropout=0.0))
    exact, exact_gradients = logits_and_gradients(backbone)
    with first_token_only(backbone):
        found, gradients = logits_and_gradients(backbone)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-4)
    assert gradients.keys() == exact_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, exact_gradients[name], atol=1e-5, rtol=1e-3, msg=name)
    torch.testing.assert_close(logits_and_gradients(backbone)[0], exact)  # and the layer is as it was


@pytest.mark.parametrize("model_type", KNOWN)
def test_only_one_token_leaves_the_last_layer(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    assert set(first_token._COMPUTE) == set(KNOWN)
    with first_token_only(backbone), torch.inference_mode():
        states = backbone.base(**backbone.collate(backbone.encode(TEXTS))).last_hidden_state
    assert states.shape == (8, 1, 16)


def test_dropout_is_drawn_in_training_only(tmp_path: Path) -> None:
    backbone = load(tmp_path, "bert")
    inputs = backbone.collate(backbone.encode(TEXTS))
    with first_token_only(backbone), torch.no_grad():
        assert torch.equal(backbone.model(**inputs).logits, backbone.model(**inputs).logits)
        backbone.layers[-1].train()
        assert not torch.equal(backbone.model(**inputs).logits, backbone.model(**inputs).logits)


def test_replayed_layers_stay_replayed(tmp_path: Path) -> None:
    backbone = load(tmp_path, "bert")
    trunk = Trunk(backbone, "all")
    inputs = backbone.collate([[1]] * 3)
    states = torch.randn(3, 1, 16)
    with torch.no_grad(), trunk.replay(states):
        exact = backbone.model(**inputs).logits
        with first_token_only(backbone):
            assert torch.equal(backbone.model(**inputs).logits, exact)
        assert torch.equal(backbone.model(**inputs).logits, exact)
