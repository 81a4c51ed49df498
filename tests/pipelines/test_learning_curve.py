"""Would more labels help? Shares that are nested, curves that can be recomputed, and what is read off them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from pipelines.checkpoint import Checkpoints
from pipelines.config import parse_config
from pipelines.device import start_accelerator
from pipelines.learning_curve import CurvePoint, learning_curve_section, nested_shares, tuned_points
from pipelines.predict import predict_logits
from pipelines.records import IntArray, Splits, Stage, Step, column
from pipelines.run import read_splits
from pipelines.score import trained_baseline
from pipelines.tune import finished_model, prepare, tune
from tests import runs
from tests.reports import splits as make_splits
from tests.toys import toy_config

EMBEDDINGS = "logistic-regression-embeddings"  # of a random backbone, so that its score depends on the items
SHARES = (0.125, 0.25, 0.5)


def items(labels: str, groups: list[int] | None = None) -> Dataset:
    columns = {"text": [f"text {i}" for i in range(len(labels))], "label": list(labels)}
    return Dataset.from_dict(columns | {"group": groups or list(range(len(labels)))})


# ---- shares


def test_shares_have_their_size_and_the_class_shares_of_the_whole() -> None:
    parts = nested_shares(items("a" * 80 + "b" * 40), SHARES, seed=3)
    assert [Counter(column(part, "label")) for part in parts] == [
        {"a": 10, "b": 5},
        {"a": 20, "b": 10},
        {"a": 40, "b": 20},
    ]


def test_the_seed_decides_which_items() -> None:
    whole = items("ab" * 40)
    first, again, other = (column(nested_shares(whole, (0.25,), seed)[0], "text") for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_share_that_lacks_a_class_is_left_out() -> None:
    """Two items cannot hold three classes; a half that lost the only c would be left out too."""
    whole = items("ab" * 50 + "c")
    for seed in range(5):
        assert nested_shares(whole, (0.02,), seed) == []
        assert all("c" in column(part, "label") for part in nested_shares(whole, (0.02, 0.5), seed))


def test_no_share_no_part() -> None:
    assert nested_shares(items("ab" * 10), (), 0) == []


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    labels=st.text("abc", min_size=2, max_size=60),
    sizes=st.lists(st.integers(1, 6), min_size=60, max_size=60),
    shares=st.sets(st.sampled_from([0.05, 0.2, 0.4, 0.5, 0.75, 0.95]), max_size=4),
    seed=st.integers(0, 100),
)
def test_shares_are_nested_and_hold_whole_groups_and_every_class(
    labels: str, sizes: list[int], shares: set[float], seed: int
) -> None:
    groups = np.repeat(np.arange(60), sizes)[: len(labels)].tolist()
    whole = items(labels, groups)
    parts = nested_shares(whole, tuple(sorted(shares)), seed)
    assert len(parts) <= len(shares)
    smaller: set[str] = set()
    for part in [*parts, whole]:
        texts = column(part, "text")
        assert smaller <= set(texts)
        assert len(set(texts)) == len(texts)
        assert texts == sorted(texts, key=lambda text: int(text.split()[1]))
        assert set(column(part, "label")) == set(labels)
        kept = Counter(column(part, "group"))
        assert all(number == Counter(groups)[group] for group, number in kept.items())
        smaller = set(texts)


# ---- what is read off


def curve(steps: list[list[float]], per_class: int, min_gain: float = 0.02, rival: bool = False) -> dict[str, Any]:
    """The section for a system that gets these shares of every class right, one list per point."""
    truth = np.repeat([0, 1], per_class)
    points = []
    for number, right in enumerate(steps, start=1):
        said = truth.copy()
        for c, share in enumerate(right):
            said[np.flatnonzero(truth == c)[round(share * per_class) :]] = 1 - c
        points.append(CurvePoint("fine-tuned", 10 * number, said))
        if rival:
            points.append(CurvePoint("logistic-regression-tfidf", 10 * number, truth))
    systems = ("fine-tuned", "logistic-regression-tfidf") if rival else ("fine-tuned",)
    return learning_curve_section(points[::-1], systems, make_splits("ab", truth.tolist()), min_gain, 200, 0)


def test_scores_are_those_of_scikit_learn_in_the_order_of_the_items() -> None:
    section = curve([[0.5, 0.5], [0.7, 0.9], [0.9, 0.9]], per_class=20, rival=True)
    own, rival = section["curves"]
    assert [point["items"] for point in own["points"]] == [10, 20, 30]
    truth = [0] * 20 + [1] * 20
    said = [0] * 14 + [1] * 6 + [1] * 18 + [0] * 2
    assert own["points"][1]["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert [point["macro_f1"] for point in rival["points"]] == [1.0, 1.0, 1.0]
    assert own["last_step"]["gain"] == pytest.approx(0.9 - f1_score(truth, said, average="macro"))
    assert (own["last_step"]["from"], own["last_step"]["to"]) == (20, 30)
    for point in own["points"]:
        low, high = point["macro_f1_ci"]
        assert low < point["macro_f1"] < high


def test_more_labels_would_help_where_the_last_step_surely_gained() -> None:
    section = curve([[0.2, 0.2], [0.5, 0.5], [0.9, 0.9]], per_class=100)
    assert section["more_labels"] == "would help"
    assert section["sentence"].startswith(
        "More labels would help: the step from 20 to 30 training items changed macro-F1 by +40.0 points (95% interval +"
    )


def test_more_labels_would_not_help_where_the_gain_is_surely_small() -> None:
    """Nothing changed on 400 items: the interval is 3 / 400 to both sides, and 0.02 is more than that."""
    section = curve([[0.3, 0.3], [0.9, 0.9], [0.9, 0.9]], per_class=200)
    assert section["more_labels"] == "would not help"
    assert section["curves"][0]["last_step"]["gain_ci"] == pytest.approx([-0.0075, 0.0075])
    assert section["sentence"] == (
        "More labels would not help much: the step from 20 to 30 training items changed macro-F1 by +0.0 points "
        "(95% interval -0.8 to +0.8)."
    )


def test_a_gain_worth_having_decides_what_is_small() -> None:
    """The same curve: with 0.005 wanted, 0.0075 may still come."""
    assert curve([[0.9, 0.9], [0.9, 0.9]], per_class=200, min_gain=0.005)["more_labels"] == "unclear"


def test_few_test_items_leave_it_unclear() -> None:
    section = curve([[0.8, 0.8], [0.9, 0.9]], per_class=10)
    assert section["more_labels"] == "unclear"
    assert section["sentence"].startswith("Unclear whether more labels would help: the step from 10 to 20 training")


def test_a_single_point_is_no_curve() -> None:
    section = curve([[0.9, 0.9]], per_class=10)
    assert section["curves"][0]["last_step"] is None
    assert section["more_labels"] == "unclear"
    assert section["sentence"].endswith("there are too few to train on less.")


def test_the_reading_is_about_the_fine_tuned_system() -> None:
    section = curve([[0.5, 0.5], [0.9, 0.9]], per_class=100, rival=True)  # the rival does not change
    assert section["more_labels"] == "would help"
    assert section["curves"][1]["last_step"]["gain"] == 0.0


# ---- of a whole run


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A config whose run stands beside its data, at `run`."""
    folder = tmp_path_factory.mktemp("curve")
    raw = toy_config(folder, rows=80, baselines=["majority", EMBEDDINGS], evaluation={"learning_curve": [0.3, 0.6]})
    return raw | {"output": str(folder / "run")}


@pytest.fixture(scope="module")
def report(raw: dict[str, Any]) -> dict[str, Any]:
    out = Path(raw["output"])
    runs.run(raw, out)
    return runs.report(out)


@pytest.fixture(scope="module")
def splits(raw: dict[str, Any]) -> Splits:
    return read_splits(parse_config(raw), None)


def macro(splits: Splits, said: IntArray) -> float:
    return float(f1_score(splits.targets(splits.test), said, average="macro", zero_division=0))


def test_the_last_point_is_the_run_itself(raw: dict[str, Any], report: dict[str, Any]) -> None:
    curves = report["learning_curve"]["curves"]
    assert [curve["system"] for curve in curves] == ["fine-tuned", EMBEDDINGS]
    for found in curves:
        metrics = runs.system(Path(raw["output"]), found["system"])["metrics"]
        assert len(found["points"]) == 3
        assert found["points"][-1] == {"items": report["n_train"]} | {
            key: metrics[key] for key in ("macro_f1", "macro_f1_ci")
        }


def test_the_rivals_points_are_regressions_trained_on_the_shares(
    raw: dict[str, Any], report: dict[str, Any], splits: Splits
) -> None:
    pretrained = prepare(parse_config(raw), splits.labels, None).backbone
    points = report["learning_curve"]["curves"][1]["points"]
    assert len({point["macro_f1"] for point in points}) == 3
    for part, point in zip(nested_shares(splits.train, (0.3, 0.6), 0), points, strict=False):
        baseline = trained_baseline(EMBEDDINGS, part, splits, pretrained, "fp32", 0, None)
        said = baseline.predict_probabilities(column(splits.test, "text")).argmax(axis=1)
        assert point["items"] == len(part)
        assert point["macro_f1"] == pytest.approx(macro(splits, said))


def test_the_fine_tuned_points_are_tuned_on_the_shares(
    raw: dict[str, Any], report: dict[str, Any], splits: Splits, tmp_path: Path
) -> None:
    config, accelerator = parse_config(raw), start_accelerator("fp32", (), tmp_path)
    for part, point in zip(
        nested_shares(splits.train, (0.3, 0.6), 0), report["learning_curve"]["curves"][0]["points"], strict=False
    ):
        trunk = prepare(config, splits.labels, None)
        saved = Checkpoints(tmp_path / str(len(part)))
        list(tune(trunk, splits, part, config, accelerator, "fp32", saved, lambda: False, None))
        model = finished_model(trunk)
        said = predict_logits(model, model.encode(column(splits.test, "text")), "fp32").argmax(axis=1)
        assert point["items"] == len(part)
        assert point["macro_f1"] == pytest.approx(macro(splits, said))


def test_a_point_that_is_done_is_not_trained_again(raw: dict[str, Any], splits: Splits, tmp_path: Path) -> None:
    config, accelerator = parse_config(raw), start_accelerator("fp32", (), tmp_path)
    told = []
    for _ in range(2):
        events = list(tuned_points(config, splits, None, "fp32", accelerator, tmp_path, lambda: False, None))
        told.append([type(event) for event in events])
    assert set(told[0]) == {Stage, Step}
    assert set(told[1]) == {Stage}


def test_without_shares_there_is_no_section(tmp_path: Path) -> None:
    runs.run(toy_config(tmp_path, baselines=[]), tmp_path / "run")
    assert "learning_curve" not in runs.report(tmp_path / "run")
