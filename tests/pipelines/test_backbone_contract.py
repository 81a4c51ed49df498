"""What every architecture must hold: parts found, frozen bytes, LoRA above the cut, a model for plain transformers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipelines import lora
from pipelines.backbones import load_text_backbone
from pipelines.backbones.base import Backbone
from pipelines.backbones.text import TextBackbone, continue_text_backbone, load_saved_model
from pipelines.batches import token_batches
from pipelines.checkpoint import Checkpoints
from pipelines.config import AdapterConfig, BackboneConfig, TrainingConfig
from pipelines.device import start_accelerator
from pipelines.encoded import Encoded
from pipelines.errors import BackboneError, ConfigError
from pipelines.loop import TrainingData
from pipelines.predict import embed, predict_logits
from pipelines.records import FloatArray
from pipelines.train import train
from pipelines.trunk import Freeze, Trunk
from tests.toys import ARCHITECTURES, LAYERS, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(24)]
TARGETS = np.arange(24) % 2

pytestmark = pytest.mark.parametrize("model_type", ARCHITECTURES)


def load(folder: Path, model_type: str, labels: tuple[str, ...] = ("calm", "harsh")) -> TextBackbone:
    path = folder / model_type
    if not path.exists():
        tiny_backbone(path, model_type)
    return load_text_backbone(BackboneConfig(name=str(path)), labels, 32, seed=0)


def train_a_little(trunk: Trunk, folder: Path) -> None:
    data = TrainingData(Encoded(trunk.backbone, trunk.backbone.encode(TEXTS)), TARGETS)
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=0.05, precision="fp32")
    accelerator = start_accelerator("fp32", (), folder)
    checkpoints = Checkpoints(folder / "checkpoints")
    list(train(trunk, data, data, config, accelerator, "fp32", checkpoints, None, lambda: False))


def frozen_prefixes(backbone: Backbone, depth: int) -> list[str]:
    """Independent of Trunk: what must not change at this depth, as name parts."""
    base = backbone.model.base_model_prefix + "."
    return [base + "emb", base + "encoder.rel", base + "encoder.conv", base + "encoder.LayerNorm"] + [
        f"{backbone.layers_path}.{number}." for number in range(depth)
    ]


@pytest.mark.parametrize("freeze", [0, 1, 2, "all"])
def test_frozen_layers_are_byte_identical_after_training(model_type: str, freeze: Freeze, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    trunk = Trunk(backbone, freeze)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    train_a_little(trunk, tmp_path)
    after = backbone.model.state_dict()
    depth = LAYERS if freeze == "all" else int(freeze)
    prefixes = tuple(frozen_prefixes(backbone, depth))
    frozen = [name for name in before if name.startswith(prefixes)]
    assert len(frozen) > depth * 4
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    for number in range(depth, LAYERS):
        assert any(name.startswith(f"{backbone.layers_path}.{number}.") for name in changed)
    for head in backbone.head_paths:
        assert any(name.startswith(head) for name in changed)


def test_freeze_none_trains_the_embeddings_too(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    trunk = Trunk(backbone, "none")
    assert all(parameter.requires_grad for parameter in backbone.model.parameters())
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    train_a_little(trunk, tmp_path)
    after = backbone.model.state_dict()
    assert any("emb" in name and not torch.equal(before[name], after[name]) for name in before)


def test_frozen_modules_stay_in_eval_mode(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    trunk = Trunk(backbone, 2)
    backbone.model.train()
    trunk.train()
    for name, module in backbone.model.named_modules():
        if name.startswith((f"{backbone.layers_path}.0", f"{backbone.layers_path}.1")) or ".emb" in name:
            assert not module.training, name
    for path in [f"{backbone.layers_path}.2", *backbone.head_paths]:
        assert all(module.training for module in backbone.model.get_submodule(path).modules()), path


def test_gradients_stop_at_the_cut(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    trunk = Trunk(backbone, 1)
    trunk.train()
    backbone.model(**backbone.collate(backbone.encode(TEXTS[:4]))).logits.sum().backward()
    graded = {name for name, parameter in backbone.model.named_parameters() if parameter.grad is not None}
    assert not [name for name in graded if name.startswith(tuple(frozen_prefixes(backbone, 1)))]
    assert any(name.startswith(f"{backbone.layers_path}.1.") for name in graded)


@pytest.mark.parametrize("adapter", ["lora", "rslora", "dora"])
def test_lora_sits_above_the_cut_only_and_merges_to_the_same_logits(
    adapter: Literal["lora", "rslora", "dora"], model_type: str, tmp_path: Path
) -> None:
    backbone = load(tmp_path, model_type)
    trunk = Trunk(backbone, 1)
    lora.attach(trunk, AdapterConfig(type=adapter, r=2, alpha=4))
    adapted_layers = [module for module in backbone.model.modules() if isinstance(module, LoraLayer)]
    scales = {float(scale) for layer in adapted_layers for scale in layer.scaling.values()}
    assert scales == {4 / 2**0.5 if adapter == "rslora" else 2.0}
    assert any("lora_magnitude_vector" in n for n, _ in backbone.model.named_parameters()) == (adapter == "dora")
    adapted = {name for name, _ in backbone.model.named_parameters() if "lora_" in name}
    assert adapted
    assert not [name for name in adapted if f"{backbone.layers_path}.0." in name]
    trained = {name for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
    heads = tuple(backbone.head_paths)
    assert all("lora_" in name or name.startswith(heads) for name in trained)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    train_a_little(trunk, tmp_path)
    after = backbone.model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} <= trained | {
        name for name in before if "modules_to_save" in name
    }

    encodings = backbone.encode(TEXTS)
    unmerged = predict_logits(backbone, encodings, "fp32")
    lora.save(backbone, tmp_path / "adapter")
    lora.merge(backbone)
    assert not [name for name, _ in backbone.model.named_parameters() if "lora_" in name]
    np.testing.assert_allclose(predict_logits(backbone, encodings, "fp32"), unmerged, atol=2e-5)
    backbone.save(tmp_path / "model")
    saved = load_saved_model(tmp_path / "model")
    np.testing.assert_allclose(predict_logits(saved, saved.encode(TEXTS), "fp32"), unmerged, atol=2e-5)


def test_saved_model_loads_in_plain_transformers(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type, ("01", "no", "ünsafe"))
    backbone.save(tmp_path / "model")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.id2label == {0: "01", 1: "no", 2: "ünsafe"}
    assert tokenizer.model_max_length == 32
    inputs = tokenizer(TEXTS[0], return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        logits = model(**inputs).logits.numpy()
    np.testing.assert_allclose(logits, predict_logits(backbone, backbone.encode(TEXTS[:1]), "fp32"), atol=1e-5)


def test_logits_do_not_depend_on_padding_or_order(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    encodings = backbone.encode(TEXTS)
    together = predict_logits(backbone, encodings, "fp32")
    alone = np.concatenate([predict_logits(backbone, [encoding], "fp32") for encoding in encodings])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(token_batches([len(e) for e in encodings], 64)) > 1


def test_embeddings_are_the_masked_mean_of_the_last_hidden_layer(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    encodings = backbone.encode(TEXTS[:3])
    with torch.inference_mode():
        base = backbone.model.base_model.eval()
        expected = [base(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy() for ids in encodings]
    for found, exact in zip(embed(backbone, encodings, "fp32"), expected, strict=True):
        assert np.linalg.norm(found - exact) < 0.005 * np.linalg.norm(exact)  # layers are rounded to bf16


def test_more_layers_than_there_are_is_refused(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"at most {LAYERS}, the hidden layers of .*; found 4"):
        Trunk(load(tmp_path, model_type), 4)


def test_an_adapter_has_no_rank_above_the_width(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    lora.attach(Trunk(backbone, 1), AdapterConfig(type="lora", r=8))
    with pytest.raises(ConfigError, match=r"adapter\.r: expected at most \d+, the width of .*, found 17; a rank above"):
        lora.attach(Trunk(load(tmp_path, model_type), 1), AdapterConfig(type="lora", r=17))


def test_lora_needs_layers_above_the_cut(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected hidden layers above the freeze point, found none"):
        lora.attach(Trunk(load(tmp_path, model_type), "all"), AdapterConfig(type="lora"))


# ---- temperature in the weights

WIDE = tuple(f"class {number}" for number in range(16))  # as many as the head is wide: other layers have that shape too


def logits(backbone: Backbone) -> FloatArray:
    return predict_logits(backbone, backbone.encode(TEXTS), "fp32")


@pytest.mark.parametrize("labels", [("calm", "harsh"), WIDE])
def test_scaled_logits_are_the_logits_times_the_factor(
    model_type: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    backbone = load(tmp_path, model_type, labels)
    with torch.no_grad():  # biases start at zero, where a forgotten one would not be seen
        for name, parameter in backbone.model.named_parameters():
            if name.endswith("bias") and len(parameter) == len(labels):
                parameter.add_(0.5)
    expected = 0.4 * logits(backbone)
    backbone.scale_logits(0.4)
    np.testing.assert_allclose(logits(backbone), expected, atol=1e-5)
    backbone.save(tmp_path / "model")
    np.testing.assert_allclose(logits(load_saved_model(tmp_path / "model")), expected, atol=1e-5)


def test_scaling_reaches_a_head_that_lora_has_wrapped(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    trunk = Trunk(backbone, 1)
    lora.attach(trunk, AdapterConfig(type="lora", r=2))
    train_a_little(trunk, tmp_path)
    expected = 2.5 * logits(backbone)
    backbone.scale_logits(2.5)
    np.testing.assert_allclose(logits(backbone), expected, atol=2e-5)
    lora.merge(backbone)
    np.testing.assert_allclose(logits(backbone), expected, atol=1e-4)
    backbone.save(tmp_path / "model")
    np.testing.assert_allclose(logits(load_saved_model(tmp_path / "model")), expected, atol=1e-4)


# ---- training further


def test_continuing_keeps_the_old_classes_and_adds_rows_for_new_ones(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    train_a_little(Trunk(backbone, 1), tmp_path)
    backbone.save(tmp_path / "model")
    grown = continue_text_backbone(tmp_path / "model", "first", ("calm", "harsh", "odd", "new"), 16, seed=1)
    assert grown.labels == ("calm", "harsh", "odd", "new")
    assert (grown.name, grown.max_length) == ("first", 16)
    assert grown.weights.sha256 == hashlib.sha256((tmp_path / "model/model.safetensors").read_bytes()).hexdigest()
    old, new = backbone.model.state_dict(), grown.model.state_dict()
    assert old.keys() == new.keys()
    longer = [name for name in old if old[name].shape != new[name].shape]
    assert {len(new[name]) for name in longer} == {4}
    for name in old:
        assert torch.equal(new[name][:2] if name in longer else new[name], old[name]), name
    said = logits(grown)
    backbone.tokenizer.model_max_length = 16
    np.testing.assert_allclose(said[:, :2], logits(backbone), atol=1e-6)
    assert said[:, 2:].std(axis=0).min() > 1e-4  # rows of their own, not zeros


def test_continuing_with_the_same_labels_changes_nothing(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    backbone.save(tmp_path / "model")
    again = continue_text_backbone(tmp_path / "model", "first", ("calm", "harsh"), 32, seed=1)
    np.testing.assert_array_equal(logits(again), logits(backbone))


def test_continuing_with_the_labels_in_another_order_is_refused(model_type: str, tmp_path: Path) -> None:
    load(tmp_path, model_type).save(tmp_path / "model")
    for labels in (("harsh", "calm"), ("new", "calm", "harsh"), ("calm",)):
        with pytest.raises(BackboneError, match=f"expected its labels calm, harsh first, found {', '.join(labels)}$"):
            continue_text_backbone(tmp_path / "model", "first", labels, 32, seed=0)


def test_located_tokens_are_those_of_encode_and_stand_where_they_say(model_type: str, tmp_path: Path) -> None:
    backbone = load(tmp_path, model_type)
    text = "the owl  sings near " * 20
    ids, spans, cut = backbone.located(text)
    assert ids == backbone.encode([text])[0]
    assert [place for place, span in enumerate(spans) if span is None] == [0, len(ids) - 1]
    assert cut == len(backbone.tokenizer(text, truncation=False, verbose=False)["input_ids"]) - len(ids)
    inside = [span for span in spans if span is not None]
    assert inside == sorted(inside)
    if model_type != "qwen2":  # whose tokenizer class does not fit the toy vocabulary
        assert [text[start:end] for start, end in inside[:4]] == ["the", "owl", "sings", "near"]
        assert (len(ids), cut) == (32, 50)


def test_a_blank_is_one_token_with_an_embedding_and_changes_nothing_else(model_type: str, tmp_path: Path) -> None:
    """The toy padding token has a zero vector, as a new embedding layer gives it."""
    backbone = load(tmp_path, model_type)
    ids = list(range(4, 12))
    blanked = backbone.blanked(ids, [0, 3])
    assert [place for place in range(8) if blanked[place] != ids[place]] == [0, 3]
    table = backbone.model.get_input_embeddings().weight
    assert blanked[0] == blanked[3]
    if not table[backbone.tokenizer.pad_token_id].any():
        assert blanked[0] == backbone.tokenizer.unk_token_id
    with torch.no_grad():
        table[backbone.tokenizer.pad_token_id] = 0.1
    assert backbone.blanked(ids, [0])[0] == backbone.tokenizer.pad_token_id
