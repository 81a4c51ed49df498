"""Hidden states of items: computed once, bit for bit the same whatever is computed with them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import activations
from pipelines.activation_store import ActivationStore
from pipelines.activations import Computed, content_key, filling_work, kept, lacking
from pipelines.backbones import load_text_backbone
from pipelines.backbones.base import Encoding
from pipelines.backbones.text import TextBackbone
from pipelines.config import BackboneConfig
from pipelines.device import Precision
from pipelines.errors import Interrupted, StoreError
from pipelines.lower_layers import Kind, LowerLayers
from pipelines.records import Stage, finished
from tests.toys import ARCHITECTURES, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(40)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> TextBackbone:
    path = tiny_backbone(tmp_path_factory.mktemp("backbone") / "tiny")
    return load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 32, seed=0)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    return ActivationStore(tmp_path / "store", 1 << 28)


def lower_of(backbone: TextBackbone, precision: Precision = "fp32", depth: int = 2) -> LowerLayers:
    return LowerLayers(backbone, depth, "tokens", precision)


def states_of(lower: LowerLayers, texts: Sequence[str], store: ActivationStore) -> list[torch.Tensor]:
    """What is kept of every text, (T, D)."""
    encodings = lower.backbone.encode(texts)
    found = finished(kept(lower, encodings, store))
    return [found.batch(np.array([i]))[0] for i in range(len(texts))]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bits_of_an_item_do_not_depend_on_its_data_set(
    precision: Precision, backbone: TextBackbone, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any other items, in any order, in one store or grown step by step."""
    lower = lower_of(backbone, precision)
    folder = tmp_path_factory.mktemp("stores")
    alone = states_of(lower, TEXTS[:1], ActivationStore(folder / "alone", 1 << 28))[0]
    order = data.draw(st.permutations(range(len(TEXTS))))
    some = order[: data.draw(st.integers(1, len(TEXTS)))]
    grown = ActivationStore(folder / "grown", 1 << 28)
    cut = data.draw(st.integers(0, len(some)))
    if cut:
        states_of(lower, [TEXTS[i] for i in some[:cut]], grown)
    found = states_of(lower, [TEXTS[i] for i in [*some, 0]], grown)
    assert torch.equal(found[-1], alone)
    shutil.rmtree(folder)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_the_bits_of_an_item_do_not_depend_on_its_neighbours_in_any_architecture(
    model_type: str, precision: Precision, tmp_path: Path
) -> None:
    """Items of 10, 17, 24 and 31 tokens, padded to 16, 24 and 32; those of 24 need no padding."""
    path = tiny_backbone(tmp_path / "tiny", model_type)
    lower = lower_of(load_text_backbone(BackboneConfig(name=str(path)), ("calm", "harsh"), 32, seed=0), precision)
    lengths = {len(ids) % 8 for ids in lower.backbone.encode(TEXTS)}
    assert 0 in lengths
    assert len(lengths) > 1
    together = states_of(lower, TEXTS, ActivationStore(tmp_path / "together", 1 << 28))
    for number in range(0, len(TEXTS), 3):
        store = ActivationStore(tmp_path / f"alone {number}", 1 << 28)
        if number % 2:  # deepened: padded rows are zeros now, not what the layer below made of padding
            states_of(lower_of(lower.backbone, precision, depth=1), [TEXTS[number]], store)
        assert torch.equal(states_of(lower, [TEXTS[number]], store)[0], together[number])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokens", "pooled", "mean"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_bits_of_a_real_backbone_do_not_depend_on_neighbours(
    precision: Precision, kind: Kind, tmp_path: Path
) -> None:
    """384 wide, two threads: the kernels that users have."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        backbone = load_text_backbone(BackboneConfig(), ("calm", "harsh"), 64, seed=0)
        lower = LowerLayers(backbone, 6 if kind != "tokens" else 2, kind, precision)
        texts = [" ".join(["a fox saw the barn"] * (1 + i % 12) + ["near"] * (i % 7)) + f" {i}" for i in range(120)]
        together = states_of(lower, texts, ActivationStore(tmp_path / "together", 1 << 28))
        for number in (0, 5, 17, 60, 119):
            alone = states_of(lower, [texts[number]], ActivationStore(tmp_path / f"alone {number}", 1 << 28))
            assert torch.equal(alone[0], together[number])
            assert len(alone[0]) == (len(backbone.encode([texts[number]])[0]) if kind == "tokens" else 1)
    finally:
        torch.set_num_threads(threads)


def test_every_item_goes_on_from_the_deepest_states_that_it_has(backbone: TextBackbone, store: ActivationStore) -> None:
    states_of(lower_of(backbone, depth=1), TEXTS[:30], store)
    states_of(lower_of(backbone, depth=2), TEXTS[10:12], store)
    deeper = lower_of(backbone, depth=3)
    started: list[int] = []

    def recorded(lower: LowerLayers, encodings: list[Encoding], start: Any, at_least: int) -> torch.Tensor:
        started.append(start[0] if start else 0)
        return LowerLayers.__call__(lower, encodings, start, at_least)

    deeper.__class__ = type("Recorded", (LowerLayers,), {"__call__": recorded})
    states_of(deeper, TEXTS, store)
    assert set(started) == {0, 1, 2}


def test_only_what_is_missing_is_computed(backbone: TextBackbone, store: ActivationStore) -> None:
    lower = lower_of(backbone)
    encodings = backbone.encode(TEXTS)
    assert finished(kept(lower, encodings[:25], store)).computed == 25
    assert finished(kept(lower, encodings, store)).computed == 15
    assert finished(kept(lower, [*encodings[::-1], encodings[3]], store)).computed == 0
    calls: list[int] = []
    lower.__class__ = type("Counted", (LowerLayers,), {"__call__": lambda *_: calls.append(1)})
    finished(kept(lower, encodings, store))
    assert calls == []


def test_equal_texts_are_computed_once(backbone: TextBackbone, store: ActivationStore) -> None:
    encodings = backbone.encode([TEXTS[0], TEXTS[1], TEXTS[0], "  ".join(TEXTS[0].split())])
    assert finished(kept(lower_of(backbone), encodings, store)).computed == 2


def test_a_batch_is_padded_with_zeros_and_close_to_the_computed_one(
    backbone: TextBackbone, store: ActivationStore
) -> None:
    lower = lower_of(backbone)
    encodings = backbone.encode(TEXTS)
    numbers = np.array([7, 0, 31])
    read = finished(kept(lower, encodings, store)).batch(numbers)
    computed = Computed(lower, encodings).batch(numbers)
    assert read.shape == computed.shape
    for row, number in enumerate(numbers):
        length = len(encodings[number])
        assert not read[row, length:].any()
        torch.testing.assert_close(read[row, :length], computed[row, :length], atol=0.03, rtol=0.02)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deepening_goes_on_from_what_is_there_with_the_same_bits(
    precision: Precision, backbone: TextBackbone, store: ActivationStore, tmp_path: Path
) -> None:
    """Some items start from depth 1, the others from their content; a fresh store starts all from their content."""
    states_of(lower_of(backbone, precision, depth=1), TEXTS[:25], store)
    deeper = lower_of(backbone, precision, depth=3)
    started: list[int] = []

    def recorded(lower: LowerLayers, encodings: list[Encoding], start: Any, at_least: int) -> torch.Tensor:
        started.append(start[0] if start else 0)
        return LowerLayers.__call__(lower, encodings, start, at_least)

    deeper.__class__ = type("Recorded", (LowerLayers,), {"__call__": recorded})
    found = states_of(deeper, TEXTS, store)
    assert set(started) == {0, 1}
    fresh = states_of(lower_of(backbone, precision, depth=3), TEXTS, ActivationStore(tmp_path / "fresh", 1 << 28))
    assert all(torch.equal(a, b) for a, b in zip(found, fresh, strict=True))


def test_a_lower_cut_is_computed_anew(backbone: TextBackbone, store: ActivationStore, tmp_path: Path) -> None:
    states_of(lower_of(backbone, depth=3), TEXTS, store)
    found = states_of(lower_of(backbone, depth=1), TEXTS, store)
    fresh = states_of(lower_of(backbone, depth=1), TEXTS, ActivationStore(tmp_path / "fresh", 1 << 28))
    assert all(torch.equal(a, b) for a, b in zip(found, fresh, strict=True))


def test_many_items_become_several_files_and_say_how_far_they_are(
    backbone: TextBackbone, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activations, "FILE_BYTES", 4000)
    events = list(kept(lower_of(backbone), backbone.encode(TEXTS), store))
    assert len(list(store.root.glob("*/*.safetensors"))) == len(events) - 1 == 3
    said = [event.message for event in events if isinstance(event, Stage)]
    assert said[0] == "computing the hidden states of 40 items"
    assert all(text.endswith(" of 40 items") for text in said[1:])
    assert finished(kept(lower_of(backbone), backbone.encode(TEXTS), store)).computed == 0


def test_asked_to_stop_it_keeps_what_is_done(backbone: TextBackbone, store: ActivationStore) -> None:
    lower, encodings = lower_of(backbone), backbone.encode(TEXTS)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(Interrupted, match="stopped while hidden states were being computed; what was computed is kept"):
        finished(kept(lower, encodings, store, stop=stop))
    rest = finished(kept(lower, encodings, store))
    assert 0 < rest.computed < 40


def test_a_store_that_loses_files_meanwhile_is_no_store(
    backbone: TextBackbone, store: ActivationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ActivationStore.write

    def write_and_lose(self: ActivationStore, *args: object) -> None:
        write(self, *args)  # type: ignore[arg-type]
        shutil.rmtree(self.root)

    monkeypatch.setattr(ActivationStore, "write", write_and_lose)
    with pytest.raises(StoreError, match="dropped while they were being computed"):
        finished(kept(lower_of(backbone), backbone.encode(TEXTS), store))


def test_keys_are_of_the_content_only(backbone: TextBackbone) -> None:
    lower = lower_of(backbone)
    first, second, same = backbone.encode([TEXTS[0], TEXTS[1], TEXTS[0].replace(" ", "  ")])
    assert content_key(lower, first) == content_key(lower, same) != content_key(lower, second)
    assert len(content_key(lower, first)) == 16
    assert content_key(lower, [1, 2]) != content_key(lower, [1, 2, 0])


def computed_work(lower: LowerLayers, encodings: list[Encoding], store: ActivationStore) -> float:
    """Tokens times layers, over all layers, that filling the store really runs."""
    work = 0.0

    class Counted(LowerLayers):
        def __call__(self, encodings: Any, start: Any = None, at_least: int = 0) -> torch.Tensor:
            nonlocal work
            done = start[0] if start else 0
            work += len(encodings) * at_least * (self.depth - done) / self.depth
            states: torch.Tensor = super().__call__(encodings, start, at_least)
            return states

    finished(kept(Counted(lower.backbone, lower.depth, lower.kind, "fp32"), encodings, store))
    return work


@pytest.mark.parametrize(("there", "depth"), [(0, 2), (25, 2), (25, 1), (40, 1), (40, 2)])
def test_the_work_of_filling_is_known_before(
    there: int, depth: int, backbone: TextBackbone, store: ActivationStore
) -> None:
    """From nothing, and from some or all of the states at this depth or below."""
    lower, encodings = lower_of(backbone), backbone.encode(TEXTS)
    if there:
        finished(kept(lower_of(backbone, depth=depth), encodings[:there], store))
    expected = filling_work(lower, encodings, store)
    assert len(lacking(lower, encodings, store)) == (40 - there if depth == 2 else 40)
    assert expected == pytest.approx(computed_work(lower, encodings, store))
    assert filling_work(lower, encodings, store) == 0
    assert lacking(lower, encodings, store) == []


def test_the_work_of_filling_from_a_depth_that_is_still_to_come(backbone: TextBackbone, store: ActivationStore) -> None:
    encodings = backbone.encode(TEXTS)
    lower = LowerLayers(backbone, 3, "mean", "fp32")
    assert filling_work(lower, encodings, store, begun=2) == pytest.approx(filling_work(lower, encodings, None) / 3)
    finished(kept(lower_of(backbone), encodings, store))
    assert filling_work(lower, encodings, store) == pytest.approx(computed_work(lower, encodings, store))


def test_equal_contents_are_lacking_once(backbone: TextBackbone, store: ActivationStore) -> None:
    encodings = backbone.encode([TEXTS[0], TEXTS[1], TEXTS[0]])
    assert lacking(lower_of(backbone), encodings, store) == encodings[:2]
