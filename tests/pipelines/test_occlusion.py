"""The second opinion: a word's drop is what blanking it costs; it names a planted word as the attributions do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.attributions import attribute
from pipelines.backbones import Backbone
from pipelines.occlusion import drops, rank_agreement
from pipelines.predict import predict_logits
from pipelines.saved_run import SavedRun
from tests.runs import planted_run, table
from tests.toys import TRIGGER


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("occlusion"), baselines=["majority"])


@pytest.fixture(scope="module")
def backbone(planted: Path) -> Backbone:
    return SavedRun(planted).model()


def test_a_drop_is_the_score_less_that_of_the_text_without_the_word(backbone: Backbone) -> None:
    text = "the cat then sleeps near the road"
    found = attribute(backbone, text)
    fallen = drops(backbone, found)
    assert len(fallen) == len(found.words) == 7
    for word, fell in zip(found.words, fallen, strict=True):
        blanked = backbone.blanked(found.encoding, word.positions)
        assert sum(a != b for a, b in zip(blanked, found.encoding, strict=True)) == 1
        logits = predict_logits(backbone, [blanked], "fp32")[0]  # BERT: positions do not depend on what is padding
        assert fell == pytest.approx(found.score - (logits[found.towards] - logits[found.against]), abs=1e-4)


def test_all_pieces_of_a_word_are_blanked_at_once(backbone: Backbone) -> None:
    """The toy tokenizer splits at the apostrophe; the Unicode rules do not."""
    found = attribute(backbone, "the cat's barn")
    assert [len(word.positions) for word in found.words] == [1, 3, 1]
    assert len(drops(backbone, found)) == 3


def test_a_text_without_words_has_no_drops(backbone: Backbone) -> None:
    assert drops(backbone, attribute(backbone, "\n")).tolist() == []


def test_batches_of_any_size_give_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    found = attribute(backbone, "the cat then sleeps near the road")
    whole = drops(backbone, found)
    monkeypatch.setattr("pipelines.attributions.BATCH_TOKENS", 2 * len(found.encoding))
    np.testing.assert_allclose(drops(backbone, found), whole, atol=1e-5)


def test_it_names_the_planted_word_as_the_attributions_do(planted: Path, backbone: Backbone) -> None:
    rows = table(planted)
    texts = [text for text, label in zip(rows["text"], rows["label"], strict=True) if label == "planted"]
    same, ranks = [], []
    for text in texts:
        found = attribute(backbone, text)
        fallen = drops(backbone, found)
        word = found.words[int(fallen.argmax())]
        same.append(text[word.start : word.end] == TRIGGER and int(found.weights.argmax()) == int(fallen.argmax()))
        ranks.append(rank_agreement(found.weights, fallen))
    assert np.mean(same) >= 0.9
    assert np.median([rank for rank in ranks if rank is not None]) > 0.5


@pytest.mark.parametrize(
    ("first", "second", "agreement"),
    [
        ([3.0, 1.0, 2.0], [30.0, 1.0, 5.0], 1.0),
        ([3.0, 1.0, 2.0], [-3.0, -1.0, -2.0], -1.0),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 4.0], 0.8),
        ([1.0, 1.0], [1.0, 2.0], None),
        ([1.0], [2.0], None),
        ([], [], None),
    ],
)
def test_agreement_is_that_of_ranks_and_none_where_there_are_no_ranks(
    first: list[float], second: list[float], agreement: float | None
) -> None:
    assert rank_agreement(np.array(first), np.array(second)) == pytest.approx(agreement)
