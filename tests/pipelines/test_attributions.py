"""Integrated gradients: they add up for every architecture, equal a sum done by hand, and find a planted word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.attributions import GAP, SMALL, Attribution, Margin, attribute
from pipelines.backbones import load_text_backbone
from pipelines.backbones.text import TextBackbone
from pipelines.config import BackboneConfig
from pipelines.errors import BackboneError
from pipelines.predict import predict_logits
from pipelines.saved_run import SavedRun
from tests.runs import planted_run, table
from tests.toys import ARCHITECTURES, TRIGGER, tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(20, seed=3)]
LABELS = ("calm", "harsh", "odd")
PADDED = ("bert", "electra", "modernbert", "deberta-v2")  # whose positions do not depend on what is padding


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attributions")


def backbone_of(folder: Path, model_type: str) -> TextBackbone:
    path = folder / model_type
    if not path.exists():
        tiny_backbone(path, model_type)
    backbone = load_text_backbone(BackboneConfig(name=str(path)), LABELS, 64, 0)
    backbone.scale_logits(10)  # an untrained head hardly tells classes apart
    return backbone


def relative(found: Attribution) -> float:
    return found.gap / abs(found.score - found.reference)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_they_add_up_within_5_percent_on_95_percent_of_the_items(folder: Path, model_type: str) -> None:
    backbone = backbone_of(folder, model_type)
    found = [attribute(backbone, text) for text in TEXTS]
    assert np.mean([relative(one) <= GAP for one in found]) >= 0.95
    assert all(one.complete for one in found)
    for one, text, logits in zip(found, TEXTS, predict_logits(backbone, backbone.encode(TEXTS), "fp32"), strict=True):
        np.testing.assert_allclose(one.logits, logits, atol=1e-3)
        assert (one.towards, one.against) == tuple(np.argsort(-logits)[:2])
        assert one.score == pytest.approx(logits[one.towards] - logits[one.against], abs=1e-3)
        assert one.weights.sum() == pytest.approx(one.tokens.sum(), abs=1e-5)
        if model_type != "qwen2":  # whose tokenizer class does not fit the toy vocabulary
            assert [text[word.start : word.end] for word in one.words] == text.split()
        assert one.cut == 0
        assert [one.tokens[place] for place, span in enumerate(one.spans) if span is None] == [0.0, 0.0]


@pytest.mark.parametrize("model_type", PADDED)
def test_the_reference_is_the_model_on_the_blanked_text(folder: Path, model_type: str) -> None:
    backbone = backbone_of(folder, model_type)
    found = attribute(backbone, TEXTS[0], steps=4, most=4)
    inside = [place for place, span in enumerate(found.spans) if span is not None]
    logits = predict_logits(backbone, [backbone.blanked(found.encoding, inside)], "fp32")[0]
    assert found.reference == pytest.approx(logits[found.towards] - logits[found.against], abs=1e-4)


@pytest.mark.parametrize("model_type", ["roberta", "mpnet", "llama", "qwen2"])
def test_blanks_move_neither_positions_nor_the_token_that_the_head_reads(folder: Path, model_type: str) -> None:
    """They count from padding; with word embeddings of x itself, F is F(x) whatever the ids say."""
    backbone = backbone_of(folder, model_type)
    ids = backbone.encode(TEXTS[:1])[0]
    backbone.model.eval()
    margin = Margin(backbone, ids, 0, 1)
    padded = [ids[0], *[backbone.tokenizer.pad_token_id] * (len(ids) - 2), ids[-1]]
    embeddings = backbone.model.get_input_embeddings()
    with torch.no_grad():
        wanted = embeddings(torch.tensor([ids]))
        handle = embeddings.register_forward_hook(lambda *_: wanted)
        same = margin.of([padded])
        handle.remove()
    assert same == pytest.approx(margin.of([ids]), abs=1e-6)
    assert abs(margin.of([padded]) - same) > 1e-3


def test_they_are_the_sum_of_gradients_done_by_hand(folder: Path) -> None:
    backbone = backbone_of(folder, "bert")
    found = attribute(backbone, TEXTS[1])
    inside = [place for place, span in enumerate(found.spans) if span is not None]
    table = backbone.model.get_input_embeddings().weight.detach()
    start, end = table[backbone.blanked(found.encoding, inside)], table[found.encoding]
    total, steps = torch.zeros_like(end), 400
    for step in range(steps):
        point = (start + (step + 0.5) / steps * (end - start)).requires_grad_()
        logits = backbone.model(inputs_embeds=point[None]).logits[0]
        total += torch.autograd.grad(logits[found.towards] - logits[found.against], point)[0]
    np.testing.assert_allclose(found.tokens, (total / steps * (end - start)).sum(dim=1), atol=1e-4)


def test_a_class_that_was_not_predicted_can_be_explained(folder: Path) -> None:
    backbone = backbone_of(folder, "bert")
    predicted = attribute(backbone, TEXTS[0])
    found = attribute(backbone, TEXTS[0], towards=predicted.against)
    assert (found.towards, found.against) == (predicted.against, predicted.towards)
    np.testing.assert_allclose(found.tokens, -predicted.tokens, atol=1e-5)
    assert found.probability < predicted.probability


def test_steps_are_doubled_until_the_gap_is_small_and_no_further_than_allowed(folder: Path) -> None:
    backbone = backbone_of(folder, "llama")
    rough = [attribute(backbone, text, steps=1, most=1) for text in TEXTS]
    assert {one.steps for one in rough} == {1}
    worst = int(np.argmax([one.gap for one in rough]))
    assert not rough[worst].complete
    better = attribute(backbone, TEXTS[worst], steps=1)
    assert better.complete
    assert better.steps in (2, 4, 8, 16, 32)
    assert not attribute(backbone, TEXTS[worst], steps=better.steps // 2, most=better.steps - 1).complete


def test_the_gap_may_be_5_percent_or_too_small_to_matter() -> None:
    def found(score: float, total: float) -> Attribution:
        tokens = np.array([total])
        return Attribution([5], [(0, 1)], 0, np.zeros(2), 0, 1, score, 0.0, tokens, (), tokens, 32)

    assert found(10, 9.6).complete
    assert not found(10, 9.4).complete
    assert found(0.01, 0.01 + 0.9 * SMALL).complete
    assert not found(0.01, 0.01 + 1.1 * SMALL).complete
    assert found(10, 10.2).gap == pytest.approx(0.2)


def test_what_the_model_did_not_read_is_counted(folder: Path) -> None:
    found = attribute(backbone_of(folder, "bert"), "the cat sleeps " * 40, steps=2, most=2)
    assert (len(found.encoding), len(found.words), found.cut) == (64, 62, 58)


def test_a_text_without_words_for_the_tokenizer_has_nothing_to_explain(folder: Path) -> None:
    found = attribute(backbone_of(folder, "bert"), "\u2003\n")
    assert (found.words, found.gap, found.complete) == ((), 0.0, True)


def test_a_batch_of_steps_of_any_size_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of(folder, "bert")
    whole = attribute(backbone, TEXTS[0])
    monkeypatch.setattr("pipelines.attributions.GRADIENT_TOKENS", 3 * len(whole.encoding))
    np.testing.assert_allclose(attribute(backbone, TEXTS[0]).tokens, whole.tokens, atol=1e-6)


def test_a_tokenizer_without_offsets_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of(folder, "bert")
    monkeypatch.setattr(type(backbone.tokenizer), "is_fast", False)
    with pytest.raises(BackboneError, match=r"expected a tokenizer with tokenizer\.json.*found \w+, which does not"):
        attribute(backbone, TEXTS[0])


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "llama"])
def test_a_planted_word_is_the_strongest_in_95_percent_of_the_items(folder: Path, model_type: str) -> None:
    path = planted_run(folder, model_type, baselines=["majority"])
    backbone, rows = SavedRun(path).model(), table(path)
    planted = [text for text, label in zip(rows["text"], rows["label"], strict=True) if label == "planted"]
    found = [attribute(backbone, text) for text in planted]
    strongest = [
        text[(word := one.words[int(one.weights.argmax())]).start : word.end]
        for one, text in zip(found, planted, strict=True)
    ]
    assert len(planted) == 32
    assert np.mean([relative(one) <= GAP for one in found]) >= 0.95
    assert np.mean([backbone.labels[one.towards] == "planted" for one in found]) >= 0.95  # it has learned the rule
    assert np.mean([word == TRIGGER for word in strongest]) >= 0.95
