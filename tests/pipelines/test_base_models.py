"""Names that an operator gives to backbones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.base_models import base_models, hidden_layers
from pipelines.config import EMBEDDED_BACKBONE, BackboneConfig
from pipelines.errors import ConfigError
from pipelines.weights import resolve
from tests.toys import tiny_backbone


def test_a_name_stands_for_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_backbone(tmp_path / "weights")
    monkeypatch.setenv("ROOTSTOCK_BASE_MODELS", f"house = {tmp_path / 'weights'}, {EMBEDDED_BACKBONE}")
    assert base_models() == {"house": str(tmp_path / "weights"), EMBEDDED_BACKBONE: EMBEDDED_BACKBONE}
    assert resolve(BackboneConfig(name="house")).path == tmp_path / "weights"


def test_by_default_there_is_the_embedded_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROOTSTOCK_BASE_MODELS", raising=False)
    assert base_models() == {EMBEDDED_BACKBONE: EMBEDDED_BACKBONE}


@pytest.mark.parametrize("text", ["=x", "a=", " , ", "a,=b"])
def test_other_text_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_BASE_MODELS", text)
    with pytest.raises(ConfigError, match="expected names or alias=name"):
        base_models()


def test_layers_are_those_of_the_config(tmp_path: Path) -> None:
    assert hidden_layers(EMBEDDED_BACKBONE) == 6
    (tmp_path / "config.json").write_text(json.dumps({"n_layers": 5}))
    assert hidden_layers(str(tmp_path)) == 5
    (tmp_path / "config.json").write_text("no json")
    assert hidden_layers(str(tmp_path)) is None
    assert hidden_layers("owner/name") is None
