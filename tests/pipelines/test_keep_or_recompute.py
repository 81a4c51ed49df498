"""Keep or recompute: what the measured times say, and what is decided without measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines import keep_or_recompute
from pipelines.activation_store import ActivationStore
from pipelines.activations import kept
from pipelines.backbones import load_text_backbone
from pipelines.config import BackboneConfig
from pipelines.device import start_accelerator
from pipelines.errors import StoreError
from pipelines.keep_or_recompute import Choice, choose, measured
from pipelines.lower_layers import LowerLayers
from pipelines.records import finished
from pipelines.trunk import Freeze, Trunk
from tests.toys import tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(30)]


@pytest.fixture
def trunk(tmp_path: Path) -> Trunk:
    return make_trunk(tmp_path, 2)


def make_trunk(folder: Path, freeze: Freeze) -> Trunk:
    path = tiny_backbone(folder / "tiny")
    return Trunk(load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 32, seed=0), freeze)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "store", 1 << 30)


def timed(
    trunk: Trunk, store: ActivationStore, monkeypatch: pytest.MonkeyPatch, compute: float, write: float, read: float
) -> Choice:
    """What is chosen for 4 passes if these were the seconds for all items."""
    lower = LowerLayers(trunk.backbone, 2, "tokens", "fp32")
    encodings = trunk.backbone.encode(TEXTS)
    tokens = sum(map(len, encodings))
    size = 2 * lower.width * tokens
    monkeypatch.setattr(keep_or_recompute, "_seconds_to_compute", lambda *_: compute / tokens)
    monkeypatch.setattr(ActivationStore, "seconds_per_byte", lambda _: (write / size, read / size))
    return measured(lower, encodings, store, passes=4)


@pytest.mark.parametrize(
    ("compute", "write", "read", "keep"),
    [(10, 1, 1, True), (10, 1, 7.3, False), (10, 31, 0.1, False), (10, 29, 0.1, True), (0.1, 1, 0.01, False)],
)
def test_it_keeps_where_that_takes_less_time(
    compute: float, write: float, read: float, keep: bool,
    trunk: Trunk, store: ActivationStore, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Three of the four passes are saved, one write and four reads are paid."""
    choice = timed(trunk, store, monkeypatch, compute, write, read)
    assert choice.keep is keep
    assert (
        choice.reason == f"computing them takes {compute:.2g} s an epoch, writing {write:.2g} s, reading {read:.2g} s"
    )


def test_real_times_are_measured_and_positive(trunk: Trunk, store: ActivationStore) -> None:
    lower = LowerLayers(trunk.backbone, 2, "tokens", "fp32")
    reason = measured(lower, trunk.backbone.encode(TEXTS), store, passes=3).reason
    numbers = [float(word) for word in reason.split() if word[0].isdigit()]
    assert len(numbers) == 3
    assert all(0 < number < 60 for number in numbers)


def test_what_is_there_already_is_used(trunk: Trunk, store: ActivationStore) -> None:
    lower = LowerLayers(trunk.backbone, 2, "tokens", "fp32")
    encodings = trunk.backbone.encode(TEXTS)
    finished(kept(lower, encodings, store))
    assert measured(lower, encodings, store, passes=1) == Choice(True, "they are there already")


def test_what_does_not_fit_is_not_kept(trunk: Trunk, store: ActivationStore) -> None:
    lower = LowerLayers(trunk.backbone, 2, "tokens", "fp32")
    small = ActivationStore(store.root, 100)
    choice = measured(lower, trunk.backbone.encode(TEXTS), small, passes=9)
    assert choice == Choice(False, "they need 0.0 GiB, the store may hold 0.0")


def test_a_disk_that_cannot_be_written_is_the_reason(
    trunk: Trunk, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: ActivationStore) -> Any:
        raise StoreError("Read-only file system")

    monkeypatch.setattr(ActivationStore, "seconds_per_byte", broken)
    lower = LowerLayers(trunk.backbone, 2, "tokens", "fp32")
    assert measured(lower, trunk.backbone.encode(TEXTS), store, passes=9) == Choice(False, "Read-only file system")


@pytest.mark.parametrize(
    ("freeze", "cache", "expected"),
    [
        ("none", "on", Choice(False, "no hidden layer is frozen")),
        (0, "auto", Choice(False, "no hidden layer is frozen")),
        (2, "on", Choice(True, "backbone.cache is on")),
        (2, "off", Choice(False, "backbone.cache is off")),
        (2, "auto", Choice(True, "measured before")),
    ],
)
def test_what_is_decided_without_measuring(
    freeze: Freeze, cache: Any, expected: Choice, store: ActivationStore, tmp_path: Path
) -> None:
    def remember(name: str, make: object) -> dict[str, Any]:
        assert name == "cache"
        return {"keep": True, "reason": "measured before"}

    accelerator = start_accelerator("fp32", (), tmp_path)
    assert choose(cache, make_trunk(tmp_path, freeze), TEXTS, "fp32", store, 3, accelerator, remember) == expected


def test_the_sentence_says_both() -> None:
    assert Choice(True, "so").sentence == "hidden states of the frozen layers are kept: so"
    assert Choice(False, "so").sentence == "hidden states of the frozen layers are not kept: so"
