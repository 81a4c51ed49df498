"""What is asked of a classification: its options, whether they fit the input, whether a resumed run asks the same."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.artifacts import environment
from pipelines.bulk import chunks
from pipelines.bulk.drift import EMBEDDED_CHARACTERS
from pipelines.bulk.engines import SAMPLE, Backend, Precision
from pipelines.bulk.models import Models
from pipelines.bulk.predictions import Layout
from pipelines.bulk.sources import Item, Source
from pipelines.data import require_columns
from pipelines.device import numeric_backend
from pipelines.errors import ConfigError, DataError, RunDirectoryError


@dataclass(frozen=True)
class Options:
    """How to classify; `rootstock classify --help` says what each means."""

    text: str | None = None
    label: str | None = None  # of the file that calibrates a cascade
    format: str | None = None
    backend: Backend | Literal["auto"] = "auto"
    precision: Precision | Literal["auto"] = "auto"
    top_k: int | None = None
    thresholds: Sequence[str] = ()
    max_length: int | None = None
    long: Literal["truncate", "windows"] = "truncate"
    unordered: bool = False
    route: str | None = None
    cascade: float | None = None  # the loss that is allowed, in macro-F1
    calibrate: Path | None = None


def check(options: Options, models: Models) -> None:
    """Raises ConfigError for options that do not go together."""
    if options.cascade is None:
        return
    if options.cascade <= 0:
        raise ConfigError(f"--loss: expected points of macro-F1 above 0, found {100 * options.cascade:g}")
    if len(models.runs) > 1 or options.route is not None:
        raise ConfigError("--cascade: expected one model, whose own regression answers, and no --route")
    if options.long == "windows":
        raise ConfigError("--cascade: expected --long truncate, which is what the loss is certified for")


def checked_columns(source: Source, options: Options, models: Models) -> str:
    """The column with the text. Raises DataError for columns that are missing."""
    text = options.text or models.first.config.data.text
    wanted = [("--text", text)] + ([("--route", options.route)] if options.route else [])
    require_columns(source.argument, source.columns, wanted)
    return text


def output_columns(source: Source, layout: Layout) -> list[str]:
    """Columns of the input and those that are added. Raises DataError where a name would stand twice."""
    taken = [name for name in layout.columns if name in source.columns]
    if taken:
        raise DataError(
            source.argument,
            f"the column {taken[0]!r} exists already; rename it, since the output adds {', '.join(layout.columns)}",
        )
    return [*source.columns, *layout.columns]


def peeked(source: Source, text: str) -> tuple[Iterator[Item], list[str], bool]:
    """All items; the first texts, on which backends are measured; and whether there is more than one chunk."""
    items = source.items()
    seen: list[Item] = []
    sample: list[str] = []
    total, more = 0, False
    for item in items:
        more = len(seen) == chunks.ROWS or total > chunks.CHARACTERS
        total += chunks.size(item)
        seen.append(item)
        value = (item.values or {}).get(text)
        if isinstance(value, str) and value.strip() and len(sample) < SAMPLE:
            sample.append(value[:EMBEDDED_CHARACTERS])
        if more:
            break

    def everything() -> Iterator[Item]:
        yield from seen
        seen.clear()
        yield from items

    return everything(), sample, more


def chunk_rows(options: Options) -> int:
    """Rows of a chunk at most."""
    return chunks.ROWS * (chunks.FURTHER if options.unordered else 1)


def request_of(models: Models, source: Source, options: Options, text: str) -> dict[str, Any]:
    """What decides the bytes of the output besides what is measured; a resumed run must have the same."""
    return {
        "input": {"name": source.argument if not source.files else "", "files": source.digests()},
        "models": models.digests(),
        "options": {
            "text": text,
            "format": options.format,
            "backend": options.backend,
            "precision": options.precision,
            "top_k": options.top_k,
            "thresholds": list(options.thresholds),
            "max_length": options.max_length,
            "long": options.long,
            "route": options.route,
            "cascade": options.cascade,
        },
        "chunk_rows": chunk_rows(options),
        "numeric_backend": numeric_backend(),
        "versions": environment()["versions"] | {"zlib": zlib.ZLIB_RUNTIME_VERSION},
    }


def refuse_other(before: dict[str, Any], request: dict[str, Any], what: str) -> None:
    """Raises RunDirectoryError if what is there is of another call, input, machine or version."""
    request = json.loads(json.dumps(request))  # as it was written
    different = [key for key, value in request.items() if before.get(key) != value]
    if different:
        parts = [part for key in different for part in _different(key, before.get(key), request[key])]
        raise RunDirectoryError(f"{what} has another {', '.join(parts)}; restore that, or delete it and start afresh")


def _different(key: str, before: Any, now: Any) -> list[str]:
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [key]
    names = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    return [f"{key.replace('_', ' ')} ({name})" for name in sorted(names)]
