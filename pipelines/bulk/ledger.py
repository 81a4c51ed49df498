"""What of a classification is done: chunks on disk, each complete or absent, so that a killed run goes on.

::

    OUTPUT.partial/
        plan.json               what the run is: input, models, settings, machine; written before the first chunk
        000000.rows             output of a chunk, in the output's format
        000000.errors           its error lines, if any
        000000.safetensors      probabilities of texts that it was the first to hold, for copies in later chunks
        000000.json             counts and digests: the chunk is committed once this exists
        ready.json              everything is assembled; what is left is renaming

A chunk is a function of its rows and of the plan. So the assembled output has the same bytes however often the run was
killed: at a kill, what is not committed is computed again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines import durable
from pipelines.errors import DataError, RunDirectoryError
from pipelines.weights import sha256_file

Record = dict[str, Any]
ERRORS, MANIFEST = ".errors.jsonl", ".manifest.json"  # side files of an output


class Ledger:
    """The unfinished work of one output.

    Args:
        output: the file to be made.
        resume: go on with what is committed.

    Attributes:
        plan: of the run that is gone on with; None if nothing is committed.
        committed: records of its chunks, in order.
        finished: the manifest, where everything is done; what may be left is `rename`.

    Raises:
        DataError: the output exists, or its folder cannot be written.
        RunDirectoryError: unfinished work is there and `resume` is false; or another process is at it.
    """

    def __init__(self, output: Path, resume: bool) -> None:
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self.plan: Record | None = None
        self.committed: list[Record] = []
        self._lock = FileLock(output.with_name(f".{output.name}.lock"))
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunDirectoryError(f"{self.partial}: another process is classifying into it") from None
        except OSError as error:
            raise DataError(output, f"cannot be written: {error.strerror}") from None
        try:
            self.finished = (self._visible() or self.ready) if resume else None
            if self.finished is None:
                self._open(resume)
        except BaseException:
            self.close()
            raise

    def _visible(self) -> Record | None:
        """The manifest of an output that is complete: a run may have been killed right after its last step."""
        _, output, manifest = self.files
        if self.partial.exists() or not (output.is_file() and manifest.is_file()):
            return None
        try:
            found: Record = json.loads(manifest.read_text(encoding="utf-8"))
        except ValueError:
            return None
        return found if found.get("sha256") == sha256_file(output) else None

    def _open(self, resume: bool) -> None:
        for file in self.files if self.ready is None else ():
            if file.exists():
                raise DataError(file, "exists already; choose another --out or delete it")
        done = _records(self.partial)
        if done and not resume:
            raise RunDirectoryError(
                f"{self.partial}: unfinished work is here ({len(done)} chunks); go on with --resume, or delete it"
            )
        if done:
            self.plan = json.loads((self.partial / "plan.json").read_text(encoding="utf-8"))
            self.committed = done
            known = {"plan.json"} | {
                name for number, record in enumerate(done) for name in (f"{number:06d}.json", *record["sha256"])
            }
            for leftover in self.partial.iterdir():
                if leftover.name not in known:
                    leftover.unlink()
            return
        durable.discard(self.partial)
        try:
            self.partial.mkdir(parents=True)
        except OSError as error:
            raise DataError(self.output, f"cannot be written: {error.strerror}") from None

    @property
    def files(self) -> tuple[Path, Path, Path]:
        """What the run leaves behind: errors, output, manifest."""
        return (
            self.output.with_name(self.output.name + ERRORS),
            self.output,
            self.output.with_name(self.output.name + MANIFEST),
        )

    @property
    def ready(self) -> Record | None:
        """The manifest of an output that is assembled, and only has to be made visible."""
        path = self.partial / "ready.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def begin(self, plan: Record) -> None:
        """Note what the run is."""
        self._write("plan.json", plan)

    def path(self, number: int, kind: str) -> Path:
        """Where a part of a chunk is to be written."""
        return self.partial / f"{number:06d}.{kind}"

    def commit(self, number: int, record: Record) -> None:
        """A chunk is complete: all its parts are written. Raises OSError where the disk does not take them."""
        parts = [path for kind in ("rows", "errors", "safetensors") if (path := self.path(number, kind)).exists()]
        for part in parts:
            durable.sync(part)
        digests = {part.name: sha256_file(part) for part in parts}
        self._write(f"{number:06d}.json", record | {"sha256": digests})

    def publish(self, manifest: Record) -> None:
        """Make the assembled files visible: errors first, then the output, its manifest last."""
        names = [file.name for file in self.files]
        durable.write_json(self.partial / names[2], manifest)
        for name in names:
            if (self.partial / name).exists():
                durable.sync(self.partial / name)
        self._write("ready.json", manifest)
        self.rename()

    def rename(self) -> None:
        """The last step, which may be repeated."""
        for file in self.files:
            if (self.partial / file.name).exists():
                (self.partial / file.name).rename(file)
        durable.sync(self.output.parent)
        durable.discard(self.partial)

    def abandon(self) -> None:
        """After a failure: keep what can be gone on with, remove the rest."""
        if not self.path(0, "json").is_file():
            durable.discard(self.partial)

    def close(self) -> None:
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _write(self, name: str, value: Record) -> None:
        unsure = self.partial / f".{name}-{os.getpid()}"
        durable.write_json(unsure, value)
        durable.sync(unsure)
        unsure.rename(self.partial / name)
        durable.sync(self.partial)


def _records(partial: Path) -> list[Record]:
    """Records of the chunks that are committed one after the other, their parts unchanged."""
    found: list[Record] = []
    while (path := partial / f"{len(found):06d}.json").is_file():
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        if not _unchanged(partial, record["sha256"].items()):
            break
        found.append(record)
    return found


def _unchanged(partial: Path, digests: Iterable[tuple[str, str]]) -> bool:
    return all((partial / name).is_file() and sha256_file(partial / name) == digest for name, digest in digests)
