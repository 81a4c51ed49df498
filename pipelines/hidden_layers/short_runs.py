"""Short trainings at a few depths: what probes suggest is confirmed, or not, before a depth is recommended."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.intervals import Bootstrap, interval
from pipelines.records import Event, Splits, Stage, column
from pipelines.sampling import at_most
from pipelines.saved_run import SavedRun
from pipelines.trial import tried

STEPS = 60  # optimizer steps that a short run has at least, where the config itself has as many
MOST = 4_000  # training items of a short run
TIE = 0.005  # macro-F1 below which the deeper one is taken: it trains faster and shares more with other models


@dataclass(frozen=True)
class ShortRun:
    """One short training. Scores are of its best epoch, on the validation part.

    Attributes:
        depth: frozen hidden layers.
    """

    depth: int
    learning_rate: float
    epochs: int
    items: int
    macro_f1: float
    macro_f1_ci: list[float]
    train_seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def candidates(best: int, enough: int, layers: int) -> list[int]:
    """Depths worth a short run: where the probe is best, where it is good enough, between them, and a third of all.

    Args:
        best: layer with the best probe, 0 to L.
        enough: lowest layer whose probe is not clearly worse.
        layers: L. Freezing all of them leaves a regression on embeddings, which is among the baselines.
    """
    wanted = {layers // 3, enough, (enough + best) // 2, best}
    return sorted({min(depth, layers - 1) for depth in wanted})


def short_runs(
    config: RunConfig,
    splits: Splits,
    depths: Sequence[int],
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    folder: Path,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, list[ShortRun]]:
    """Train at every depth for a few epochs. All processes must call this alike.

    Args:
        config: of the run; a learning rate that is `auto` follows the depth.
        depths: of the cut.
        folder: of checkpoints; a depth that is done there is not trained again.
        store: of hidden states, see `tune`.
    """
    found = []
    items = at_most(splits.train, MOST, config.training.seed)
    for depth in depths:
        yield Stage("short run", f"training on {len(items):,} items with {depth} hidden layers frozen")
        saved = Checkpoints(folder / str(depth))
        short = _shortened(config, depth, len(items))
        trial = yield from tried(short, splits, items, start, precision, accelerator, saved, stop, store)
        targets, groups = splits.targets(splits.validation), np.array(column(splits.validation, "group"))
        bootstrap = Bootstrap(targets, groups, len(splits.labels), config.evaluation.bootstrap, config.training.seed)
        found.append(
            ShortRun(
                depth,
                float(trial.config.training.learning_rate),
                short.training.epochs,
                len(items),
                trial.macro_f1,
                interval(bootstrap.scores(trial.predicted)["macro_f1"]),
                trial.progress.seconds,
            )
        )
    return found


def deepest_of_the_best(runs: Sequence[ShortRun]) -> ShortRun:
    """The deepest whose macro-F1 is within TIE of the best."""
    most = max(run.macro_f1 for run in runs)
    return max((run for run in runs if run.macro_f1 >= most - TIE), key=lambda run: run.depth)


def _shortened(config: RunConfig, depth: int, items: int) -> RunConfig:
    steps_per_epoch = -(-items // config.training.batch_size)
    epochs = min(config.training.epochs, -(-STEPS // steps_per_epoch))
    changed = {"epochs": epochs, "patience": None, "checkpoint_steps": None, "unfreeze": "none", "imbalance": "none"}
    training = config.training.model_copy(update=changed)
    backbone = config.backbone.model_copy(update={"freeze": depth})
    return config.model_copy(update={"training": training, "backbone": backbone})
