"""Probabilities are those of the model alone, whatever the neighbours; what is wrong with one piece is its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.backbones import Backbone
from pipelines.bulk.torch_engine import TorchEngine
from pipelines.predict import predict_probabilities
from service.inference.errors import InferenceError
from service.inference.records import Answer, Piece
from service.inference.rows import classified
from tests.service.inference.models import grafted
from tests.toys import tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(24, seed=4)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("rows") / "tiny")


@pytest.fixture
def models(base: Path) -> dict[str, Backbone]:
    return {"a": grafted(base, 1, freeze=2), "b": grafted(base, 2, freeze=1, labels=("x", "y", "z"))}


class _PanicError(BaseException):
    pass


def piece(model: str, *texts: str, start: int = 0) -> Piece:
    return Piece(model, texts, start, 1)


def alone(backbone: Backbone, texts: Sequence[str]) -> Any:
    return predict_probabilities(backbone, backbone.encode(texts), "fp32")


def fragile(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokenizer breaks at a text with `boom`."""
    plain = engine.backbone.encode

    def encode(texts: Sequence[str]) -> Any:
        if any("boom" in text for text in texts):
            raise _PanicError("not for except Exception")
        return plain(texts)

    monkeypatch.setattr(engine.backbone, "encode", encode)


def codes(results: Sequence[Answer | InferenceError]) -> list[str]:
    return [result.code if isinstance(result, InferenceError) else "" for result in results]


def test_every_piece_gets_its_own_rows(models: dict[str, Backbone]) -> None:
    expected = {name: alone(backbone, TEXTS) for name, backbone in models.items()}
    wanted = [("ab"[n % 2], n) for n in range(24)]
    engine = TorchEngine(models, "fp32")
    found = classified(engine, [piece(name, TEXTS[n], TEXTS[-n - 1]) for name, n in wanted])
    for (name, n), answer in zip(wanted, found, strict=True):
        assert isinstance(answer, Answer)
        assert answer.labels == models[name].labels
        np.testing.assert_allclose(answer.probabilities, expected[name][[n, -n - 1]], atol=1e-5)
        assert answer.tokens == sum(map(len, models[name].encode([TEXTS[n], TEXTS[-n - 1]])))


def test_a_text_that_many_ask_for_is_computed_once(
    models: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(models, "fp32")
    seen: list[int] = []
    plain = engine.logits
    monkeypatch.setattr(engine, "logits", lambda found, wanted: seen.append(len(found)) or plain(found, wanted))
    first, second, third = classified(engine, [piece("a", TEXTS[0]), piece("a", TEXTS[0]), piece("b", TEXTS[0])])
    assert seen == [1]
    assert first == second != third


def test_a_text_that_breaks_the_tokenizer_costs_only_its_own_piece(
    models: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(models["a"], TEXTS[:2])
    engine = TorchEngine(models, "fp32")
    fragile(engine, monkeypatch)
    good, bad, other = classified(
        engine, [piece("a", TEXTS[0]), piece("b", "fine", "boom", start=6), piece("a", TEXTS[1])]
    )
    assert isinstance(bad, InferenceError)
    assert (bad.code, str(bad)) == ("invalid_text", "text 7: the tokenizer makes nothing of it; leave it out")
    assert isinstance(good, Answer)
    assert isinstance(other, Answer)
    np.testing.assert_allclose([*good.probabilities, *other.probabilities], expected, atol=1e-5)


def test_a_tokenizer_that_breaks_at_everything_is_answered(
    models: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(models, "fp32")
    fragile(engine, monkeypatch)
    assert codes(classified(engine, [piece("a", "boom")] * 9)) == ["invalid_text"] * 9


def test_a_text_without_tokens_is_refused(models: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchEngine(models, "fp32")
    plain = engine.backbone.encode
    monkeypatch.setattr(engine.backbone, "encode", lambda texts: [plain([t])[0] if t else [] for t in texts])
    assert codes(classified(engine, [piece("a", ""), piece("a", "the cat")])) == ["invalid_text", ""]


def test_a_model_that_computes_no_numbers_fails_alone(models: dict[str, Backbone]) -> None:
    with torch.no_grad():
        next(models["b"].model.get_submodule(models["b"].head_paths[-1]).parameters()).fill_(float("nan"))
    engine = TorchEngine(models, "fp32")
    assert codes(classified(engine, [piece("a", "the cat"), piece("b", "the cat")])) == ["", "model_unusable"]


def test_where_the_pass_fails_each_piece_is_tried_alone(
    models: dict[str, Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(models, "fp32")
    plain = engine.logits

    def logits(encodings: Sequence[Any], wanted: Any) -> Any:
        if max(map(len, encodings)) > 20:
            raise RuntimeError("DefaultCPUAllocator: not enough memory")
        return plain(encodings, wanted)

    monkeypatch.setattr(engine, "logits", logits)
    results = classified(engine, [piece("a", "the cat"), piece("a", "the cat " * 20), piece("b", "the dog")])
    assert codes(results) == ["", "internal_error", ""]
