"""The rungs of the ladder below the new model: regressions, and after `start_from` what the earlier run had."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from datasets import Dataset

from pipelines.activation_store import ActivationStore
from pipelines.backbones import Backbone
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.evaluate import FINE_TUNED
from pipelines.records import CLIENT, Splits, SystemScore
from pipelines.saved_run import SavedRun
from pipelines.score import all_trained_on, fit_baseline, keep_baseline, predictor, score_saved


def lower_rungs(
    config: RunConfig,
    splits: Splits,
    start: SavedRun | None,
    pretrained: Backbone,
    precision: Precision,
    folder: Path,
    store: ActivationStore | None,
) -> dict[str, Callable[[], SystemScore]]:
    """What the ladder holds below the new model, lowest first: name -> how to score it.

    After `start_from`: the earlier run's regressions and its model as they are, then every regression again, trained
    on the items of both runs.

    Args:
        start: the run of `start_from`.
        pretrained: embeds for one of the regressions.
        folder: where the regressions are saved.
    """
    seed, items = config.training.seed, all_trained_on(splits)

    def fitted(kind: str, suffix: str, items: Dataset) -> Callable[[], SystemScore]:
        name = kind + suffix
        return partial(fit_baseline, name, kind, items, splits, pretrained, precision, seed, folder / name, store)

    if start is None:
        return {kind: fitted(kind, "", splits.train) for kind in config.baselines}
    regressions = [kind for kind in config.baselines if kind != "majority"]
    suffix = CLIENT if start.main.endswith(CLIENT) else ""  # the newest of a run that was itself continued
    rungs: dict[str, Callable[[], SystemScore]] = {}
    if "majority" in config.baselines:
        rungs["majority"] = fitted("majority", "", splits.train)
    for kind in (kind for kind in regressions if kind + suffix in start.baselines):
        rungs[kind] = partial(keep_baseline, start, kind + suffix, kind, splits, pretrained, precision, folder / kind)
    rungs[FINE_TUNED] = lambda: score_saved(start, start.main, FINE_TUNED, predictor(start.model(), precision), splits)
    return rungs | {kind + CLIENT: fitted(kind, CLIENT, items) for kind in regressions}
