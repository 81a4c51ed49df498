"""The `rootstock` command. Exit codes: 0 done, 1 failed, 2 misuse. No traceback reaches a user."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from pipelines.errors import ConfigError, Interrupted, RootstockError
from service import admin
from service.client import commands
from service.death import die_with_parent
from service.priority import give_way

# Imports that take seconds (torch, transformers, the service) are inside the commands, so that --help is quick.

app = typer.Typer(
    name="rootstock",
    help="Fine-tune text classifiers on frozen lower layers, and prove them against logistic regression.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _group in ("files", "jobs", "batches", "models"):
    app.add_typer(getattr(commands, _group), name=_group)
app.add_typer(admin.keys, name="keys")
app.add_typer(admin.audit, name="audit")
app.command()(admin.backup)
app.command()(admin.restore)
app.command()(commands.login)
INTERRUPTED = 130  # Typer's exit code for Ctrl-C
ROOM = "Free some memory, or take a smaller backbone, a lower data.max_length or training.precision: bf16."
stderr = Console(stderr=True, highlight=False, emoji=False)


@app.command()
def finetune(
    config: Annotated[Path, typer.Argument(help="YAML file; configs/ holds examples")],
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a config key")] = None,
    out: Annotated[Path | None, typer.Option(help="run directory; default: output in the config")] = None,
    resume: Annotated[bool, typer.Option(help="go on from the last checkpoint of an unfinished run")] = False,
    processes: Annotated[str | None, typer.Option(metavar="N|auto", help="default auto: one for every GPU")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Fine-tune, compare with the baselines and write a run directory."""
    from pipelines.config import load_config
    from service import launch

    overrides = [*(set or []), *([f"training.processes={processes}"] if processes else [])]
    loaded = load_config(config, overrides)
    wanted = loaded.training.processes
    if not launch.is_worker() and (count := launch.resolve_count(wanted)) > 1:
        launch.check_first(loaded, out or loaded.output)
        launch.start(count, sys.argv[1:])
        return
    with _loading():
        from pipelines.run import finetune as run
        from service.settings import default_store

    target = out or loaded.output
    again = "go on with the same command and --resume"
    _follow(lambda stop: run(loaded, target, resume=resume, stop=stop, store=default_store()), json_lines, again)


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="labelled file (CSV, TSV, JSONL, Parquet), or a YAML config")],
    validation: Annotated[Path | None, typer.Option(help="further file, to look for leaks")] = None,
    test: Annotated[Path | None, typer.Option(help="further file, to look for leaks")] = None,
    text: Annotated[str | None, typer.Option(help="column with the text; default: text")] = None,
    label: Annotated[str | None, typer.Option(help="column with the label; default: label")] = None,
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="a config key")] = None,
    out: Annotated[Path | None, typer.Option(help="new directory for check.html and check.json")] = None,
    clean: Annotated[
        Path | None,
        typer.Option(help="new file: the training part without repeats, leaks"),
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Look for duplicates, leaks, contradictions, label errors, cut texts, mixed languages, personal data."""
    from pipelines.config import data_config

    columns = {"text": text, "label": label}
    loaded = data_config(data, {"validation": validation, "test": test}, columns, set or [])
    with _loading():
        from pipelines.check import check as run
        from service.settings import default_store

    again = "the same command starts afresh"
    _follow(lambda stop: run(loaded, out, clean, stop, default_store()), json_lines, again)


@app.command()
def probe(
    config: Annotated[Path, typer.Argument(help="YAML file, as for finetune; its freeze is not used")],
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a config key")] = None,
    out: Annotated[Path | None, typer.Option(help="new directory for probe.html and probe.json")] = None,
    confirm: Annotated[bool, typer.Option(help="try the depths that probes suggest by short trainings")] = True,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Say which hidden layers know the task, and how many to freeze; backbone.freeze=auto does so in a run."""
    from pipelines.config import load_config

    loaded = load_config(config, set or [])
    with _loading():
        from pipelines.probe import probe as run
        from service.settings import default_store

    again = "the same command starts afresh"
    _follow(lambda stop: run(loaded, out, confirm, stop, default_store()), json_lines, again)


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file, as for finetune: what is not varied")],
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V1,V2,...", help="a key and its values; repeat it; for optuna also KEY=LOW..HIGH"),
    ] = None,
    seeds: Annotated[int, typer.Option(help="trainings of every setting")] = 3,
    method: Annotated[
        Literal["grid", "one-factor", "optuna"],
        typer.Option(help="all combinations; each value changed alone; what Optuna proposes"),
    ] = "grid",
    trials: Annotated[int | None, typer.Option(help="settings that Optuna tries; default: 20")] = None,
    prune: Annotated[bool, typer.Option(help="stop hopeless trainings")] = True,
    out: Annotated[Path | None, typer.Option(help="new directory; default: output in the config, and -sweep")] = None,
    resume: Annotated[bool, typer.Option(help="go on after the trainings that an unfinished sweep has kept")] = False,
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a config key")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Train many settings with several seeds over one trunk pass; write a table, a plot and the best config.

    The validation part chooses; the test part is never scored.
    """
    from pipelines.config import load_config

    loaded = load_config(config, set or [])
    with _loading():
        from pipelines.sweep.plan import Plan
        from pipelines.sweep.sweep import sweep as run
        from service.settings import default_store

    plan = Plan(tuple(vary or ()), seeds, method, trials, prune)
    target = out or loaded.output.with_name(f"{loaded.output.name}-sweep")
    again = "go on with the same command and --resume"
    _follow(lambda stop: run(loaded, plan, target, resume, stop, default_store()), json_lines, again)


@app.command()
def embed(
    model: Annotated[str, typer.Argument(metavar="BACKBONE_OR_MODEL", help="run directory, local directory, or name")],
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="CSV, TSV, JSONL (also .gz), Parquet, a folder of them, - for stdin")
    ],
    out: Annotated[Path, typer.Option(help="new Parquet file: the input's columns and `embedding`")],
    layer: Annotated[int | None, typer.Option(min=0, help="hidden layers below; 0: embeddings; default: all")] = None,
    text: Annotated[str | None, typer.Option(help="column with the text; default: as in training, or text")] = None,
    max_length: Annotated[int | None, typer.Option(help="tokens; default: as in training, or 256")] = None,
    format: Annotated[str | None, typer.Option(help="of the input: csv, tsv, jsonl or parquet")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Write the hidden states of texts after any layer, as masked means over tokens, to Parquet."""
    with _loading():
        from pipelines.embed import embed as run

    again = "the same command starts afresh"
    _follow(lambda stop: run(model, source, out, layer, text, max_length, format, stop), json_lines, again)


@app.command()
def estimate(
    config: Annotated[Path, typer.Argument(help="YAML file; configs/ holds examples")],
    set: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a config key")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="propose settings that fit --memory, --time or both")] = False,
    memory: Annotated[
        float | None, typer.Option(metavar="MIB", help="with --fit: what the process may hold while it trains")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="30m", help="with --fit: for the whole run; s, m or h behind the number")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Say what a run would take before it is run: parameters, time, memory, disk, each with its error.

    A small run is measured on this machine, on some of the items, and thrown away.
    """
    from pipelines.config import load_config

    loaded = load_config(config, set or [])
    if not fit and (memory, time) != (None, None):
        raise ConfigError("--memory and --time belong to --fit; add it")
    with _loading():
        from pipelines.estimate.estimate import estimate as run
        from pipelines.estimate.fit import budget_of
        from pipelines.estimate.fit import fit as run_fit
        from service.settings import default_store

    budget, store = budget_of(memory, time) if fit else None, default_store()
    again = "the same command starts afresh"
    _follow(
        lambda stop: run(loaded, stop, store) if budget is None else run_fit(loaded, budget, stop, store),
        json_lines,
        again,
    )


@app.command()
def compare(
    model_dirs: Annotated[list[Path], typer.Argument(help="run directories; the verdict is about the first")],
    data: Annotated[Path, typer.Option(help="labelled file with the columns of the first run's data")],
    out: Annotated[Path, typer.Option(help="directory for the report")] = Path("runs/comparison"),
    text: Annotated[str | None, typer.Option(help="column with the text; default: as in training")] = None,
    label: Annotated[str | None, typer.Option(help="column with the label; default: as in training")] = None,
    learning_curve: Annotated[bool, typer.Option(help="train the first model again on growing shares: minutes")] = True,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Score finished models and their baselines on a labelled file: the ladder and the report."""
    with _loading():
        from pipelines.compare import compare as run
        from service.settings import default_store

    columns = {name: value for name, value in (("text", text), ("label", label)) if value is not None}
    again = "the same command starts afresh"
    _follow(lambda stop: run(model_dirs, data, out, columns, learning_curve, stop, default_store()), json_lines, again)


@app.command()
def classify(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL_DIR... INPUT",
            help="run directories of rootstock finetune, then the input: CSV, TSV, JSONL (also .gz), Parquet, a folder "
            "of them, a quoted glob, or - for standard input",
        ),
    ],
    out: Annotated[Path, typer.Option(help="new file; its name says the format")],
    resume: Annotated[bool, typer.Option(help="go on with what an unfinished run has committed")] = False,
    text: Annotated[str | None, typer.Option(help="column with the text; default: as in training")] = None,
    format: Annotated[
        str | None, typer.Option(help="of the input, where no name says it: csv, tsv, jsonl, parquet")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="write only the K best scores of a row")] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL=SCORE", help="flag a label from a score on; or LABEL=precision:0.9 of the report"),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="tokens; default: as in training")] = None,
    long: Annotated[
        Literal["truncate", "windows"], typer.Option(help="longer texts: cut, or split and scores averaged")
    ] = "truncate",
    unordered: Annotated[bool, typer.Option(help="look further ahead, so that batches hold less padding")] = False,
    route: Annotated[str | None, typer.Option(help="column with the name of the model that a row goes to")] = None,
    cascade: Annotated[bool, typer.Option(help="let the run's regression answer what it is sure of")] = False,
    loss: Annotated[float | None, typer.Option(help="points of macro-F1 that it may cost; default 0.2")] = None,
    calibrate: Annotated[Path | None, typer.Option(help="labelled file that certifies it; default: validation")] = None,
    label: Annotated[str | None, typer.Option(help="its column with the label; default: as in training")] = None,
    backend: Annotated[Literal["auto", "torch", "openvino"], typer.Option(help="auto: measured")] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"], typer.Option(help="auto: measured against fp32")
    ] = "auto",
    keep_states: Annotated[bool, typer.Option(help="keep frozen layers' states for models that come later")] = False,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Classify every row of a file: label, score and all scores are added, columns and order kept."""
    if len(paths) < 2:
        raise ConfigError("expected MODEL_DIR... INPUT: one or more run directories, then what is to be classified")
    if not cascade and (loss, calibrate, label) != (None, None, None):
        raise ConfigError("--loss, --calibrate and --label belong to --cascade; add it")
    with _loading():
        from pipelines.bulk.request import Options
        from pipelines.classify import classify as run
        from service.settings import default_store

    options = Options(
        text=text,
        label=label,
        format=format,
        backend=backend,
        precision=precision,
        top_k=top_k,
        thresholds=threshold or (),
        max_length=max_length,
        long=long,
        unordered=unordered,
        route=route,
        cascade=(0.2 if loss is None else loss) / 100 if cascade else None,
        calibrate=calibrate,
    )
    *models, source = paths
    store = default_store() if keep_states else None
    again = "go on with the same command and --resume"
    _follow(lambda stop: run([Path(m) for m in models], source, out, options, resume, stop, store), json_lines, again)


@app.command()
def explain(
    model_dir: Annotated[Path, typer.Argument(help="run directory of rootstock finetune")],
    text: Annotated[list[str] | None, typer.Option(help="a text to explain, in quotes; may be repeated")] = None,
    input: Annotated[
        Path | None, typer.Option(help="file with texts; default: the errors and disagreements that the report lists")
    ] = None,
    column: Annotated[str | None, typer.Option(help="of the file, with the text; default: as in training")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="rows of the file; default: 20")] = None,
    out: Annotated[Path | None, typer.Option(help="new directory for explain.html and explain.json")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Say which words moved a model's predictions, and which features decided its regressions."""
    with _loading():
        from pipelines.explain import explain as run
        from service.settings import default_store

    again = "the same command starts afresh"
    what = text or (), input, column, limit
    _follow(lambda stop: run(model_dir, out, *what, stop, default_store()), json_lines, again)


@app.command()
def export(
    model_dir: Annotated[Path, typer.Argument(help="run directory of rootstock finetune")],
    out: Annotated[Path, typer.Option(help="new directory, with one folder for each format")],
    format: Annotated[str, typer.Option(help="of transformers, onnx, openvino; with commas between")] = "transformers",
    as_json: Annotated[bool, typer.Option("--json", help="what was checked, as JSON")] = False,
) -> None:
    """Write a finished model for other runtimes, each checked by loading it there."""
    with _loading():
        from pipelines.export import export as run

    found = run(model_dir, [name.strip() for name in format.split(",")], out)["formats"]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, checked in found.items():
        stderr.print(
            f"{name}: {out / name}, {checked['size_bytes'] / 2**20:,.0f} MiB; {checked['texts']} texts checked in "
            f"{checked['runtime']}, logits within {checked['max_difference']:.1g} of PyTorch",
            markup=False,
            soft_wrap=True,
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="directory; an earlier demo there is replaced")] = Path("runs/demo"),
    json_lines: Annotated[bool, typer.Option("--json", help="events as JSON lines")] = False,
) -> None:
    """Run the brand-safety comparison on embedded data and weights."""
    with _loading():
        from pipelines.demo import demo as run
        from service.settings import default_store

    again = "the demo starts afresh when it is run again"
    _follow(lambda stop: run(out, stop=stop, store=default_store()), json_lines, again)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free")] = 8080,
    host: Annotated[str, typer.Option(help="an address of this machine only; a proxy brings TLS")] = "127.0.0.1",
    data_dir: Annotated[Path | None, typer.Option(help="everything it keeps; default: in the user's data")] = None,
) -> None:
    """Start the API and a worker: jobs, models and batches for many users. The first start prints a key."""
    from service.serve import serve as run
    from service.settings import service_settings

    raise typer.Exit(run(service_settings(data_dir), host, port))


@app.command()
def worker(
    data_dir: Annotated[Path | None, typer.Option(help="of the service")] = None,
) -> None:
    """Start a further worker for a service on this machine, or on others that share its directory and database."""
    from service.settings import service_settings
    from service.worker import run_worker

    settings = service_settings(data_dir)
    if not settings.data_dir.is_dir():
        raise RootstockError(f"{settings.data_dir}: no such directory; start `rootstock serve`, or name its --data-dir")
    raise typer.Exit(run_worker(settings))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """Say what this machine has: devices, precision, weights, versions."""
    from service.doctor import examine, print_table

    findings = examine()
    print(json.dumps(findings, indent=2)) if as_json else print_table(findings)
    if findings["embedded backbone"].startswith("unusable"):
        raise typer.Exit(1)


def _loading() -> AbstractContextManager[Any]:
    """Says on a terminal why nothing happens yet."""
    quiet = os.environ.get("RANK", "0") != "0"
    return nullcontext() if quiet else stderr.status("loading libraries")


def _follow(events: Callable[[Callable[[], bool]], Any], json_lines: bool, again: str) -> None:
    """Show a run's events; Ctrl-C or SIGTERM asks it to stop at the next step, a second Ctrl-C at once."""
    from service.progress import print_json, show

    asked = threading.Event()

    def ask(number: int, _: object) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    quiet = os.environ.get("RANK", "0") != "0"
    try:
        (print_json if json_lines else show)(events(asked.is_set), quiet)
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}; {again}") from None


def main() -> None:
    """Entry point: every error on purpose becomes one message and an exit code."""
    if parent := os.environ.get("ROOTSTOCK_PARENT"):  # one of several processes of a job
        die_with_parent(int(parent))
        give_way()
    try:
        app()
    except RootstockError as error:
        if str(error) and os.environ.get("RANK", "0") == "0":
            stderr.print(f"error: {error}", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        stderr.print("stopped")
        sys.exit(1)
    except Exception as error:
        if os.environ.get("ROOTSTOCK_DEBUG"):
            raise
        if isinstance(error, OSError) and error.strerror:  # a full disk, a missing right
            stderr.print(f"error: {error.filename or 'a file'}: {error.strerror}", markup=False, soft_wrap=True)
            sys.exit(1)
        if _out_of_memory(error):
            problem = (str(error).splitlines() or ["nothing more could be had"])[0]
            stderr.print(f"error: out of memory: {problem}\n{ROOM}", markup=False, soft_wrap=True)
            sys.exit(1)
        stderr.print(
            f"internal error: {type(error).__name__}: {error}\nThis is a fault in Rootstock. "
            "Run again with ROOTSTOCK_DEBUG=1 to see where it happened.",
            markup=False,
            soft_wrap=True,
        )
        sys.exit(1)


def _out_of_memory(error: Exception) -> bool:
    """Whether there was not enough of it, in the words of PyTorch. Training answers that itself where it can."""
    if isinstance(error, MemoryError):
        return True
    from accelerate.utils.memory import should_reduce_batch_size

    return bool(should_reduce_batch_size(error))


if __name__ == "__main__":
    main()
