"""Models that share hidden layers: they run once, and every model's logits are those that it has alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import lora
from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone, load_text_backbone
from pipelines.bulk.torch_engine import TorchEngine, families
from pipelines.config import AdapterConfig, BackboneConfig
from pipelines.predict import predict_logits
from pipelines.trunk import Trunk
from tests.toys import ARCHITECTURES, LAYERS, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(40, seed=4)]


def client(path: Path, freeze: int | str, seed: int, labels: int = 2, with_lora: bool = False) -> Backbone:
    """A model whose layers above the freeze depth, and head, are its own."""
    config = BackboneConfig(name=str(path))
    backbone = load_text_backbone(config, [f"label {n}" for n in range(labels)], 64, seed)
    trunk = Trunk(backbone, freeze)  # type: ignore[arg-type]
    if with_lora:
        lora.attach(trunk, AdapterConfig(type="lora", r=2))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if with_lora:
        lora.merge(backbone)
    return backbone


def calls(backbone: Backbone) -> list[int]:
    """Counts, for every hidden layer, the texts that it is run on."""
    counts = [0] * backbone.depth
    for number, layer in enumerate(backbone.layers):
        plain = layer.forward

        def counted(states: Any, *args: Any, _number: int = number, _plain: Any = plain, **kwargs: Any) -> Any:
            counts[_number] += len(states)
            return _plain(states, *args, **kwargs)

        layer.forward = counted
    return counts


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_logits_are_those_of_every_model_alone(model_type: str, tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "tiny", model_type)
    models = {
        "a": client(path, 1, 1),
        "b": client(path, 2, 2, labels=3),
        "c": client(path, 2, 3, labels=5, with_lora=True),
        "d": client(path, "all", 4, labels=2),
        "e": client(path, "all", 5, labels=4),
    }
    alone = {name: predict_logits(model, model.encode(TEXTS), "fp32") for name, model in models.items()}
    assert [sorted(family) for family in families(models)] == [list("abcde")]
    engine = TorchEngine(models, "fp32")
    together = engine.logits(engine.backbone.encode(TEXTS))
    assert list(together) == list(models)
    for name in models:
        assert together[name].shape == alone[name].shape
        np.testing.assert_allclose(together[name], alone[name], atol=2e-5)
    assert len({alone[name][0, 0] for name in models}) == len(models)  # they are different models


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ten_clients(precision: Any, tmp_path: Path) -> None:
    """Other label counts, heads, depths and LoRA: scores are those of runs of one model, within tolerance."""
    path = tiny_backbone(tmp_path / "tiny")
    kinds = [(freeze, labels, lora) for freeze in (1, 2) for labels in (2, 3) for lora in (False, True)]
    kinds += [("all", 4, False), ("all", 5, False)]

    def made() -> dict[str, Backbone]:
        return {f"c{n}": client(path, freeze, n, labels, lora) for n, (freeze, labels, lora) in enumerate(kinds)}

    models = made()
    assert len(models) == 10
    engine = TorchEngine(models, precision)
    together = engine.logits(engine.backbone.encode(TEXTS))
    for name, model in made().items():
        alone = TorchEngine({name: model}, precision).logits(model.encode(TEXTS))[name]
        np.testing.assert_allclose(together[name], alone, atol=2e-5 if precision == "fp32" else 0.1)
        assert np.mean(together[name].argmax(axis=1) == alone.argmax(axis=1)) >= 0.95


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "llama"])
def test_bf16_agrees_with_fp32_and_heads_stay_in_fp32(model_type: str, tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "tiny", model_type)
    models = {"a": client(path, 1, 1), "b": client(path, 2, 2, labels=3)}
    alone = {name: predict_logits(model, model.encode(TEXTS), "fp32") for name, model in models.items()}
    engine = TorchEngine(models, "bf16")
    together = engine.logits(engine.backbone.encode(TEXTS))
    for name, model in models.items():
        assert next(model.layers[0].parameters()).dtype == torch.bfloat16
        assert all(
            p.dtype == torch.float32 for q in model.head_paths for p in model.model.get_submodule(q).parameters()
        )
        np.testing.assert_allclose(together[name], alone[name], atol=0.15)
        assert not np.array_equal(together[name], alone[name])


def test_shared_layers_run_once_and_are_held_once(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "tiny")
    models = {"a": client(path, 2, 1), "b": client(path, 2, 2), "c": client(path, 1, 3)}
    engine = TorchEngine(models, "fp32")
    counts = {name: calls(model) for name, model in models.items()}
    engine.logits(engine.backbone.encode(TEXTS))
    total = np.sum(list(counts.values()), axis=0)
    assert total.tolist() == [40, 80, 120]  # layer 0 for all three, layer 1 for a with b, and for c
    assert LAYERS == 3
    first, second, third = (models[name].layers for name in "abc")
    places = [layers[1].attention.self.query.weight.data_ptr() for layers in (first, second, third)]
    assert places[0] == places[1] != places[2]
    words = {m.base.embeddings.word_embeddings.weight.data_ptr() for m in models.values()}
    assert len(words) == 1


def test_models_that_share_nothing_are_other_families(tmp_path: Path) -> None:
    one, two = tiny_backbone(tmp_path / "one"), tiny_backbone(tmp_path / "two", seed=7)
    models = {"a": client(one, 1, 1), "b": client(two, 1, 1), "c": client(one, 1, 2)}
    assert [sorted(family) for family in families(models)] == [["a", "c"], ["b"]]
    longer = client(one, 1, 1)
    longer.limit(32)
    assert len(families({"a": client(one, 1, 1), "b": longer})) == 2  # they cut texts at other places


def test_routed_items_run_only_their_own_model(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "tiny")
    models = {"a": client(path, 2, 1), "b": client(path, 2, 2), "c": client(path, 1, 3)}
    alone = {name: predict_logits(model, model.encode(TEXTS), "fp32") for name, model in models.items()}
    engine = TorchEngine(models, "fp32")
    counts = {name: calls(model) for name, model in models.items()}
    owner = np.arange(40) % 4  # a quarter is nobody's
    wanted = {name: owner == place for place, name in enumerate("abc")}
    found = engine.logits(engine.backbone.encode(TEXTS), wanted)
    assert np.sum(list(counts.values()), axis=0).tolist() == [30, 30, 30]
    for name, own in wanted.items():
        np.testing.assert_allclose(found[name][own], alone[name][own], atol=2e-5)
        assert np.isnan(found[name][~own]).all()


def test_a_model_alone_is_plain(tmp_path: Path) -> None:
    model = client(tiny_backbone(tmp_path / "tiny"), 1, 1)
    expected = predict_logits(model, model.encode(TEXTS), "fp32")
    engine = TorchEngine({"only": model}, "fp32")
    np.testing.assert_allclose(engine.logits(model.encode(TEXTS))["only"], expected, atol=2e-5)
    assert engine.logits([])["only"].shape == (0, 2)


def test_kept_states_are_reused_by_a_model_that_comes_later(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "tiny")
    store = ActivationStore(tmp_path / "store", 1 << 30)
    first, later = client(path, 2, 1), client(path, 2, 9, labels=3)
    expected = predict_logits(later, later.encode(TEXTS), "fp32")
    engine = TorchEngine({"first": first}, "fp32", store, 2)
    engine.logits(first.encode(TEXTS))
    assert store.size() > 0
    counts = calls(later)
    found = TorchEngine({"later": later}, "fp32", store, 2).logits(later.encode(TEXTS))["later"]
    assert counts == [0, 0, 40]
    np.testing.assert_allclose(found, expected, atol=0.05)  # kept states are rounded to bf16


def test_the_same_call_gives_the_same_bits(tmp_path: Path) -> None:
    path = tiny_backbone(tmp_path / "tiny")
    models = {"a": client(path, 2, 1), "b": client(path, 1, 2)}
    first = TorchEngine(copy.deepcopy(models), "bf16")
    second = TorchEngine(models, "bf16")
    encodings = first.backbone.encode(TEXTS)
    one, two = first.logits(encodings), second.logits(encodings)
    assert all(np.array_equal(one[name], two[name]) for name in models)
    assert first.settings == second.settings


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_models_come_and_go(precision: Any, tmp_path: Path) -> None:
    """Joined one by one they are as those that came together; what is shared outlives the model that brought it."""
    path = tiny_backbone(tmp_path / "tiny")
    kinds = {"a": (2, 1), "b": (2, 2), "c": (1, 3)}
    together = TorchEngine({name: client(path, *kind) for name, kind in kinds.items()}, precision)
    engine, *others = (TorchEngine({name: client(path, *kind)}, precision) for name, kind in kinds.items())
    for other in others:
        assert other.family == engine.family
        engine.join(other)
    encodings = engine.backbone.encode(TEXTS)
    expected = together.logits(encodings)
    for name, logits in engine.logits(encodings).items():
        np.testing.assert_array_equal(logits, expected[name])
    assert len({m.base.embeddings.word_embeddings.weight.data_ptr() for m in engine.backbones.values()}) == 1
    engine.remove("a")
    assert engine.names == ["b", "c"]
    counts = {name: calls(model) for name, model in engine.backbones.items()}
    for name, logits in engine.logits(encodings).items():
        np.testing.assert_allclose(logits, expected[name], atol=1e-5 if precision == "fp32" else 0.1)
    assert np.sum(list(counts.values()), axis=0).tolist() == [40, 80, 80]
