"""Which runtime is used: the fastest that agrees with fp32; what was asked for and does not agree is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.bulk import engines, openvino_engine
from pipelines.bulk.engines import AGREEMENT, SAMPLE, Choice, candidates, choose, open_engines
from pipelines.config import BackboneConfig
from pipelines.errors import ConfigError
from pipelines.predict import predict_logits
from tests.toys import tiny_backbone, toy_rows

TORCH32, TORCH16 = Choice("torch", "fp32"), Choice("torch", "bf16")
TEXTS = [str(n) for n in range(SAMPLE)]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[Choice, tuple[float, float]]:
    """Engines that say how many seconds a pass takes and which share of labels is wrong."""
    told: dict[Choice, tuple[float, float]] = {TORCH32: (1.0, 0.0)}

    def opened(load: Any, choice: Choice, sample: Sequence[str], *_: Any) -> list[Any]:
        seconds, wrong = told[choice]
        clock = SimpleNamespace(now=0.0)
        monkeypatch.setattr(engines.time, "perf_counter", lambda: clock.now)

        def logits(encodings: Sequence[str]) -> dict[str, Any]:
            clock.now += seconds
            z = np.tile([0.0, 1.0], (len(encodings), 1))
            z[: round(wrong * len(encodings))] = [1.0, 0.0]
            return {"m": z}

        return [SimpleNamespace(backbone=SimpleNamespace(encode=list), logits=logits)]

    monkeypatch.setattr(engines, "open_engines", opened)
    return told


def test_the_fastest_that_agrees_is_used(fakes: dict[Choice, tuple[float, float]]) -> None:
    openvino = Choice("openvino", "bf16")
    fakes |= {TORCH16: (0.5, 0.0), openvino: (0.25, 0.01)}
    choice, tried = choose(dict, TEXTS, [TORCH16, TORCH32, openvino], free=True)
    assert (choice.backend, choice.precision) == ("torch", "bf16")
    assert choice.texts_per_second == SAMPLE / 0.5
    assert [trial.name for trial in tried] == ["torch bf16", "torch fp32", "openvino bf16"]
    assert tried[2].agreement is not None
    assert tried[2].agreement < AGREEMENT
    fakes[openvino] = (0.25, 0.001)
    assert choose(dict, TEXTS, [TORCH16, TORCH32, openvino], free=True)[0].backend == "openvino"
    fakes[openvino] = fakes[TORCH16] = (2.0, 0.0)
    assert choose(dict, TEXTS, [TORCH16, TORCH32, openvino], free=True)[0].precision == "fp32"


def test_what_was_asked_for_must_agree(fakes: dict[Choice, tuple[float, float]]) -> None:
    fakes[TORCH16] = (0.1, 0.02)
    with pytest.raises(ConfigError, match=r"torch bf16 gives the label of fp32 for 98\.0% .* and 99\.5% are needed"):
        choose(dict, TEXTS, [TORCH16], free=False)
    fakes[TORCH16] = (5.0, 0.0)
    assert choose(dict, TEXTS, [TORCH16], free=False)[0].precision == "bf16"  # slower, but it was asked for


def test_few_texts_are_not_worth_a_measurement(fakes: dict[Choice, tuple[float, float]]) -> None:
    assert choose(dict, TEXTS[:-1], [TORCH16, TORCH32], free=True) == (TORCH32, [])
    assert choose(dict, TEXTS, [TORCH32], free=False) == (TORCH32, [])
    assert choose(dict, [], [TORCH16], free=False) == (TORCH16, [])


@pytest.mark.parametrize(
    ("backend", "precision", "models", "more", "found"),
    [
        ("auto", "auto", 1, True, ["torch bf16", "torch fp32", "openvino bf16"]),
        ("auto", "auto", 1, False, ["torch bf16", "torch fp32"]),
        ("auto", "auto", 3, True, ["torch bf16", "torch fp32"]),
        ("torch", "auto", 1, True, ["torch bf16", "torch fp32"]),
        ("openvino", "auto", 1, False, ["openvino bf16", "openvino fp32"]),
        ("auto", "fp32", 1, True, ["torch fp32", "openvino fp32"]),
        ("auto", "int8", 1, False, ["openvino int8"]),
        ("openvino", "bf16", 2, True, ["openvino bf16"]),
        ("auto", "fp16", 1, True, ["torch fp16"]),
    ],
)
def test_candidates(
    backend: Any, precision: Any, models: int, more: bool, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "best_precision", lambda: "bf16")
    monkeypatch.setattr(engines, "device", lambda: SimpleNamespace(type="cpu"))
    monkeypatch.setattr(openvino_engine, "available", lambda: True)
    assert [choice.name for choice in candidates(backend, precision, models, more)] == found


def test_what_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend, precision in (("torch", "int8"), ("openvino", "fp16")):
        with pytest.raises(ConfigError, match=f"--precision {precision}"):
            candidates(backend, precision, 1, True)  # type: ignore[arg-type]
    monkeypatch.setattr(openvino_engine, "available", lambda: False)
    for backend, precision in (("openvino", "auto"), ("auto", "int8")):
        with pytest.raises(ConfigError, match=r"pip install 'rootstock\[openvino\]'"):
            candidates(backend, precision, 1, True)  # type: ignore[arg-type]
    assert all(choice.backend == "torch" for choice in candidates("auto", "auto", 1, True))


@pytest.mark.parametrize("choice", [TORCH32, Choice("openvino", "fp32")])
def test_every_runtime_gives_the_logits_of_the_model(choice: Choice, tmp_path: Path) -> None:
    from pipelines.backbones import load_text_backbone

    if choice.backend == "openvino":
        pytest.importorskip("openvino")
    path = tiny_backbone(tmp_path / "tiny")

    def load() -> dict[str, Any]:
        config = BackboneConfig(name=str(path))
        return {name: load_text_backbone(config, ("x", "y"), 64, seed) for seed, name in enumerate("ab")}

    texts = [row["text"] for row in toy_rows(20)]
    wanted = {"a": np.arange(20) < 12, "b": np.ones(20, dtype=bool)}
    seen = {}
    for engine in open_engines(load, choice, texts):
        own = {name: wanted[name] for name in engine.names}
        seen |= engine.logits(engine.backbone.encode(texts), own)
    for name, model in load().items():
        expected = predict_logits(model, model.encode(texts), "fp32")
        np.testing.assert_allclose(seen[name][wanted[name]], expected[wanted[name]], atol=1e-4)
    assert np.isnan(seen["a"][12:]).all()
