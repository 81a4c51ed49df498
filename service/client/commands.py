"""`rootstock files|jobs|batches|models`: built on OpenAI's client, so that they show what any script would see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from service.client import calls, showing
from service.client.connection import connect, keep_key

Json = Annotated[bool, typer.Option("--json", help="the objects as JSON")]
Limit = Annotated[int, typer.Option(min=1, max=100, help="how many at most, newest first")]

files = typer.Typer(help="Files of a running service.", no_args_is_help=True)
jobs = typer.Typer(help="Fine-tuning jobs of a running service.", no_args_is_help=True)
batches = typer.Typer(help="Batch classification on a running service.", no_args_is_help=True)
models = typer.Typer(help="Models of a running service.", no_args_is_help=True)
FILE_COLUMNS = ("id", "filename", "purpose", "bytes", "created_at")
JOB_COLUMNS = ("id", "status", "model", "created_at", "fine_tuned_model")
BATCH_COLUMNS = ("id", "status", "endpoint", "created_at", "output_file_id", "error_file_id")


def login(key: Annotated[str, typer.Option(prompt="API key", hide_input=True, help="asked for if left out")]) -> None:
    """Keep an API key for the service at ROOTSTOCK_URL."""
    showing.stderr.print(f"kept in {keep_key(key.strip())}")


# ---- files


@files.command("upload")
def files_upload(path: Path, purpose: Annotated[str, typer.Option(help="fine-tune or batch")] = "fine-tune") -> None:
    """Upload a file and print its id."""
    with calls.refusals():
        print(calls.upload(connect(), path, purpose))


@files.command("list")
def files_list(limit: Limit = 20, as_json: Json = False) -> None:
    """Files, newest first."""
    with calls.refusals():
        _show(connect().files.list(limit=limit).data, FILE_COLUMNS, as_json)


@files.command("download")
def files_download(id: str, out: Annotated[Path, typer.Option(help="new file")]) -> None:
    """Write a file's content."""
    with calls.refusals(), out.open("xb") as file:
        file.write(connect().files.content(id).content)


@files.command("delete")
def files_delete(id: str) -> None:
    """Delete a file."""
    with calls.refusals():
        connect().files.delete(id)


# ---- jobs


@jobs.command("submit")
def jobs_submit(
    config: Annotated[Path, typer.Argument(help="YAML as of `rootstock finetune`; configs/ holds examples")],
    data: Annotated[Path | None, typer.Option(help="training file; default: data.train of the config")] = None,
    suffix: Annotated[str | None, typer.Option(help="name of the model's family")] = None,
    follow: Annotated[bool, typer.Option(help="show progress until the end, then the report")] = False,
    as_json: Json = False,
) -> None:
    """Upload the data, submit a fine-tuning job and print its id."""
    with calls.refusals():
        client = connect()
        body = _uploaded(client, config, data) | ({"suffix": suffix} if suffix else {})
        job = calls.post(client, "/fine_tuning/jobs", body)
        print(json.dumps(job, indent=2) if as_json else job["id"])
        if follow:
            _follow(client, job["id"])


def _uploaded(client: Any, config: Path, data: Path | None) -> dict[str, Any]:
    """The body of a call, its files uploaded."""
    from service.client.submission import read_submission

    train, validation, body = read_submission(config, data)
    body |= {"training_file": calls.upload(client, train, "fine-tune")}
    if validation is not None:
        body |= {"validation_file": calls.upload(client, validation, "fine-tune")}
    return body


@jobs.command("check")
def jobs_check(
    config: Annotated[Path, typer.Argument(help="YAML as of `rootstock finetune`; its data section counts")],
    data: Annotated[Path | None, typer.Option(help="training file; default: data.train of the config")] = None,
    as_json: Json = False,
) -> None:
    """Look for what is wrong with the data before a job is spent on it."""
    _look("/data/check", config, data, as_json)


@jobs.command("probe")
def jobs_probe(
    config: Annotated[Path, typer.Argument(help="YAML as of `rootstock finetune`")],
    data: Annotated[Path | None, typer.Option(help="training file; default: data.train of the config")] = None,
    as_json: Json = False,
) -> None:
    """Say which hidden layers know the task, and how many to freeze."""
    _look("/probes", config, data, as_json)


@jobs.command("estimate")
def jobs_estimate(
    config: Annotated[Path, typer.Argument(help="YAML as of `rootstock finetune`")],
    data: Annotated[Path | None, typer.Option(help="training file; default: data.train of the config")] = None,
    as_json: Json = False,
) -> None:
    """Say what a job would take: time, memory, disk."""
    _look("/estimates", config, data, as_json)


def _look(path: str, config: Path, data: Path | None, as_json: bool) -> None:
    """A look at what a fine-tuning would be."""
    with calls.refusals():
        client = connect()
        _looked(client, path, _uploaded(client, config, data), as_json)


def _looked(client: Any, path: str, body: dict[str, Any], as_json: bool) -> None:
    """Submit a look, wait for its end, print its sentence or its figures."""
    with calls.refusals():
        look = calls.post(client, path, body)
        showing.stderr.print(look["id"])
        look = calls.ended_look(client, look["id"])
        figures = calls.get(client, f"/looks/{look['id']}/report")
    print(json.dumps(figures, indent=2, ensure_ascii=False)) if as_json else showing.look(look, figures)


@jobs.command("follow")
def jobs_follow(id: str) -> None:
    """Show a job's progress until its end, then its report."""
    with calls.refusals():
        _follow(connect(), id)


@jobs.command("list")
def jobs_list(limit: Limit = 20, as_json: Json = False) -> None:
    """Jobs, newest first."""
    with calls.refusals():
        _show(connect().fine_tuning.jobs.list(limit=limit).data, JOB_COLUMNS, as_json)


@jobs.command("show")
def jobs_show(id: str) -> None:
    """One job, as JSON."""
    with calls.refusals():
        print(connect().fine_tuning.jobs.retrieve(id).model_dump_json(indent=2))


@jobs.command("events")
def jobs_events(id: str, limit: Limit = 20, as_json: Json = False) -> None:
    """What happened, newest first."""
    with calls.refusals():
        found = connect().fine_tuning.jobs.list_events(id, limit=limit).data
        _show(found, ("created_at", "level", "message"), as_json)


@jobs.command("report")
def jobs_report(id: str, as_json: Json = False) -> None:
    """The compare-to-baseline report of a finished job."""
    with calls.refusals():
        report = calls.get(connect(), f"/fine_tuning/jobs/{id}/report")
    print(json.dumps(report, indent=2, ensure_ascii=False)) if as_json else showing.ladder(report)


def _move(name: str, help: str) -> None:
    @jobs.command(name, help=help)
    def move(id: str) -> None:
        with calls.refusals():
            print(calls.post(connect(), f"/fine_tuning/jobs/{id}/{name}")["status"])


for _name, _help in {
    "cancel": "End a job; nothing of it is published.",
    "pause": "Stop a job at a checkpoint.",
    "resume": "Let a paused job go on.",
    "retry": "Try a failed job again.",
}.items():
    _move(_name, _help)


# ---- batches


@batches.command("create")
def batches_create(
    file: Annotated[Path, typer.Argument(help="lines of requests; with --model a CSV, JSONL or Parquet")],
    model: Annotated[str | None, typer.Option(help="id or FAMILY@ALIAS that classifies the rows of a table")] = None,
    text: Annotated[str, typer.Option(help="with --model: column with the text")] = "text",
    endpoint: Annotated[str, typer.Option(help="of the requests")] = "/v1/classify",
) -> None:
    """Upload requests or a table, submit a batch and print its id."""
    with calls.refusals():
        client = connect()
        body = {"input_file_id": calls.upload(client, file, "batch"), "endpoint": endpoint, "completion_window": "24h"}
        table = {} if model is None else {"model": model, "text": text}
        print(calls.post(client, "/batches", body | table)["id"])


@batches.command("list")
def batches_list(limit: Limit = 20, as_json: Json = False) -> None:
    """Batches, newest first."""
    with calls.refusals():
        _show(connect().batches.list(limit=limit).data, BATCH_COLUMNS, as_json)


@batches.command("show")
def batches_show(id: str) -> None:
    """One batch, as JSON."""
    with calls.refusals():
        print(connect().batches.retrieve(id).model_dump_json(indent=2))


@batches.command("cancel")
def batches_cancel(id: str) -> None:
    """End a batch."""
    with calls.refusals():
        print(connect().batches.cancel(id).status)


# ---- models


@models.command("explain")
def models_explain(
    id: Annotated[str, typer.Argument(help="id or FAMILY@ALIAS")],
    text: Annotated[list[str] | None, typer.Option(help="may be repeated; default: what the report lists")] = None,
    as_json: Json = False,
) -> None:
    """Say which words moved a model's predictions."""
    with calls.refusals():
        _looked(connect(), "/explanations", {"model": id, "input": text or []}, as_json)


@models.command("list")
def models_list(as_json: Json = False) -> None:
    """Base models, then the tenant's own."""
    with calls.refusals():
        _show(connect().models.list().data, ("id", "created", "owned_by", "labels"), as_json)


@models.command("alias")
def models_alias(id: str, name: str) -> None:
    """Point FAMILY@NAME at a model."""
    with calls.refusals():
        print(connect().put(f"/models/{id}/aliases/{name}", cast_to=object)["name"])  # type: ignore[index]


@models.command("delete")
def models_delete(id: str) -> None:
    """Delete a model."""
    with calls.refusals():
        connect().models.delete(id)


def _follow(client: Any, id: str) -> None:
    showing.show_progress(calls.follow(client, id))
    showing.ladder(calls.get(client, f"/fine_tuning/jobs/{id}/report"))


def _show(objects: list[Any], columns: tuple[str, ...], as_json: bool) -> None:
    rows = [each.model_dump() for each in objects]
    print(json.dumps(rows, indent=2, ensure_ascii=False)) if as_json else showing.table(rows, columns)
