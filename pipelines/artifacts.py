"""The run directory: complete or absent.

A run works in `DIR.partial/` and becomes `DIR` by one rename, when its manifest is written::

    config.yaml          resolved config            report.json, report.html
    model/               plain Hugging Face model   README.md            model card
    adapter/             LoRA only                  metrics.jsonl        events, one per line
    baselines/NAME/      safetensors and JSON       tensorboard/         the same curves
    predictions.parquet  test items, every system   manifest.json        sha256 of every file, versions, digests
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from pipelines import durable
from pipelines.config import RunConfig
from pipelines.errors import RunDirectoryError
from pipelines.records import Event

CHECKPOINTS = "checkpoints"
_PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets", "scikit-learn", "numpy")


class RunDirectory:
    """The directory of one run while it is being written.

    Args:
        target: where the finished run will stand.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(target.name + ".partial")
        self._lock = FileLock(self.partial.with_name(f".{self.partial.name}.lock"))

    def open(self, config: RunConfig, resume: bool) -> None:
        """Take the directory for this process.

        Raises:
            RunDirectoryError: it is complete already, unfinished (without `resume`), in use, or of another config.
        """
        refuse_existing(self.target)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunDirectoryError(f"{self.partial}: another process is working on this run") from None
        text = config.to_yaml()
        saved = self.partial / "config.yaml"
        if saved.exists():
            if not resume:
                self.close()
                raise RunDirectoryError(
                    f"{self.partial}: an unfinished run is here; add --resume to go on with it, or delete the directory"
                )
            self._check_same(saved.read_text(encoding="utf-8"), text)
        else:
            durable.discard(self.partial)
            self.partial.mkdir()
            unsure = self.partial / ".config.yaml"
            unsure.write_text(text, encoding="utf-8")
            unsure.rename(saved)  # whole or absent: a resume compares it

    def _check_same(self, before: str, now: str) -> None:
        different = _differences(before, now) - {"output"}  # the same place may be spelled otherwise
        if different:
            self.close()
            raise RunDirectoryError(
                f"{self.partial}: the unfinished run has other settings: {', '.join(sorted(different))}; "
                "use its config, or delete the directory and start afresh"
            )

    def record(self, event: Event) -> None:
        """Append an event to metrics.jsonl."""
        with (self.partial / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(event.to_json(), ensure_ascii=False) + "\n")

    def finish(self, details: dict[str, Any]) -> None:
        """Drop the checkpoints, write the manifest, make the run visible."""
        durable.discard(self.partial / CHECKPOINTS)
        durable.publish(self.partial, self.target, details | environment())
        self.close()

    def abandon(self) -> None:
        """After a failure: keep what can be resumed, remove the rest."""
        if not any((self.partial / CHECKPOINTS).glob("step-*")):
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


def _differences(before: str, now: str) -> set[str]:
    first, second = _flat(yaml.safe_load(before)), _flat(yaml.safe_load(now))
    return {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
