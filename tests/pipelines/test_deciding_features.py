"""What decided a regression: contributions add up to its score, and a planted word comes first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from pipelines.baselines import load_baseline
from pipelines.baselines.logistic import LogisticRegressionBaseline
from pipelines.baselines.manual import ManualFeatures
from pipelines.baselines.tfidf import TfidfFeatures
from pipelines.deciding_features import deciding_features
from tests.toys import TRIGGER, planted_rows

ROWS = planted_rows(120)
TEXTS = [row["text"] for row in ROWS]
EVERY = 10**6


def trained(features: TfidfFeatures | ManualFeatures, targets: list[int], classes: int) -> LogisticRegressionBaseline:
    baseline = LogisticRegressionBaseline(features)
    baseline.fit(TEXTS, np.array(targets), np.arange(len(TEXTS)), classes, seed=0)
    return baseline


@pytest.fixture(scope="module")
def planted() -> LogisticRegressionBaseline:
    """Class 1 where the trigger is."""
    return trained(TfidfFeatures(), [int(row["label"] == "planted") for row in ROWS], 2)


def test_a_planted_word_is_the_first_feature(planted: LogisticRegressionBaseline) -> None:
    texts = [row["text"] for row in planted_rows(40, seed=5) if row["label"] == "planted"]
    found = deciding_features(planted, texts, 5)
    assert np.mean([decision.target == 1 for decision in found]) >= 0.85
    named = [decision for decision in found if decision.target == 1]
    assert np.mean([decision.features[0].name == f"words: {TRIGGER}" for decision in named]) >= 0.95
    assert all(decision.features[0].contribution > 0 for decision in named)
    assert {len(decision.features) for decision in found} == {5}


def test_of_two_classes_all_features_and_the_intercept_are_the_log_odds(planted: LogisticRegressionBaseline) -> None:
    for decision in deciding_features(planted, TEXTS[:8], EVERY):
        score = decision.intercept + sum(feature.contribution for feature in decision.features)
        assert score == pytest.approx(logit(decision.probability))
    assert {decision.target for decision in deciding_features(planted, TEXTS[:8], 1)} == {0, 1}


def test_of_more_classes_they_are_the_score_of_the_predicted_one() -> None:
    baseline = trained(TfidfFeatures(), [number % 3 for number in range(len(TEXTS))], 4)  # class 3 has no item
    scores = baseline.model.decision_function(baseline.features.transform(TEXTS[:6]))
    for decision, own in zip(deciding_features(baseline, TEXTS[:6], EVERY), scores, strict=True):
        assert decision.target == int(own.argmax())
        score = decision.intercept + sum(feature.contribution for feature in decision.features)
        assert score == pytest.approx(own.max())
    np.testing.assert_allclose(baseline.model.coef_.sum(axis=0), 0, atol=1e-3)  # relative to all classes


def test_the_strongest_come_first_and_those_that_add_nothing_not_at_all(planted: LogisticRegressionBaseline) -> None:
    (decision,) = deciding_features(planted, ["the cat then sleeps"], EVERY)
    strengths = [abs(feature.contribution) for feature in decision.features]
    assert strengths == sorted(strengths, reverse=True)
    assert min(strengths) > 0
    assert all("barn" not in feature.name for feature in decision.features)
    assert deciding_features(planted, ["zzz"], EVERY)[0].features == ()


def test_a_saved_regression_decides_the_same(planted: LogisticRegressionBaseline, tmp_path: Path) -> None:
    planted.save(tmp_path / "logistic-regression-tfidf")
    loaded = load_baseline(tmp_path / "logistic-regression-tfidf", None, "fp32")
    assert isinstance(loaded, LogisticRegressionBaseline)
    assert deciding_features(loaded, TEXTS[:4], 5) == deciding_features(planted, TEXTS[:4], 5)


def test_manual_features_have_their_names_and_standardised_values() -> None:
    """Class 1 is written in capitals."""
    baseline = LogisticRegressionBaseline(ManualFeatures())
    texts = [text.upper() if number % 2 else text for number, text in enumerate(TEXTS)]
    targets = np.arange(len(texts)) % 2
    baseline.fit(texts, targets, np.arange(len(texts)), 2, seed=0)
    (decision,) = deciding_features(baseline, ["THE CAT SLEEPS NEAR THE BARN"], 4)
    assert decision.target == 1
    assert {feature.name for feature in decision.features} & {"share of capitals", "words in capitals"}
    place = baseline.features.names()
    assert place is not None
    values = baseline.features.transform(["THE CAT SLEEPS NEAR THE BARN"])[0]
    first = decision.features[0]
    assert first.value == values[place.index(first.name)]


class Nameless:
    """Dimensions without a meaning, as those of embeddings."""

    store = "off"

    def fit_transform(self, texts: list[str]) -> np.ndarray:
        return self.transform(texts)

    def transform(self, texts: list[str]) -> np.ndarray:
        return np.array([[float(TRIGGER in text.split()), 1.0] for text in texts])

    def names(self) -> None:
        return None


def test_dimensions_without_names_are_not_listed() -> None:
    baseline = LogisticRegressionBaseline(Nameless())  # type: ignore[arg-type]
    targets = np.array([int(row["label"] == "planted") for row in ROWS])
    baseline.fit(TEXTS, targets, np.arange(len(TEXTS)), 2, seed=0)
    (decision,) = deciding_features(baseline, [f"the {TRIGGER}"], 5)
    assert (decision.target, decision.features) == (1, ())
