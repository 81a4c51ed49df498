"""Probes: they find the layer that knows, the same in every order of batches; intervals; classes and slices."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset

from pipelines.hidden_layers.probes import enough, fit_probes, layers_section
from pipelines.records import FloatArray, Splits


def splits(train: int = 160, validation: int = 80) -> Splits:
    """Two classes in turn; the slice `site` has 10 items of one value."""

    def part(n: int) -> Dataset:
        return Dataset.from_dict(
            {
                "text": [f"text {i}" for i in range(n)],
                "label": ["calm" if i % 2 else "harsh" for i in range(n)],
                "group": list(range(n)),
                "site": ["b" if i < 10 else "a" for i in range(n)],
            }
        )

    return Splits(part(train), part(validation), part(10), ("calm", "harsh"), {})


def states(own: Splits, signals: list[float]) -> FloatArray:
    """(N + M, layers, 8): noise, and the class as strongly as each layer knows it."""
    targets = np.concatenate([own.targets(own.train), own.targets(own.validation)])
    noise = np.random.default_rng(0).normal(size=(len(targets), len(signals), 8))
    noise[:, :, 0] += (2 * targets - 1)[:, None] * np.array(signals)
    return noise


def test_the_layer_that_knows_most_is_found_and_the_lowest_that_knows_as_much() -> None:
    own = splits()
    section = layers_section(fit_probes(states(own, [0.0, 1.0, 3.0, 3.0]), own, seed=0), own, (), 200, seed=0)
    scores = [layer["macro_f1"] for layer in section]
    assert scores[0] < 0.65 < scores[1] < 0.95 < scores[2]
    assert enough(section) == 2
    best = max(section, key=lambda layer: layer["macro_f1"])
    assert best["to_best"] == 0.0
    assert section[0]["to_best_ci"][1] < 0
    assert all(low <= layer["macro_f1"] <= high for layer in section for low, high in [layer["macro_f1_ci"]])


def test_every_class_and_every_value_of_a_slice_has_its_figures() -> None:
    own = splits()
    (layer,) = layers_section(fit_probes(states(own, [3.0]), own, seed=0), own, ("site",), 200, seed=0)
    assert [c["label"] for c in layer["classes"]] == ["calm", "harsh"]
    assert np.mean([c["f1"] for c in layer["classes"]]) == pytest.approx(layer["macro_f1"])
    assert all(c["f1_ci"][0] <= c["f1"] <= c["f1_ci"][1] for c in layer["classes"])
    assert [(s["value"], s["items"], s["small"]) for s in layer["slices"]] == [("a", 70, False), ("b", 10, True)]


def test_a_class_that_validation_lacks_has_no_figure() -> None:
    own = splits()
    own = Splits(own.train, own.validation.filter(lambda row: row["label"] == "calm"), own.test, own.labels, {})
    (layer,) = layers_section(fit_probes(states(own, [1.0]), own, seed=0), own, (), 200, seed=0)
    assert [c["f1"] is None for c in layer["classes"]] == [False, True]


def test_regularisation_is_chosen_on_training_items_alone() -> None:
    own = splits()
    before = fit_probes(states(own, [1.0]), own, seed=0)[0]
    other = states(own, [1.0])
    other[len(own.train) :] = 0
    after = fit_probes(other, own, seed=0)[0]
    assert before.C == after.C
    assert len(np.unique(after.predicted)) == 1


@pytest.mark.parametrize("rare", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_group_is_trained_on_whatever_the_seed(rare: int, seed: int) -> None:
    """All items of a class may be one author's, or near duplicates of each other."""
    own = splits()
    labels = ["harsh"] * rare + ["calm"] * (160 - rare)
    train = own.train.remove_columns(["label", "group"])
    train = train.add_column("label", labels).add_column("group", [0] * rare + list(range(1, 161 - rare)))
    (layer,) = fit_probes(states(Splits(train, own.validation, own.test, own.labels, {}), [3.0]), Splits(
        train, own.validation, own.test, own.labels, {}), seed)  # fmt: skip
    assert set(layer.predicted) <= {0, 1}


def test_one_group_of_everything_can_be_probed() -> None:
    own = splits()
    train = own.train.remove_columns("group").add_column("group", [7] * len(own.train))
    whole = Splits(train, own.validation, own.test, own.labels, {})
    (layer,) = fit_probes(states(whole, [3.0]), whole, seed=0)
    assert (layer.predicted == whole.targets(whole.validation)).mean() > 0.9
