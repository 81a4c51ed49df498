"""The run directory: complete or absent.

A run works in `DIR.partial/` and becomes `DIR` by one rename, when its manifest is written::

    config.yaml          resolved config            report.json, report.html
    model/               plain Hugging Face model   README.md            model card
    adapter/             LoRA only                  metrics.jsonl        events, one per line
    baselines/NAME/      safetensors and JSON       tensorboard/         the same curves
    predictions.parquet  test items, every system   training_items.parquet  everything that was seen
    manifest.json        sha256 of every file, versions, digests
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from filelock import FileLock, Timeout

from pipelines import durable
from pipelines.config import RunConfig
from pipelines.errors import RunDirectoryError
from pipelines.records import COMMON, Event, Splits, SystemScore

CHECKPOINTS = "checkpoints"
SEEN = "training_items.parquet"  # every item that a run was trained or validated on, with its part
DEPTH = "depth"  # name of what `freeze: auto` has chosen
IMBALANCE = "imbalance"  # and of what `imbalance: auto` has
IDENTITY = "identity.json"  # of an unfinished run
_FREE = {"output", "backbone.cache"}  # the same place may be spelled otherwise; a store may have failed
_PACKAGES = (
    "rootstock", "torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "pyarrow", "safetensors",
    "scikit-learn", "scipy", "numpy",
)  # fmt: skip


class RunDirectory:
    """The directory of one run while it is being written.

    Args:
        target: where the finished run will stand.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(target.name + ".partial")
        self._lock = FileLock(self.partial.with_name(f".{self.partial.name}.lock"))

    def open(self, config: RunConfig, provenance: dict[str, Any], resume: bool) -> None:
        """Take the directory for this process.

        Args:
            config: resolved.
            provenance: what else decides the result, digests of data and weights among it; goes into the manifest.
            resume: go on with an unfinished run of the same config and provenance.

        Raises:
            RunDirectoryError: it cannot be made, is complete already, unfinished (without `resume`), in use, or of
                another config, data or weights.
        """
        refuse_existing(self.target)
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunDirectoryError(f"{self.partial}: another process is working on this run") from None
        except OSError as error:
            raise RunDirectoryError(f"{self.target}: cannot be written: {error.strerror}") from None
        try:
            self._open_partial(config.model_dump(mode="json", exclude_none=True) | {"from": provenance}, resume)
            self.settle(config)
        except BaseException:
            self.close()
            raise

    def _open_partial(self, identity: dict[str, Any], resume: bool) -> None:
        saved = self.partial / IDENTITY
        if not saved.exists():
            durable.discard(self.partial)
            self.partial.mkdir()
            unsure = saved.with_name("." + IDENTITY)
            durable.write_json(unsure, identity)
            unsure.rename(saved)  # whole or absent: a resume compares it
            return
        if not resume:
            raise RunDirectoryError(
                f"{self.partial}: an unfinished run is here; add --resume to go on with it, or delete the directory"
            )
        before = json.loads(saved.read_text(encoding="utf-8"))
        different = _differences(before, identity) - _FREE
        if different:
            raise RunDirectoryError(
                f"{self.partial}: the unfinished run has other settings: {', '.join(sorted(different))}; "
                "restore them, or delete the directory and start afresh"
            )

    def remember(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A value that is made once in a run, and found again by a resumed one."""
        path = self.partial / f"{name}.json"
        if not path.exists():
            unsure = path.with_name("." + path.name)
            durable.write_json(unsure, make())
            durable.sync(unsure)
            unsure.rename(path)
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value

    def recall(self, name: str) -> dict[str, Any] | None:
        """What `remember` has kept under this name."""
        path = self.partial / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def settle(self, config: RunConfig) -> None:
        """Write the config anew, with what the run itself has chosen."""
        (self.partial / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")

    def record(self, event: Event) -> None:
        """Append an event to metrics.jsonl."""
        with (self.partial / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_json(), ensure_ascii=False) + "\n")

    def replace_metrics(self, history: list[dict[str, Any]]) -> None:
        """Write metrics.jsonl anew: a resumed run has appended the steps that it repeated."""
        lines = [json.dumps(event, ensure_ascii=False) + "\n" for event in history]
        (self.partial / "metrics.jsonl").write_text("".join(lines), encoding="utf-8")

    def finish(self) -> None:
        """Drop the checkpoints, write the manifest, make the run visible."""
        durable.discard(self.partial / CHECKPOINTS)
        identity = json.loads((self.partial / IDENTITY).read_text(encoding="utf-8"))
        (self.partial / IDENTITY).unlink()
        for remembered in ("cache", DEPTH, IMBALANCE):
            (self.partial / f"{remembered}.json").unlink(missing_ok=True)
        durable.publish(self.partial, self.target, identity["from"] | environment())
        self.close()

    def abandon(self) -> None:
        """After a failure: keep what can be resumed, remove the rest."""
        if not any((self.partial / CHECKPOINTS).rglob("step-*")):
            durable.discard(self.partial)
        self.close()

    def close(self) -> None:
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()


def refuse_existing(target: Path) -> None:
    """Raise RunDirectoryError if something stands at `target`."""
    if not target.exists():
        return
    if (target / durable.MANIFEST).is_file():
        raise RunDirectoryError(f"{target}: a complete run is here already; choose another --out or delete it")
    raise RunDirectoryError(f"{target}: exists and is not a run directory; choose another --out")


def environment() -> dict[str, Any]:
    """What a manifest says about the machine and the libraries."""
    return {
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES}
        | {"python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }


def size_bytes(path: Path) -> int:
    """Size of all files below a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def predictions(splits: Splits, systems: list[SystemScore]) -> Dataset:
    """Test items with every system's label and probabilities (C values in the order of the labels)."""
    values = splits.test.remove_columns("group")[:]
    for system in systems:
        values[system.name] = [splits.labels[number] for number in system.probabilities.argmax(axis=1)]
        values[f"{system.name}/probabilities"] = system.probabilities.tolist()
    return Dataset.from_dict(values)


def seen_items(splits: Splits, taught: Dataset | None = None) -> Dataset:
    """Everything that this run and those before it were trained or validated on, with its part.

    Args:
        taught: what was learned through a teacher.
    """
    earlier = splits.earlier
    parts = [] if earlier is None else [Dataset.from_dict(earlier[:] | {"origin": ["earlier"] * len(earlier)})]
    for name in ("train", "validation"):
        values = getattr(splits, name).select_columns(list(COMMON))[:]
        n = len(values["text"])
        parts.append(Dataset.from_dict(values | {"part": [name] * n, "origin": ["own"] * n}))
    if taught is not None:
        n = len(taught)
        parts.append(Dataset.from_dict(taught[:] | {"part": ["taught"] * n, "origin": ["teacher"] * n}))
    return concatenate_datasets(parts)


def _differences(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    first, second = _flat(before), _flat(now)
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
