"""runs.jsonl: the trainings of a sweep that have ended, a line each. A resumed sweep goes by nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from pipelines import durable
from pipelines.artifacts import CHECKPOINTS, IDENTITY, RunDirectory, environment
from pipelines.errors import RunDirectoryError

RUNS = "runs.jsonl"
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Run:
    """One training that has ended.

    Attributes:
        setting: its name.
        changes: what is varied, key -> value.
        state: complete; pruned: it was stopped as hopeless; failed: its loss was not a number, or
            memory ran out.
        scores: macro-F1 on the validation part after every epoch.
        epochs: that it would have had.
        depth: frozen hidden layers; -1 where nothing is frozen.
        seconds: from loading the model to the last score, validation and checkpoints included; of what was done before
            an interruption, the training alone.
        train_seconds: of the training alone: what is paid once for many trainings, such as hidden states that the store
            lacked, is left out. None where it did not run to its end.
        store: how hidden states were had: cold, warm or off; None where it did not run to its end.
        reason: why it failed.
    """

    setting: str
    changes: dict[str, Any]
    seed: int
    state: State
    scores: list[float]
    epochs: int
    depth: int
    learning_rate: float
    seconds: float
    train_seconds: float | None = None
    store: str | None = None
    reason: str | None = None

    @property
    def macro_f1(self) -> float | None:
        """Of its best epoch; None before the first."""
        return max(self.scores, default=None)

    def reached(self, percent: int) -> float | None:
        """The best score by when so much of the training was done; None where it had none."""
        return max((score for done, score in self.by_percent() if done <= percent), default=None)

    def by_percent(self) -> list[tuple[int, float]]:
        """How much of the training was done, 0 to 100, and the score then."""
        return [(percent_of(number, self.epochs), score) for number, score in enumerate(self.scores, start=1)]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"macro_f1": self.macro_f1}


def percent_of(epoch: int, epochs: int) -> int:
    """The share of a training that is done, so that trainings of different lengths can be compared."""
    return round(100 * epoch / epochs)


class Runs:
    """The trainings that have ended, in that order.

    Args:
        runs: that had ended before.
    """

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        self._runs = list(runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        self._runs.append(run)

    def of(self, setting: str) -> list[Run]:
        return [run for run in self._runs if run.setting == setting]

    def has(self, setting: str, seed: int) -> bool:
        return any(run.seed == seed for run in self.of(setting))

    def dropped(self, setting: str) -> bool:
        """Whether one of its trainings was pruned or failed, so that it gets no further seeds."""
        return any(run.state != "complete" for run in self.of(setting))

    @property
    def complete(self) -> list[Run]:
        return [run for run in self._runs if run.state == "complete"]

    @property
    def leader(self) -> str | None:
        """The setting with the highest mean so far, among those that are not dropped."""
        scores: dict[str, list[float]] = {}
        for run in self.complete:
            if not self.dropped(run.setting):
                scores.setdefault(run.setting, []).append(max(run.scores))
        return max(scores, key=lambda setting: mean(scores[setting]), default=None)


class SweepDirectory(RunDirectory):
    """The directory of a sweep while it is being written; `runs.jsonl` in it is never thrown away."""

    def runs(self) -> list[Run]:
        """What has ended; a last line that was cut off by a kill is dropped from the file.

        Raises:
            RunDirectoryError: another line cannot be read.
        """
        path = self.partial / RUNS
        if not path.exists():
            return []
        whole = path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if kept != whole:
            with path.open("r+b") as file:
                file.truncate(len(kept))
            durable.sync(path)
        return [_read(line, path, number) for number, line in enumerate(kept.splitlines(), start=1)]

    def keep(self, run: Run) -> None:
        """Append a training that has ended; it is on disk afterwards."""
        path = self.partial / RUNS
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run.to_json(), ensure_ascii=False, allow_nan=False) + "\n")
        durable.sync(path)
        if new:
            durable.sync(self.partial)

    def finish(self) -> None:
        """Drop the checkpoints, write the manifest, make the sweep visible.

        What identifies it stays: killed before the end and resumed without it, the sweep would start afresh.
        """
        durable.discard(self.partial / CHECKPOINTS)
        for leftover in ("cache.json", durable.MANIFEST):  # a manifest: killed before the rename
            (self.partial / leftover).unlink(missing_ok=True)
        identity = json.loads((self.partial / IDENTITY).read_text(encoding="utf-8"))
        durable.publish(self.partial, self.target, identity["from"] | environment())
        self.close()

    def abandon(self) -> None:
        """After a failure: keep what can be resumed, remove the rest."""
        if (self.partial / RUNS).exists():
            self.close()
        else:
            super().abandon()


def _read(line: bytes, path: Path, number: int) -> Run:
    try:
        values = json.loads(line)
        del values["macro_f1"]
        return Run(**values)
    except (ValueError, TypeError, KeyError):
        raise RunDirectoryError(f"{path}, line {number}: not a training of a sweep; delete the directory") from None
