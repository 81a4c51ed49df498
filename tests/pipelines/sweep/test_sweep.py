"""`rootstock sweep` end to end on toy data: one trunk pass, the same splits, nothing lost, the test part unseen."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from pipelines.activation_store import ActivationStore
from pipelines.backbones.text import TextBackbone
from pipelines.config import load_config, parse_config
from pipelines.data import load_splits
from pipelines.durable import verify
from pipelines.errors import ConfigError, Interrupted, RunDirectoryError, TrainingError
from pipelines.records import Event, Stage, Swept, Trained, Validation, column
from pipelines.run import finetune
from pipelines.sweep import sweep as page
from pipelines.sweep import trainings
from pipelines.sweep.plan import Plan, changed
from pipelines.sweep.sweep import sweep
from tests.runs import report
from tests.toys import toy_config

RATE, FREEZE, EPOCHS = "training.learning_rate", "backbone.freeze", "training.epochs"
RATES = f"{RATE}=0.01,1e-6"
GRID = Plan((RATES, f"{FREEZE}=1,2"), seeds=2, prune=False)
OPTUNA = Plan((f"{RATE}=1e-6..1e-2", f"{FREEZE}=1,2"), seeds=2, method="optuna", trials=3, prune=False)


def started(raw: dict[str, Any], plan: Plan, out: Path, **options: Any) -> Generator[Event, None, None]:
    return sweep(parse_config(raw), plan, out, **options)


def swept(raw: dict[str, Any], plan: Plan, out: Path, **options: Any) -> dict[str, Any]:
    """What the last event says."""
    last = list(started(raw, plan, out, **options))[-1]
    assert isinstance(last, Swept)
    return last.sweep


def trained(events: list[Event]) -> list[dict[str, Any]]:
    return [event.run for event in events if isinstance(event, Trained)]


def ended(out: Path) -> list[dict[str, Any]]:
    """The lines of runs.jsonl."""
    return [json.loads(line) for line in (out / "runs.jsonl").read_text(encoding="utf-8").splitlines()]


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    """By setting, what two sweeps share: not the order of equals, which times decide."""
    rows = {
        row["setting"]: {key: value for key, value in row.items() if key not in ("seconds", "rank", "runs")}
        | {"runs": [{k: v for k, v in run.items() if k not in ("seconds", "train_seconds")} for run in row["runs"]]}
        for row in found["settings"]
    }
    return rows | {key: found[key] for key in ("trainings", "store", "vary", "seeds")}


# ---- what comes out


def test_every_setting_has_every_seed_and_the_best_can_be_fine_tuned(tmp_path: Path) -> None:
    out = tmp_path / "out"
    training = {"seed": 5, "patience": 6, "epochs": 6, "learning_rate": 1e-6}
    raw = toy_config(tmp_path, training=training, baselines=["majority"])
    found = swept(raw, Plan((RATES,), seeds=2), out)
    assert [(row["setting"], row["rank"]) for row in found["settings"]] == [(f"{RATE}=0.01", 1), (f"{RATE}=1e-06", 2)]
    assert sorted((run["setting"], run["seed"]) for run in ended(out)) == [
        (f"{RATE}=0.01", 5), (f"{RATE}=0.01", 6), (f"{RATE}=1e-06", 5), (f"{RATE}=1e-06", 6),
    ]  # fmt: skip
    assert all(len(run["scores"]) == 6 for run in ended(out))
    assert verify(out)["kind"] == "sweep"
    assert json.loads((out / "sweep.json").read_text(encoding="utf-8")) == found
    html = (out / "sweep.html").read_text(encoding="utf-8")
    assert f"rootstock finetune {out / 'best.yaml'}" in html
    assert "<script" not in html
    best = load_config(out / "best.yaml")
    assert best == changed(parse_config(raw), {RATE: 0.01})
    list(finetune(best, tmp_path / "final"))
    assert report(tmp_path / "final")["training"]["best_step"] > 0


def test_a_training_is_that_of_finetune(tmp_path: Path) -> None:
    """Same splits, seed, depth and rate: the same scores after every epoch."""
    raw = toy_config(tmp_path, training={"learning_rate": "auto"}, baselines=["majority"])
    found = swept(raw, Plan((f"{FREEZE}=0,2",), seeds=1), tmp_path / "out")
    for row in found["settings"]:
        depth = row["changes"][FREEZE]
        own = tmp_path / f"finetune{depth}"
        list(finetune(parse_config(raw | {"backbone": raw["backbone"] | {"freeze": depth}}), own))
        history = report(own)["training"]["history"]
        assert row["runs"][0]["scores"] == [event["macro_f1"] for event in history if event["event"] == "validation"]
        assert row["learning_rate"] == load_config(own / "config.yaml").training.learning_rate


def test_without_anything_to_vary_the_seeds_are_what_is_compared(tmp_path: Path) -> None:
    found = swept(toy_config(tmp_path), Plan(seeds=3), tmp_path / "out")
    (row,) = found["settings"]
    assert len(row["runs"]) == 3
    assert row["reference"]
    assert row["deviation"] is not None


def test_one_factor_compares_with_the_config_itself(tmp_path: Path) -> None:
    plan = Plan((f"{RATE}=0.01,1e-6", f"{EPOCHS}=1"), seeds=1, method="one-factor")
    found = swept(toy_config(tmp_path), plan, tmp_path / "out")
    rows = {tuple(row["changes"].values()): row for row in found["settings"]}
    assert set(rows) == {(0.01, 2), (1e-6, 2), (0.01, 1)}
    assert [values for values, row in rows.items() if row["reference"]] == [(0.01, 2)]


def test_optuna_tries_as_many_settings_as_are_wanted(tmp_path: Path) -> None:
    events = list(started(toy_config(tmp_path), OPTUNA, tmp_path / "out"))
    assert isinstance(events[-1], Swept)
    found = events[-1].sweep
    assert 1 <= len(found["settings"]) <= 3
    assert found["trials"] == 3
    assert found["vary"][RATE] == {"low": 1e-6, "high": 1e-2, "log": True}
    assert all(len(row["runs"]) == 2 for row in found["settings"])
    pairs = [(run["setting"], run["seed"]) for run in trained(events)]
    assert len(pairs) == len(set(pairs))


def test_all_settings_have_the_first_seed_first_and_shallow_ones_come_first(tmp_path: Path) -> None:
    plan = Plan((f"{FREEZE}=2,none,1",), seeds=2, prune=False)
    events = list(started(toy_config(tmp_path), plan, tmp_path / "out"))
    order = [(run["seed"], run["depth"]) for run in trained(events)]
    assert order == [(0, -1), (0, 1), (0, 2), (1, -1), (1, 1), (1, 2)]


# ---- one trunk pass, one split, no test part


def test_the_trunk_is_run_once_for_all(tmp_path: Path) -> None:
    store = ActivationStore(tmp_path / "store", 1 << 30)
    raw = toy_config(tmp_path, backbone={"cache": "on"})
    events = list(started(raw, GRID, tmp_path / "out", store=store))
    stores = [(run["depth"], run["store"]) for run in trained(events)]
    assert stores == [(1, "cold"), (1, "warm"), (2, "cold"), (2, "warm"), *[(1, "warm")] * 2, *[(2, "warm")] * 2]
    told = [event.message for event in events if isinstance(event, Stage) and event.name == "store"]
    computed = [message for message in told if message.startswith("computing the hidden states")]
    splits = load_splits(parse_config(raw).data, 0)
    parts = [f"computing the hidden states of {len(part)} items" for part in (splits.train, splits.validation)]
    assert computed == 2 * parts  # once for each depth


def test_without_a_store_nothing_is_kept(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, backbone={"cache": "off"})
    found = swept(raw, Plan(seeds=2), tmp_path / "out", store=ActivationStore(tmp_path / "store", 1 << 30))
    assert found["store"] == {"cold": 0, "warm": 0, "off": 2}
    assert not list(tmp_path.glob("store/**/*.safetensors"))


def test_all_trainings_see_the_same_items_and_none_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = toy_config(tmp_path, training={"seed": 3})
    seen: list[tuple[int, list[str], list[str]]] = []
    encoded: set[str] = set()
    tune, encode = trainings.tune, TextBackbone.encode

    def spied(trunk: Any, splits: Any, items: Any, config: Any, *args: Any) -> Any:
        assert len(splits.test) == 0
        seen.append((config.training.seed, column(items, "text"), column(splits.validation, "text")))
        return tune(trunk, splits, items, config, *args)

    def read(self: TextBackbone, texts: Any) -> Any:
        encoded.update(texts)
        return encode(self, texts)

    monkeypatch.setattr(trainings, "tune", spied)
    monkeypatch.setattr(TextBackbone, "encode", read)
    swept(raw, Plan((RATES,), seeds=2), tmp_path / "out", store=ActivationStore(tmp_path / "store", 1 << 30))
    splits = load_splits(parse_config(raw).data, 3)
    assert [seed for seed, _, _ in seen] == [3, 3, 4, 4]
    assert all(own == column(splits.train, "text") for _, own, _ in seen)
    assert all(own == column(splits.validation, "text") for _, _, own in seen)
    assert encoded
    assert not encoded & set(column(splits.test, "text"))


# ---- before anything is trained


def test_what_cannot_be_trained_is_refused_before_anything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "tune", lambda *_: pytest.fail("something was trained"))
    raw = toy_config(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for plan, message in (
        (Plan((f"{FREEZE}=1,9",)), "backbone.freeze=9: cannot be trained: backbone.freeze: expected at most 3"),
        (Plan((f"{FREEZE}=1,all", "adapter.type=none,lora")), "freeze=all, adapter.type=lora: cannot be trained"),
        (Plan((f"{FREEZE}=1..9",), method="optuna"), "backbone.freeze=9: cannot be trained"),
        (Plan((f"{FREEZE}=1,auto",)), "expected depths to compare"),
        (Plan((f"{EPOCHS}=0",)), "--vary training.epochs: Input should be greater than 0"),
    ):
        with pytest.raises(ConfigError) as refused:
            list(started(raw, plan, tmp_path / "out"))
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match=r"backbone\.freeze auto chooses a depth by itself"):
        list(started(toy_config(tmp_path, backbone={"freeze": "auto"}), Plan((RATES,)), tmp_path / "out"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_with_freeze_auto_can_be_swept_over_depths(tmp_path: Path) -> None:
    raw = toy_config(tmp_path, backbone={"freeze": "auto"})
    found = swept(raw, Plan((f"{FREEZE}=1,2",), seeds=1), tmp_path / "out")
    assert len(found["settings"]) == 2


# ---- pruned and failed trainings


@pytest.fixture
def slow_ones_are_hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training at the low rate is, with its second seed."""

    def hopeless(runs: Any, name: str, scores: list[float], epochs: int) -> bool:
        return "1e-06" in name and bool(runs.of(name))

    monkeypatch.setattr(page, "hopeless", hopeless)


@pytest.mark.usefixtures("slow_ones_are_hopeless")
def test_a_hopeless_training_ends_early_and_its_setting_gets_no_further_seed(tmp_path: Path) -> None:
    found = swept(toy_config(tmp_path), Plan((RATES,), seeds=3), tmp_path / "out")
    good, bad = found["settings"]
    assert (good["state"], [run["seed"] for run in good["runs"]]) == ("complete", [0, 1, 2])
    assert (bad["state"], bad["rank"]) == ("pruned", None)
    assert [run["state"] for run in bad["runs"]] == ["complete", "pruned"]
    assert [len(run["scores"]) for run in bad["runs"]] == [2, 1]
    assert found["trainings"] == {"complete": 4, "pruned": 1, "failed": 0}
    assert load_config(tmp_path / "out/best.yaml").training.learning_rate == 0.01


@pytest.mark.usefixtures("slow_ones_are_hopeless")
def test_nothing_is_pruned_where_that_is_not_wanted(tmp_path: Path) -> None:
    found = swept(toy_config(tmp_path), Plan((RATES,), seeds=3, prune=False), tmp_path / "out")
    assert found["trainings"] == {"complete": 6, "pruned": 0, "failed": 0}


def failing(monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...]) -> None:
    """Trainings at these rates fail after their first epoch."""
    tune = trainings.tune

    def broken(trunk: Any, splits: Any, items: Any, config: Any, *args: Any) -> Generator[Event, None, Any]:
        if config.training.learning_rate not in rates:
            return (yield from tune(trunk, splits, items, config, *args))
        for event in tune(trunk, splits, items, config, *args):
            yield event
            if isinstance(event, Validation):
                raise TrainingError("the loss is not a number at step 5")
        return None

    monkeypatch.setattr(trainings, "tune", broken)


def test_a_training_that_fails_does_not_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, (1e-6,))
    found = swept(toy_config(tmp_path), Plan((RATES,), seeds=2), tmp_path / "out")
    good, bad = found["settings"]
    assert (good["state"], len(good["runs"])) == ("complete", 2)
    assert (bad["state"], len(bad["runs"]), bad["rank"]) == ("failed", 1, None)
    assert bad["runs"][0]["reason"] == "the loss is not a number at step 5"


def test_where_every_training_fails_the_reason_is_said_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, (0.01, 1e-6))
    with pytest.raises(TrainingError, match="no setting was trained to its end; the loss is not a number at step 5"):
        swept(toy_config(tmp_path), Plan((RATES,), seeds=2), tmp_path / "out")
    assert len(ended(tmp_path / "out.partial")) == 2


# ---- stopped, killed, resumed


def stopped_after(raw: dict[str, Any], plan: Plan, out: Path, count: int) -> list[dict[str, Any]]:
    """Stop in the middle of the training after the `count`-th; what had ended."""
    seen: list[Event] = []
    events = started(raw, plan, out, stop=lambda: len(trained(seen)) == count)
    with pytest.raises(Interrupted, match="a checkpoint was kept"):
        seen.extend(events)
    return trained(seen)


Undisturbed = Callable[[Plan], tuple[dict[str, Any], list[Event]]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Config and events of a sweep that nothing has disturbed; each plan once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    raw = toy_config(folder)
    events: dict[str, list[Event]] = {}

    def of(plan: Plan) -> tuple[dict[str, Any], list[Event]]:
        if plan.method not in events:
            events[plan.method] = list(started(raw, plan, folder / plan.method))
        return raw, events[plan.method]

    return of


@pytest.mark.parametrize("plan", [GRID, OPTUNA], ids=["grid", "optuna"])
@pytest.mark.parametrize("count", [0, 3])
def test_stopped_and_resumed_no_training_is_lost_or_repeated(
    plan: Plan, count: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    raw, whole = undisturbed(plan)
    assert isinstance(whole[-1], Swept)
    out = tmp_path / "parts"
    before = stopped_after(raw, plan, out, count)
    assert len(before) == count
    assert not count or ended(tmp_path / "parts.partial") == before
    assert list((tmp_path / "parts.partial/checkpoints").glob("*/step-*"))
    after = list(started(raw, plan, out, resume=True))
    assert isinstance(after[-1], Swept)
    pairs = [(run["setting"], run["seed"]) for run in [*before, *trained(after)]]
    assert pairs == [(run["setting"], run["seed"]) for run in trained(whole)]
    assert ended(out)[:count] == before
    assert without_times(after[-1].sweep) == without_times(whole[-1].sweep)
    assert not (out / "checkpoints").exists()


def test_a_caller_that_stops_asking_loses_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """As a kill between two trainings, with a torn last line."""
    raw, whole = undisturbed(GRID)
    assert isinstance(whole[-1], Swept)
    out = tmp_path / "out"
    events = started(raw, GRID, out)
    before = [next(event for event in events if isinstance(event, Trained)).run for _ in range(3)]
    events.close()
    with (tmp_path / "out.partial/runs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"setting": "training.lea')
    after = list(started(raw, GRID, out, resume=True))
    assert isinstance(after[-1], Swept)
    assert len(trained(after)) == 8 - 3
    assert ended(out)[:3] == before
    assert without_times(after[-1].sweep) == without_times(whole[-1].sweep)


@pytest.mark.usefixtures("slow_ones_are_hopeless")
@pytest.mark.parametrize("count", [2, 4])
def test_what_was_pruned_stays_pruned(count: int, tmp_path: Path) -> None:
    raw, plan = toy_config(tmp_path), Plan((RATES, f"{FREEZE}=1,2"), seeds=3)
    whole = swept(raw, plan, tmp_path / "whole")
    before = stopped_after(raw, plan, tmp_path / "out", count)
    after = list(started(raw, plan, tmp_path / "out", resume=True))
    assert isinstance(after[-1], Swept)
    assert without_times(after[-1].sweep) == without_times(whole)
    assert len(before) + len(trained(after)) == len(ended(tmp_path / "out"))


def test_a_resumed_training_is_judged_by_all_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that a checkpoint has count among the scores that pruning looks at."""
    raw, plan = toy_config(tmp_path, training={"epochs": 3}), Plan(seeds=1)
    judged: list[list[float]] = []

    def never(runs: Any, name: str, scores: list[float], epochs: int) -> bool:
        judged.append(list(scores))
        return False

    monkeypatch.setattr(page, "hopeless", never)
    events = started(raw, plan, tmp_path / "out", stop=lambda: len(judged) == 2)
    with pytest.raises(Interrupted):
        list(events)
    found = swept(raw, plan, tmp_path / "out", resume=True)
    assert [len(scores) for scores in judged] == [1, 2, 3]
    assert found["settings"][0]["runs"][0]["scores"] == judged[-1]
    assert judged[-1][:2] == judged[1]


@pytest.mark.parametrize(
    ("sections", "plan", "what"),
    [
        ({}, Plan((RATES,), seeds=2, prune=False), r"from\.vary"),
        ({}, Plan(GRID.vary, seeds=3, prune=False), r"from\.seeds"),
        ({"training": {"batch_size": 4}}, GRID, r"training\.batch_size"),
    ],
)
def test_another_sweep_is_not_resumed(sections: dict[str, Any], plan: Plan, what: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped_after(toy_config(tmp_path), GRID, out, 1)
    with pytest.raises(RunDirectoryError, match=f"the unfinished run has other settings: {what}; restore them"):
        list(started(toy_config(tmp_path, **sections), plan, out, resume=True))
    with pytest.raises(RunDirectoryError, match="an unfinished run is here; add --resume"):
        list(started(toy_config(tmp_path), GRID, out))
    assert len(ended(tmp_path / "out.partial")) == 1


def test_what_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RunDirectoryError, match="exists"):
        list(started(toy_config(tmp_path), GRID, tmp_path / "out"))
