"""What passes between stages: splits, scores, and the events of a run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


CLIENT = "-client"  # suffix of a system trained on the items of a `start_from` run and on the new ones
COMMON = ("text", "label", "id", "group", "line")  # columns that the items of any two runs share


def column(items: Dataset, name: str) -> list[Any]:
    """One column as a plain list (indexing a Dataset gives a lazy one, a thousand times slower to walk)."""
    values: list[Any] = items.select_columns(name)[:][name]
    return values


@dataclass(frozen=True)
class Splits:
    """Items in three parts that share no duplicate and no group.

    Each part has the columns `text`, `label` (the user's word), `id`, `group` (group number), `line` and one
    column per slice. `counts` says what was read, grouped and dropped, for the report. `earlier` holds the items that
    the run of `start_from` has seen, with its `part` (train or validation) and without slices; no validation or test
    item is a duplicate of them.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    labels: tuple[str, ...]
    counts: dict[str, int]
    earlier: Dataset | None = None

    def targets(self, part: Dataset) -> IntArray:
        """Class numbers of a part, (N,)."""
        index = {label: number for number, label in enumerate(self.labels)}
        return np.array([index[label] for label in column(part, "label")], dtype=np.int64)


@dataclass(frozen=True)
class SystemScore:
    """One system on the test part.

    Attributes:
        name: such as `fine-tuned` or `logistic-regression-tfidf`.
        probabilities: (N, C), rows sum to 1, on the test part.
        validation_macro_f1: what choices are made on.
        trained_on: labelled items that it learned from.
        costs: of training and use.
        validation_probabilities: (M, C), on the validation part; None where that part is another run's.
        details: what was chosen, such as regularisation, for the report.
    """

    name: str
    probabilities: FloatArray
    validation_macro_f1: float
    trained_on: int
    costs: Costs
    validation_probabilities: FloatArray | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Costs:
    """What a system costs.

    Attributes:
        train_seconds: see the report contract; 0.0 where nothing is trained.
        items_per_second: from text to probabilities, on the test part.
        size_bytes: on disk.
        peak_memory_bytes: largest resident memory of the process while it was trained, libraries included.
        store: of activations while training: off, cold or warm.
    """

    train_seconds: float
    items_per_second: float
    size_bytes: int
    peak_memory_bytes: int
    store: str = "off"


@dataclass(frozen=True)
class Event:
    """Something that happened in a run. Callers print it, store it or list it."""

    def to_json(self) -> dict[str, Any]:
        values = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        return {"event": type(self).__name__.lower(), **values}


T = TypeVar("T")


class Returning(Generic[T]):
    """The events of a generator, one by one; `value` is what it has returned when there are no more."""

    value: T

    def __init__(self, events: Generator[Event, None, T]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[Event]:
        self.value = yield from self._events


def finished(events: Generator[Event, None, T]) -> T:
    """Run to the end without looking at the events."""
    own = Returning(events)
    for _ in own:
        pass
    return own.value


@dataclass(frozen=True)
class Stage(Event):
    """A stage begins; `message` is for people."""

    name: str
    message: str


@dataclass(frozen=True)
class Step(Event):
    """One optimizer step. `loss` is the class-weighted mean over the global batch; times in seconds."""

    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float
    items_per_second: float
    remaining_s: float


@dataclass(frozen=True)
class Validation(Event):
    """The validation part was scored; `best` says whether this is the best macro-F1 so far."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    macro_f1: float
    best: bool


@dataclass(frozen=True)
class Checkpoint(Event):
    """A checkpoint is complete on disk."""

    step: int


@dataclass(frozen=True)
class Scored(Event):
    """A system was scored on the test part."""

    name: str
    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class Rows(Event):
    """Rows of a classification are on disk. `share` of the input is read, 0 to 1, where its size is known."""

    rows: int
    errors: int
    rows_per_second: float
    share: float | None
    remaining_s: float | None


@dataclass(frozen=True)
class Classified(Event):
    """A classification is complete: its output, and what its manifest says."""

    path: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Checked(Event):
    """Data was checked: items of every part, findings as JSON, and the directory of the page, if one was wanted."""

    path: Path | None
    items: dict[str, int]
    checks: list[dict[str, Any]]


@dataclass(frozen=True)
class Embedded(Event):
    """Embeddings are complete on disk: rows, width D, hidden layers below them."""

    path: Path
    rows: int
    width: int
    layer: int


@dataclass(frozen=True)
class Probed(Event):
    """Hidden layers were probed: the advice as JSON, and the directory of the page, if one was wanted."""

    path: Path | None
    probe: dict[str, Any]


@dataclass(frozen=True)
class Trained(Event):
    """A training of a sweep has ended, the `number`-th of at most `total`; `run` is as in runs.jsonl."""

    number: int
    total: int
    run: dict[str, Any]


@dataclass(frozen=True)
class Swept(Event):
    """A sweep is complete: its directory, and what its sweep.json says."""

    path: Path
    sweep: dict[str, Any]


@dataclass(frozen=True)
class Explanation(Event):
    """One prediction was explained, the `number`-th of `total`; `item` is as in explain.json."""

    number: int
    total: int
    item: dict[str, Any]


@dataclass(frozen=True)
class Explained(Event):
    """All of them: the directory of the page, if one was wanted, and what holds for all."""

    path: Path | None
    summary: dict[str, Any]


@dataclass(frozen=True)
class Estimated(Event):
    """What a run would take, as JSON: see `estimate`. `changes` are config keys with other values, `KEY=VALUE`."""

    changes: tuple[str, ...]
    figures: dict[str, Any]


@dataclass(frozen=True)
class Finished(Event):
    """The run directory is complete."""

    path: Path
    sentence: str
