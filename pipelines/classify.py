"""Batch classification: a run directory and a table in, the same table with labels and scores out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import durable
from pipelines.artifacts import environment
from pipelines.backbones import Backbone
from pipelines.backbones.text import load_saved_model
from pipelines.config import load_config
from pipelines.data import require_columns
from pipelines.device import Precision, resolve_precision
from pipelines.errors import DataError, RunDirectoryError
from pipelines.predict import predict_probabilities
from pipelines.records import FloatArray
from pipelines.tables import Row, read_table, table_format, write_table
from pipelines.weights import sha256_file

ADDED = ("predicted_label", "predicted_score", "predicted_scores")
CHUNK = 4096  # rows sorted by length together


@dataclass(frozen=True)
class Classified:
    """What a classification wrote."""

    rows: int
    errors: int
    output: Path


def classify(
    model_dir: Path, source: Path, output: Path, precision: str = "auto", text: str | None = None
) -> Classified:
    """Classify every row of a table. Input order and columns are kept.

    A row without text gets null predictions and a line in `OUTPUT.errors.jsonl`. The work is done in `OUTPUT.partial/`.

    Args:
        model_dir: a complete run directory.
        source: CSV, TSV, JSONL or Parquet (text formats also .gz), or a folder saved by datasets.
        output: a new file; its name says the format.
        precision: auto, fp32, bf16 or fp16.
        text: column; default the one that the model was trained on.

    Raises:
        RunDirectoryError: the run directory is incomplete or changed.
        DataError: the input cannot be read, or the output exists.
    """
    manifest = durable.verify(model_dir)
    if manifest.get("kind") != "run":
        raise RunDirectoryError(f"{model_dir}: not a run directory of rootstock finetune")
    chosen = resolve_precision(precision)  # type: ignore[arg-type]
    format = table_format(output)
    side_files = [output.with_name(output.name + suffix) for suffix in (".errors.jsonl", ".manifest.json")]
    for file in (output, *side_files):
        if file.exists():
            raise DataError(file, "exists already; choose another --out or delete it")
    table = read_table(source)
    column = text or load_config(model_dir / "config.yaml").data.text
    require_columns(table, [("--text", column)])
    taken = [name for name in ADDED if name in table.columns]
    if taken:
        raise DataError(
            source, f"the column {taken[0]!r} exists already; rename it, since the output adds {', '.join(ADDED)}"
        )
    backbone = load_saved_model(model_dir / "model")

    partial = output.with_name(output.name + ".partial")
    durable.discard(partial)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(output, f"cannot be written: {error.strerror}") from None
    try:
        problems: list[dict[str, Any]] = []
        rows = _classified(table.rows, column, backbone, chosen, problems)
        work = partial / output.name
        count = write_table(work, format, [*table.columns, *ADDED], rows)
        errors = write_table(partial / side_files[0].name, "jsonl", ["line", "reason"], problems)
        _publish(partial, output, side_files, problems, _manifest(model_dir, manifest, work, count, errors, chosen))
    finally:
        durable.discard(partial)
    return Classified(count, errors, output)


def _classified(
    rows: Iterator[Row], column: str, backbone: Backbone, precision: Precision, problems: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Rows with predictions; those that cannot be classified are added to `problems`."""
    for chunk in _chunks(rows):
        good = [row for row in chunk if _is_text(row.values.get(column))]
        probabilities = _probabilities(backbone, [row.values[column] for row in good], precision)
        scores = dict(zip((row.line for row in good), probabilities, strict=True))
        for row in chunk:
            if row.line in scores:
                yield row.values | _prediction(backbone.labels, scores[row.line])
            else:
                problems.append({"line": row.line, "reason": f"expected text in column {column!r}, found none"})
                yield row.values | dict.fromkeys(ADDED)


def _probabilities(backbone: Backbone, texts: list[str], precision: Precision) -> FloatArray | list[Any]:
    return predict_probabilities(backbone, backbone.encode(texts), precision) if texts else []


def _prediction(labels: tuple[str, ...], probabilities: FloatArray) -> dict[str, Any]:
    best = int(probabilities.argmax())
    scores = {label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)}
    return dict(zip(ADDED, (labels[best], scores[labels[best]], scores), strict=True))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _manifest(
    model_dir: Path, model: dict[str, Any], work: Path, rows: int, errors: int, precision: Precision
) -> dict[str, Any]:
    return {
        "kind": "classification",
        "rows": rows,
        "errors": errors,
        "sha256": sha256_file(work),
        "model": model_dir.name,
        "model_sha256": model["sha256"]["model/model.safetensors"],
        "precision": precision,
        "labels": model["labels"],
    } | environment()


def _publish(
    partial: Path, output: Path, side_files: list[Path], problems: list[dict[str, Any]], manifest: dict[str, Any]
) -> None:
    """Rename the finished files into place, the output last but for its manifest."""
    names = [output.name] if not problems else [side_files[0].name, output.name]
    durable.write_json(partial / side_files[1].name, manifest)
    for name in [*names, side_files[1].name]:
        durable.sync(partial / name)
        (partial / name).rename(output.with_name(name))
    durable.sync(output.parent)
