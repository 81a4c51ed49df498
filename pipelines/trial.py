"""One training whose model is dropped: what it says of the validation part is what a choice is made by."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from accelerate import Accelerator
from datasets import Dataset

from pipelines.activation_store import ActivationStore
from pipelines.checkpoint import Checkpoints
from pipelines.config import RunConfig
from pipelines.device import Precision
from pipelines.loop import Progress
from pipelines.metrics import macro_f1
from pipelines.predict import predict_logits
from pipelines.records import Event, IntArray, Returning, Splits, Stage, Step, column
from pipelines.saved_run import SavedRun
from pipelines.tune import prepare, tune, with_rate


@dataclass(frozen=True)
class Trial:
    """One training. Predictions, (M,), and score are of its best epoch, on the validation part.

    Attributes:
        config: with the learning rate that was used.
    """

    config: RunConfig
    predicted: IntArray
    macro_f1: float
    progress: Progress


def tried(
    config: RunConfig,
    splits: Splits,
    items: Dataset,
    start: SavedRun | None,
    precision: Precision,
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Generator[Event, None, Trial]:
    """Train on some items. All processes must call this alike.

    Args:
        config: with a depth; a learning rate that is `auto` follows it.
        items: of the training part.
        checkpoints: what is done there is not done again.
        store: of hidden states, see `tune`.
    """
    accelerator.free_memory()  # of the model before, whose optimizer it would also ask about skipped steps
    trunk = prepare(config, splits.labels, start)
    config = with_rate(config, trunk.frozen_share)
    events = tune(trunk, splits, items, config, accelerator, precision, checkpoints, stop, store)
    progress = yield from steps_only(events)
    texts = column(splits.validation, "text")
    predicted = predict_logits(trunk.backbone, trunk.backbone.encode(texts), precision).argmax(axis=1)
    return Trial(config, predicted, macro_f1(splits.targets(splits.validation), predicted), progress)


def steps_only(events: Generator[Event, None, Progress]) -> Generator[Event, None, Progress]:
    """Pass on what shows progress; return what the training returns."""
    own = Returning(events)
    yield from (event for event in own if isinstance(event, Step | Stage))
    return own.value
