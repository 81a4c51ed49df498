"""Batch classification on one page: models, input -> chunks -> probabilities -> committed rows -> one output file.

Reading and tokenizing run ahead in one thread, writing follows in another. Every chunk is committed on its own (see
`bulk.ledger`), so that a run which was killed goes on and ends with the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipy.special import softmax

from pipelines.activation_store import ActivationStore
from pipelines.bulk import engines as runtimes
from pipelines.bulk.cascade import Cascade, calibration_items, load_quick, quick_baseline
from pipelines.bulk.certificate import Certificate, certify, require_enough
from pipelines.bulk.chunks import Reader
from pipelines.bulk.drift import drift
from pipelines.bulk.engines import Choice, Engine
from pipelines.bulk.job import Job
from pipelines.bulk.ledger import Ledger
from pipelines.bulk.models import Models
from pipelines.bulk.outputs import Output, output_format
from pipelines.bulk.predictions import Layout
from pipelines.bulk.request import (
    Options,
    check,
    checked_columns,
    chunk_rows,
    output_columns,
    peeked,
    refuse_other,
    request_of,
)
from pipelines.bulk.sources import open_source
from pipelines.device import resolve_precision
from pipelines.errors import DataError
from pipelines.records import Classified, Event, Stage
from pipelines.saved_run import SavedRun


def classify(
    model_dirs: Sequence[Path],
    source: str,
    output: Path,
    options: Options = Options(),  # noqa: B008  # frozen
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    store: ActivationStore | None = None,
) -> Iterator[Event]:
    """Classify every row of an input with one model or many. Input order and columns are kept.

    A row that cannot be read, or that the output cannot hold, gets a line in `OUTPUT.errors.jsonl`; one without text
    gets that and null predictions.

    Args:
        model_dirs: complete run directories.
        source: CSV, TSV, JSONL (each also .gz), Parquet, a folder of them, a glob, or `-` for standard input.
        output: a new file; its name says the format.
        options: see there.
        resume: go on with what a run of the same call has committed.
        stop: asked after every chunk; True ends the run, what is committed is kept.
        store: keeps the hidden states of frozen layers for runs to come, where one is given.

    Yields:
        Events, the last of which is Classified.

    Raises:
        RunDirectoryError: a model is incomplete or changed; unfinished work is there, or is of another call.
        DataError: the input cannot be read, or the output cannot be written.
        ConfigError: options that do not fit the models.
        Interrupted: after `stop`.
    """
    output_format(output)
    ledger = Ledger(output, resume)
    try:
        try:
            yield from _classify(Models(model_dirs, options.max_length), source, options, ledger, stop, store)
        except BaseException:
            ledger.abandon()
            raise
    finally:
        ledger.close()


def _classify(
    models: Models,
    argument: str,
    options: Options,
    ledger: Ledger,
    stop: Callable[[], bool],
    store: ActivationStore | None,
) -> Iterator[Event]:
    """The part that owns the ledger."""
    check(options, models)
    source = open_source(argument, options.format)
    text = checked_columns(source, options, models)
    layout = Layout(
        models.labels,
        options.top_k,
        models.thresholds(options.thresholds),
        routed=options.route is not None,
        staged=options.cascade is not None,
    )
    output = Output(ledger.output, output_columns(source, layout), source.schema)
    items, sample, more = peeked(source, text)
    plan = request_of(models, source, options, text)
    if ledger.finished is not None:
        refuse_other(ledger.finished, plan, f"{ledger.output}: the finished output")
        ledger.rename()
        yield Classified(ledger.output, ledger.finished)
        return
    if ledger.plan is None:
        choice, tried = _chosen(models, options, sample, more)
        if tried:
            yield Stage("backend", "; ".join(map(_trial, tried)))
    else:
        refuse_other(ledger.plan, plan, f"{ledger.partial}: the unfinished run")
        choice = Choice(**ledger.plan["choice"])
        yield Stage("resume", f"{len(ledger.committed):,} chunks are there already")
    engines = runtimes.open_engines(models.load, choice, sample, store, models.frozen_depth if store else 0)
    yield Stage("backend", f"using {choice.name}")
    cascade = _cascade(models, options, engines, ledger.plan)
    if cascade is not None:
        yield Stage("cascade", cascade.certificate.sentence)
    plan |= {"choice": choice.to_json(), "engines": [engine.settings for engine in engines]}
    plan |= {"certificate": cascade and cascade.certificate.to_json()}
    if ledger.plan is None:
        ledger.begin(plan)
    else:
        refuse_other(ledger.plan, {"engines": plan["engines"]}, f"{ledger.partial}: the unfinished run")

    windows = options.long == "windows"
    columns = None if output.format == "jsonl" else output.columns
    rows, added = chunk_rows(options), layout.columns
    reader = Reader(text, options.route, list(models.runs), engines, cascade, windows, rows, columns, added)
    job = Job(ledger, engines, layout, output, source, text)
    del sample
    with _disk_trouble(ledger):
        yield from job.run(reader.chunks(items, len(ledger.committed)), stop)
    yield Stage("drift", "comparing with the training data")
    changes = {name: _drift(models.runs[name], job, name, cascade is None) for name in models.runs}
    with _disk_trouble(ledger):
        summary = job.summary(plan, changes) | {"sha256": job.assemble()}
        ledger.publish(summary)
    yield Classified(ledger.output, summary)


@contextmanager
def _disk_trouble(ledger: Ledger) -> Iterator[None]:
    """A full or vanished disk is one line; what is committed stays."""
    try:
        yield
    except OSError as error:
        kept = "; what is committed is kept: make room and go on with --resume" if ledger.partial.exists() else ""
        raise DataError(ledger.output, f"cannot be written: {error.strerror or error}{kept}") from None


def _drift(run: SavedRun, job: Job, name: str, own_confidence: bool) -> dict[str, Any]:
    """What changed; it is advice, so no failure of it stands in the way of the output."""
    try:
        return drift(run, job.tallies[name], job.samples[name].texts, resolve_precision("auto"), own_confidence)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a tokenizer raises pyo3's PanicException, which is no Exception
        return {"sentence": "Drift could not be measured.", "reason": str(error)}


# ---- before the first chunk


def _chosen(models: Models, options: Options, sample: list[str], more: bool) -> tuple[Choice, list[Choice]]:
    """What the run computes with, and what was measured."""
    wanted = runtimes.candidates(options.backend, options.precision, len(models.runs), more)
    return runtimes.choose(models.load, sample, wanted, options.precision == "auto")


def _trial(trial: Choice) -> str:
    return f"{trial.name}: {trial.texts_per_second:,.0f} texts/s, {trial.agreement:.1%} of labels as in fp32"


def _cascade(models: Models, options: Options, engines: list[Engine], plan: dict[str, Any] | None) -> Cascade | None:
    """The certified regression, if one is wanted."""
    if options.cascade is None:
        return None
    run = models.first
    if plan is not None:
        certificate = Certificate(**plan["certificate"])
        return Cascade(certificate, load_quick(run, certificate.baseline))
    name = quick_baseline(run)
    texts, targets, groups = calibration_items(run, options.calibrate, options.text, options.label)
    require_enough(len(texts))
    baseline, engine = load_quick(run, name), engines[0]
    logits = engine.logits(engine.backbone.encode(texts))[engine.names[0]]
    said = baseline.predict_probabilities(texts)
    return Cascade(certify(said, softmax(logits, axis=1), targets, groups, options.cascade, name), baseline)
