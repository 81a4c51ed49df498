"""The lower layers run alone: every architecture, tolerances, independence of neighbours, fingerprints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import device as device_module
from pipelines import lower_layers
from pipelines.backbones import load_text_backbone
from pipelines.backbones.text import TextBackbone, continue_text_backbone
from pipelines.config import BackboneConfig
from pipelines.device import Precision
from pipelines.lower_layers import Kind, LowerLayers, trunk_layers
from pipelines.trunk import Freeze, Trunk
from tests.toys import ARCHITECTURES, LAYERS, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(24)]
ROUNDING = 2**-7  # of a state after three layers that round to bf16, relative to its length


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbones")


def load(folder: Path, model_type: str = "bert", seed: int = 0, **changes: Any) -> TextBackbone:
    path = folder / "-".join([model_type, str(seed), *(f"{k}{v}" for k, v in changes.items())])
    if not path.exists():
        tiny_backbone(path, model_type, seed, **changes)
    return load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 32, seed=0)


def exact_states(backbone: TextBackbone, depth: int, text: str) -> torch.Tensor:
    """Hidden states after `depth` layers, (T, D), by the model's own forward pass, alone, in fp32."""
    caught = []
    handle = backbone.layers[depth - 1].register_forward_hook(lambda _m, _i, output: caught.append(output))
    with torch.inference_mode():
        backbone.model.eval()(**backbone.collate(backbone.encode([text])))
    handle.remove()
    (output,) = caught
    return (output[0] if isinstance(output, tuple) else output)[0]


def distance(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Largest error of a token's states, relative to their length."""
    return float(((found.float() - exact).norm(dim=-1) / exact.norm(dim=-1)).max())


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_states_are_those_of_the_model_within_the_rounding(model_type: str, depth: int, folder: Path) -> None:
    backbone = load(folder, model_type)
    lower = LowerLayers(backbone, depth, "tokens", "fp32")
    encodings = backbone.encode(TEXTS[:6])
    states = lower(encodings)
    assert states.shape == (6, max(map(len, encodings)), lower.width)
    assert states.dtype == torch.bfloat16
    for row, text in enumerate(TEXTS[:6]):
        exact = exact_states(backbone, depth, text)
        assert distance(states[row, : len(exact)], exact) < ROUNDING


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_in_bf16_a_copy_is_run_and_the_model_stays(model_type: str, folder: Path) -> None:
    backbone = load(folder, model_type)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    states = LowerLayers(backbone, 2, "tokens", "bf16")(backbone.encode(TEXTS[:1]))[0]
    assert distance(states, exact_states(backbone, 2, TEXTS[0])) < 8 * ROUNDING  # sums are in bf16 too
    after = backbone.model.state_dict()
    assert len(backbone.layers) == LAYERS
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_replayed_logits_are_those_of_the_model_within_the_rounding(model_type: str, folder: Path) -> None:
    """At every cut; above the last layer only the token that the head reads is replayed."""
    backbone = load(folder, model_type)
    encodings = backbone.encode(TEXTS[:5])
    with torch.inference_mode():
        exact = backbone.model.eval()(**backbone.collate(encodings)).logits
    for freeze in (1, 2, "all"):
        trunk = Trunk(backbone, freeze)
        lower = trunk_layers(trunk, "fp32")
        assert lower is not None
        states, inputs = lower(encodings).float(), encodings
        if lower.kind == "pooled":
            assert states.shape == (5, 1, lower.width)
            inputs = [backbone.only(e, backbone.pooled_position(e)) for e in encodings]
        with torch.inference_mode(), trunk.replay(states):
            found = backbone.model(**backbone.collate(inputs)).logits
        torch.testing.assert_close(found, exact, atol=0.05, rtol=0.02)
        assert (found - exact).abs().max() < 0.1 * (exact.max() - exact.min())


def test_replay_leaves_the_model_as_it_was(folder: Path) -> None:
    backbone = load(folder)
    trunk, inputs = Trunk(backbone, 2), backbone.collate(backbone.encode(TEXTS[:3]))
    names = list(backbone.model.state_dict())
    with torch.inference_mode():
        before = backbone.model.eval()(**inputs).logits
        with pytest.raises(RuntimeError), trunk.replay(torch.zeros(1, 1, 3)):  # of no fitting shape
            backbone.model(**inputs)
        assert torch.equal(backbone.model(**inputs).logits, before)
    assert list(backbone.model.state_dict()) == names


def test_the_mean_is_of_the_last_layer_behind_its_norm(folder: Path) -> None:
    for model_type in ("bert", "llama", "modernbert"):
        backbone = load(folder, model_type)
        encodings = backbone.encode(TEXTS[:4])
        found = LowerLayers(backbone, LAYERS, "mean", "fp32")(encodings)
        with torch.inference_mode():
            for row, ids in enumerate(encodings):
                exact = backbone.base(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
                assert distance(found[row], exact[None]) < ROUNDING


# ---- whatever the batch


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_neighbours_and_padding_agree_within_the_tolerance(
    precision: Precision, folder: Path, data: st.DataObject
) -> None:
    backbone = load(folder)
    lower = LowerLayers(backbone, 2, "tokens", precision)
    encodings = backbone.encode(TEXTS)
    chosen = data.draw(st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=12))
    together = lower([encodings[i] for i in chosen])
    for row, i in enumerate(chosen):
        alone = lower([encodings[i]])[0].float()
        assert distance(together[row, : len(encodings[i])], alone) < (4 if precision == "bf16" else 1) * ROUNDING


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model_type", ["bert", "llama", "deberta-v2", "mpnet"])
def test_going_on_from_a_lower_depth_gives_the_same_bits(model_type: str, precision: Precision, folder: Path) -> None:
    backbone = load(folder, model_type)
    encodings = [ids for ids in backbone.encode(TEXTS) if len(ids) == len(backbone.encode(TEXTS)[0])]
    first = LowerLayers(backbone, 1, "tokens", precision)(encodings)
    for depth, kind in ((2, "tokens"), (3, "pooled"), (3, "mean")):
        lower = LowerLayers(backbone, depth, kind, precision)  # type: ignore[arg-type]
        assert torch.equal(lower(encodings, (1, first)), lower(encodings))


# ---- fingerprints


def fingerprint(backbone: TextBackbone, depth: int = 2, kind: Kind = "tokens", precision: Precision = "fp32") -> str:
    return LowerLayers(backbone, depth, kind, precision).fingerprint


def test_a_fingerprint_is_the_same_for_the_same_trunk(folder: Path, tmp_path: Path) -> None:
    """Other head, other labels, trained upper layers, saved and loaded again: the trunk is what counts."""
    backbone = load(folder)
    expected = fingerprint(backbone)
    with torch.no_grad():
        for module in (backbone.layers[2], backbone.model.get_submodule("classifier")):
            for parameter in module.parameters():
                parameter.add_(1)
    assert fingerprint(backbone) == expected
    backbone.save(tmp_path / "model")
    labels = ("calm", "harsh", "new")
    assert fingerprint(continue_text_backbone(tmp_path / "model", "again", labels, 32, seed=5)) == expected


CHANGES: dict[str, Callable[[Path], str]] = {
    "weights of a layer": lambda folder: _changed(folder, lambda b: b.layers[1]),
    "weights of the embeddings": lambda folder: _changed(folder, lambda b: b.base.get_submodule("embeddings")),
    "depth": lambda folder: fingerprint(load(folder), depth=1),
    "kind": lambda folder: fingerprint(load(folder), kind="pooled"),
    "precision": lambda folder: fingerprint(load(folder), precision="bf16"),
    "config": lambda folder: fingerprint(load(folder, hidden_act="relu")),
    "maximum length": lambda folder: _changed_tokenizer(folder, lambda t: setattr(t, "model_max_length", 16)),
    "special tokens": lambda folder: _changed_tokenizer(folder, lambda t: t.add_special_tokens({"sep_token": "barn"})),
    "vocabulary": lambda folder: _changed_tokenizer(folder, lambda t: t.add_tokens(["zebra"])),
    "padding token": lambda folder: _changed_tokenizer(folder, lambda t: setattr(t, "pad_token", "barn")),
    "attention": lambda folder: _changed_attention(folder),
    "first position": lambda folder: _changed_padding(folder),
}


def _changed(folder: Path, module: Callable[[TextBackbone], torch.nn.Module]) -> str:
    backbone = load(folder)
    with torch.no_grad():
        next(iter(module(backbone).parameters())).view(-1)[0].add_(1e-6)
    return fingerprint(backbone)


def _changed_tokenizer(folder: Path, change: Callable[[Any], Any]) -> str:
    backbone = load(folder)
    change(backbone.tokenizer)
    return fingerprint(backbone)


def _changed_attention(folder: Path) -> str:
    backbone = load(folder)
    backbone.model.set_attn_implementation("eager")
    return fingerprint(backbone)


def _changed_padding(folder: Path) -> str:
    """RoBERTa counts positions from behind this token."""
    backbone = load(folder)
    backbone.base.get_submodule("embeddings").padding_idx = 3  # type: ignore[assignment]
    return fingerprint(backbone)


_PARTS = ("device", "instructions", "torch", "build", "matmul", "threads", "settings", "transformers")


def test_a_tokenizer_without_a_file_of_rules_has_a_digest_too(folder: Path) -> None:
    class Plain:
        """As one written in Python: no `backend_tokenizer`."""

        model_max_length, init_kwargs, pad_token_id = 32, {"lower": True}, 0

        def __init__(self, words: int) -> None:
            self.words = words

        def get_vocab(self) -> dict[str, int]:
            return {str(n): n for n in range(self.words)}

    backbone = load(folder)
    found = []
    for words in (5, 5, 6):
        backbone.tokenizer = Plain(words)  # type: ignore[assignment]
        found.append(fingerprint(backbone))
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("change", CHANGES)
def test_every_ingredient_changed_is_another_fingerprint(change: str, folder: Path) -> None:
    assert CHANGES[change](folder) != fingerprint(load(folder))


@pytest.mark.parametrize("name", ["RECIPE", "STATE_TOKENS", "MULTIPLE", *_PARTS])
def test_another_machine_is_another_fingerprint(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(load(folder))
    backend = device_module.numeric_backend()
    if name.isupper():
        monkeypatch.setattr(lower_layers, name, getattr(lower_layers, name) + 1)
    else:
        assert name in backend
        monkeypatch.setattr(lower_layers, "numeric_backend", lambda: backend | {name: "other"})
    assert fingerprint(load(folder)) != before


def test_calls_of_the_tokenizer_do_not_change_the_fingerprint(folder: Path) -> None:
    backbone = load(folder)
    before = fingerprint(backbone)
    backbone.encode(TEXTS)
    backbone.tokenizer(TEXTS[:2], padding="max_length", max_length=20, truncation=True)
    assert fingerprint(backbone) == before


def test_a_lower_depth_is_found_by_the_name_that_it_has(folder: Path) -> None:
    backbone = load(folder)
    assert LowerLayers(backbone, 3, "mean", "fp32").fingerprint_at(2) == fingerprint(backbone, 2)


def test_ingredients_are_json(folder: Path) -> None:
    ingredients = LowerLayers(load(folder), 2, "tokens", "fp32").ingredients
    assert json.loads(json.dumps(ingredients)) == ingredients
    assert ingredients["depth"] == 2


@pytest.mark.parametrize(
    ("freeze", "kind"), [("none", None), (0, None), (2, "tokens"), (3, "pooled"), ("all", "pooled")]
)
def test_what_is_kept_depends_on_the_cut(freeze: Freeze, kind: str | None, folder: Path) -> None:
    lower = trunk_layers(Trunk(load(folder), freeze), "fp32")
    assert (lower and lower.kind) == kind


def test_a_head_that_reads_more_than_one_token_gets_them_all(folder: Path) -> None:
    backbone = load(folder, "modernbert", classifier_pooling="mean")
    lower = trunk_layers(Trunk(backbone, "all"), "fp32")
    assert lower is not None
    assert lower.kind == "tokens"
    encodings = backbone.encode(TEXTS[:3])
    with torch.inference_mode():
        exact = backbone.model.eval()(**backbone.collate(encodings)).logits
        with Trunk(backbone, "all").replay(lower(encodings).float()):
            found = backbone.model(**backbone.collate(encodings)).logits
    np.testing.assert_allclose(found, exact, atol=0.05)
