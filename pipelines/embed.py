"""`rootstock embed` on one page: texts -> hidden states after any layer, in a Parquet file."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.backbones import Backbone, load_saved_model, load_text_backbone
from pipelines.bulk.outputs import Output, output_format
from pipelines.bulk.sources import Item, Source, open_source
from pipelines.config import BackboneConfig
from pipelines.data import require_columns
from pipelines.device import best_precision
from pipelines.durable import MANIFEST, staged, sync
from pipelines.errors import ConfigError, DataError, Interrupted
from pipelines.predict import embed as embed_whole
from pipelines.predict import embed_at
from pipelines.records import Embedded, Event, Rows, Stage
from pipelines.saved_run import SavedRun

COLUMN = "embedding"
ROWS = 1_000  # that are in memory at once
MAX_LENGTH = 256  # tokens, where nothing else says one


def embed(
    model: str,
    source: str,
    out: Path,
    layer: int | None = None,
    text: str | None = None,
    max_length: int | None = None,
    format: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Write the columns of the first row and an embedding of each text: the masked mean of a layer's states, fp32.

    Args:
        model: run directory, or a backbone by embedded name, local directory or hub name.
        source: as for `classify`.
        out: new Parquet file.
        layer: hidden layers below, 0 (the embeddings) to L; None: all, and the final norm that some models have.
        text: column; default: as in training, or `text`.
        max_length: tokens; longer texts are cut.
        format: of the input, where its name does not say it, as of standard input.
        stop: asked after every ROWS rows.

    Yields:
        Events, the last of which is Embedded.

    Raises:
        ConfigError, DataError, BackboneError, RunDirectoryError: see `errors`.
        Interrupted: after `stop`; nothing is kept.
    """
    if out.exists():
        raise ConfigError(f"{out}: exists already; name another file for --out")
    if output_format(out) != "parquet":
        raise ConfigError(f"--out {out}: expected a name that ends in .parquet")
    yield Stage("backbone", f"loading {model}")
    backbone, trained_on = _load(model, max_length)
    if layer is not None and layer > backbone.depth:
        raise ConfigError(f"--layer: expected 0 to {backbone.depth}, the hidden layers of {model}, found {layer}")
    rows = open_source(source, format)
    column = text or trained_on
    require_columns(source, rows.columns, [("--text", column)])
    if COLUMN in rows.columns:
        raise DataError(source, f"the column {COLUMN!r} exists already; rename it, since the output adds it")
    output = Output(out, [*rows.columns, COLUMN], _schema(rows))
    with staged(out) as work:
        done = yield from _write(output, rows, column, backbone, layer, work, stop)
        whole = work / "whole"
        output.assemble(sorted(work.glob("part-*")), whole)
        sync(whole)
        whole.rename(out)
    yield Embedded(out, done, int(backbone.model.config.hidden_size), backbone.depth if layer is None else layer)


def _write(
    output: Output,
    rows: Source,
    column: str,
    backbone: Backbone,
    layer: int | None,
    work: Path,
    stop: Callable[[], bool],
) -> Any:
    """Write a part for every ROWS rows; returns how many rows there were."""
    precision, done, started = best_precision(), 0, time.perf_counter()
    yield Stage("embed", f"{rows.argument}, in {precision}")
    items, left_out = rows.items(), set[str]()
    while chunk := list(itertools.islice(items, ROWS)):
        encodings = backbone.encode([_text(item, column, rows.unit) for item in chunk])
        if layer is None:
            states = embed_whole(backbone, encodings, precision)
        else:
            states = embed_at(backbone, encodings, layer, precision)
        kept = [{name: (item.values or {}).get(name) for name in rows.columns} for item in chunk]
        left_out |= {name for item in chunk for name in item.values or {}} - set(rows.columns)
        found = [values | {COLUMN: state} for values, state in zip(kept, states.astype("float32"), strict=True)]
        output.write_chunk(work / f"part-{done:012d}", found, done == 0)
        done += len(chunk)
        yield Rows(done, 0, done / (time.perf_counter() - started), None, None)
        if stop():
            raise Interrupted(f"stopped after {done:,} rows; nothing was kept")
    if not done:
        raise DataError(rows.argument, "holds no row; expected at least one text")
    if left_out:
        yield Stage("columns", f"keys that the first row lacks are left out: {', '.join(sorted(left_out)[:20])}")
    return done


def _load(model: str, max_length: int | None) -> tuple[Backbone, str]:
    """The backbone, and the column that it was trained on."""
    if (Path(model) / MANIFEST).is_file():
        run = SavedRun(Path(model))
        backbone, column = load_saved_model(run.path / "model"), run.config.data.text
    else:
        backbone = load_text_backbone(BackboneConfig(name=model), ("0", "1"), max_length or MAX_LENGTH, seed=0)
        column = "text"
    if max_length is not None:
        backbone.limit(max_length)
    return backbone, column


def _text(item: Item, column: str, unit: str) -> str:
    """Raises DataError for a row that cannot be read, or has no text."""
    value = (item.values or {}).get(column)
    if item.values is None or not isinstance(value, str) or not value.strip():
        found = type(value).__name__ if value and not isinstance(value, str) else "nothing"
        why = item.problem or f"expected text in column {column!r}, found {found}"
        raise DataError(item.path, f"{why}; fill it or remove the row", item.line, unit=unit)
    return value


def _schema(rows: Source) -> pa.Schema:
    """Types that are known before the first row."""
    own = pa.field(COLUMN, pa.list_(pa.float32()))
    return pa.schema([*(rows.schema or []), own])
