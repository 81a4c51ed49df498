"""Which parameters share a learning rate and a weight decay."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import lora
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.config import AdapterConfig, BackboneConfig, TrainingConfig
from pipelines.parameter_groups import layers_below_head, parameter_groups
from pipelines.trunk import Freeze, Trunk
from tests.toys import ARCHITECTURES, LAYERS, tiny_backbone


def trunk(folder: Path, freeze: Freeze = "none", model_type: str = "bert") -> Trunk:
    backbone = load_text_backbone(BackboneConfig(name=str(tiny_backbone(folder, model_type))), ("a", "b"), 32, seed=0)
    return Trunk(backbone, freeze)


def rates(backbone: Backbone, decay: float) -> dict[str, float]:
    """Learning rate of every trained parameter by name."""
    named = {n: p for n, p in backbone.model.named_parameters() if p.requires_grad}
    groups = parameter_groups(named, backbone, TrainingConfig(learning_rate=1.0, layer_decay=decay))
    names = {id(parameter): name for name, parameter in named.items()}
    found = {names[id(p)]: group.get("lr", 1.0) for group in groups for p in group["params"]}
    assert found.keys() == named.keys()  # each in a group
    return found


def test_biases_and_norms_do_not_decay(tmp_path: Path) -> None:
    backbone = trunk(tmp_path).backbone
    decayed, kept = parameter_groups(dict(backbone.model.named_parameters()), backbone, TrainingConfig(learning_rate=1))
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.01, 0.0)
    assert {p.ndim for p in kept["params"]} == {1}
    assert {p.ndim for p in decayed["params"]} == {2}


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_learning_rates_fall_from_the_head_down(model_type: str, tmp_path: Path) -> None:
    backbone = trunk(tmp_path, model_type=model_type).backbone
    for name, rate in rates(backbone, 0.5).items():
        if name.startswith(f"{backbone.layers_path}."):
            number = int(name.removeprefix(f"{backbone.layers_path}.").split(".")[0])
            assert rate == 0.5 ** (LAYERS - number), name
        elif name.startswith((*backbone.head_paths, *backbone.final_norm_paths)):
            assert rate == 1.0, name
        else:
            assert rate == 0.5 ** (LAYERS + 1), name


def test_adapters_have_the_rate_of_their_layer(tmp_path: Path) -> None:
    own = trunk(tmp_path, 1)
    lora.attach(own, AdapterConfig(type="lora", r=2))
    found = rates(own.backbone, 0.5)
    assert {rate for name, rate in found.items() if "layer.1." in name} == {0.25}
    assert {rate for name, rate in found.items() if "layer.2." in name} == {0.5}
    assert {rate for name, rate in found.items() if "layer." not in name} == {1.0}


def test_without_decay_of_rates_there_are_two_groups(tmp_path: Path) -> None:
    assert set(rates(trunk(tmp_path).backbone, 1.0).values()) == {1.0}


def test_the_first_group_is_the_head(tmp_path: Path) -> None:
    """Its learning rate is the one that is shown."""
    backbone = trunk(tmp_path).backbone
    named = dict(backbone.model.named_parameters())
    first = parameter_groups(named, backbone, TrainingConfig(learning_rate=1.0, layer_decay=0.5))[0]
    heads = {id(p) for n, p in named.items() if layers_below_head(n, backbone) == 0}
    assert first["lr"] == 1.0
    assert {id(p) for p in first["params"]} <= heads
