"""What the service stands: reads, submissions, live classification, followers, on two cores, while a job trains.

    python -m benchmarks.service                         run what is missing, print the table
    python -m benchmarks.service --tables                print the table only
    python -m benchmarks.service --row reads --repeat 0  one row

The server is `rootstock serve` as its users start it, on SQLite; the load comes from the same machine. The training job
is MiniLM on toy texts, at the low priority that every job has. Each row is a process and a service of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import results
from benchmarks.load import load, request
from benchmarks.machine import name as name_of_machine
from pipelines.config import EMBEDDED_BACKBONE
from tests.service.live import LiveService, chat_lines, ended, running, wait

REPEATS = 3
SECONDS = 10.0
PATH = results.results_file("service")
TEXT = "the owl waits kindly near the lake and the fox hides softly in the wood"
LONG = {  # a job that outlasts every row
    "training": {"epochs": 1000},
    "baselines": ["majority"],
    "backbone": {"freeze": 4},
}
SHORT = {
    "training": {"epochs": 1},
    "baselines": ["majority"],
    "backbone": {"freeze": 4},
    "evaluation": {"bootstrap": 100},
}
FIELDS = ("per_second", "p50_ms", "p99_ms", "seconds", "rss_mib", "queued", "silent", "failed")
AIMS = {
    "reads": "≥ 1,500/s, p99 ≤ 50 ms",
    "creates": "≥ 300/s, p99 ≤ 200 ms",
    "classify-1": "p50 ≤ 10 ms",
    "classify-32": "≥ 4x of one at a time",
    "classify-1-training": "p50 ≤ 30 ms",
    "followers": "1,000 queued jobs, 200 followers, no error",
    "idle": "≤ 400 MiB",
    "ready": "≤ 5 s",
}


# ---- rows


def reads(service: LiveService) -> dict[str, Any]:
    """GET of one job, 16 connections, beside a training."""
    with _training(service) as job:
        sent = request("GET", f"/v1/fine_tuning/jobs/{job}", service.key)
        return load(service.port, lambda _: sent, 16, SECONDS).summary()


def creates(service: LiveService) -> dict[str, Any]:
    """POST of jobs, 16 connections, beside a training."""
    with _training(service):
        file = _upload(service)
        body = json.dumps({"model": EMBEDDED_BACKBONE, "training_file": file}).encode()
        sent = request("POST", "/v1/fine_tuning/jobs", service.key, body)
        return load(service.port, lambda _: sent, 16, SECONDS).summary()


def classify(connections: int, training: bool) -> Callable[[LiveService], dict[str, Any]]:
    """`/v1/classify` of single short texts."""

    def row(service: LiveService) -> dict[str, Any]:
        model = _model(service)
        body = [json.dumps({"model": model, "input": f"{TEXT} {n}"}).encode() for n in range(1000)]

        def make(number: int) -> bytes:
            return request("POST", "/v1/classify", service.key, body[number % len(body)])

        load(service.port, make, connections, 3.0)  # the model is loaded by the first
        if not training:
            return load(service.port, make, connections, SECONDS).summary()
        with _training(service):
            return load(service.port, make, connections, SECONDS).summary()

    return row


def followers(service: LiveService) -> dict[str, Any]:
    """200 followers of one training while 1,000 jobs wait."""
    with _training(service) as job:
        body = {"model": EMBEDDED_BACKBONE, "training_file": _upload(service)}
        with service.http() as http:
            queued = sum(http.post("/v1/fine_tuning/jobs", json=body).status_code == 200 for _ in range(1000))
        heard, errors = _follow(service, job, 200)
        return {"queued": queued, "followers": len(heard), "silent": heard.count(0), "failed": len(errors)}


def _follow(service: LiveService, job: str, followers: int) -> tuple[list[int], list[str]]:
    """Messages that each follower heard in SECONDS, and what went wrong."""
    heard, errors = [0] * followers, []

    def follow(number: int) -> None:
        path, until = f"/v1/fine_tuning/jobs/{job}/stream", time.monotonic() + SECONDS
        try:
            with service.http() as http, http.stream("GET", path, timeout=30) as reply:
                reply.raise_for_status()
                for line in reply.iter_lines():
                    heard[number] += line.startswith("data:")
                    if time.monotonic() > until:
                        return
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=follow, args=(n,)) for n in range(followers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return heard, errors


def idle(service: LiveService) -> dict[str, Any]:
    """Resident memory of API, worker and the process that keeps them, a while after the start."""
    time.sleep(5)
    assert service.process is not None
    own = [psutil.Process(service.process.pid), *service.processes()]
    return {"rss_mib": sum(process.memory_info().rss for process in own) / 2**20, "processes": len(own)}


def ready(service: LiveService) -> dict[str, Any]:
    """Seconds from start to the first answer after SIGKILL beside a training."""
    with _training(service):
        service.kill()
        return {"seconds": service.start()}


ROWS: dict[str, Callable[[LiveService], dict[str, Any]]] = {
    "reads": reads,
    "creates": creates,
    "classify-1": classify(1, training=False),
    "classify-32": classify(32, training=False),
    "classify-1-training": classify(1, training=True),
    "classify-32-training": classify(32, training=True),
    "followers": followers,
    "idle": idle,
    "ready": ready,
}


def measure(row: str, repeat: int) -> results.Row:
    """One row on a service of its own."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), limits="calls_per_minute=10000000") as service:
        service_name = {"key": key_of(row, repeat), "kind": row, "repeat": repeat}
        return (
            service_name
            | ROWS[row](service)
            | {"machine": name_of_machine(), "threads": psutil.cpu_count(), "versions": results.versions()}
        )


@contextmanager
def _training(service: LiveService) -> Iterator[str]:
    """A job that trains for as long as the row lasts."""
    client = service.client()
    job = client.fine_tuning.jobs.create(
        model=EMBEDDED_BACKBONE, training_file=_upload(service, 400), extra_body=LONG
    ).id
    wait(lambda: client.fine_tuning.jobs.retrieve(job).model_extra["steps_completed"], 120)  # type: ignore[index]
    yield job
    service.client().fine_tuning.jobs.cancel(job)


def _model(service: LiveService) -> str:
    client = service.client()
    job = client.fine_tuning.jobs.create(model=EMBEDDED_BACKBONE, training_file=_upload(service), extra_body=SHORT)
    model: str = ended(client, job.id, 240).fine_tuned_model
    return model


def _upload(service: LiveService, rows: int = 80) -> str:
    return service.client().files.create(file=("train.jsonl", chat_lines(rows)), purpose="fine-tune").id


# ---- all rows


def key_of(row: str, repeat: int) -> str:
    return f"{row} {repeat}, {name_of_machine()}"


def table(rows: list[results.Row]) -> str:
    """Markdown: medians of the repeats."""
    lines = []
    for name in ROWS:
        own = [row for row in rows if row["kind"] == name]
        if own:
            lines.append([f"`{name}`", str(len(own)), *(_median(own, key) for key in FIELDS), AIMS.get(name, "")])
    header = ["row", "repeats", "a second", "p50, ms", "p99, ms", "seconds", "MiB", "queued", "silent", "failed", "aim"]
    return results.markdown(header, lines)


def _median(rows: list[results.Row], key: str) -> str:
    values = sorted(row[key] for row in rows if key in row)
    return f"{values[len(values) // 2]:,.1f}" if values else "–"


def main() -> None:
    """Run one row, or all that are missing, and print a table for each machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=list(ROWS))
    parser.add_argument("--repeat", type=int, default=0)
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.row:
        results.append(PATH, measure(args.row, args.repeat))
        return
    for repeat in range(REPEATS):
        for row in ROWS if not args.tables else ():
            if not results.has(PATH, key_of(row, repeat)):
                print(f"running {key_of(row, repeat)}", file=sys.stderr)
                command = [sys.executable, "-m", "benchmarks.service", "--row", row, "--repeat", str(repeat)]
                subprocess.run(command, check=True, stdout=sys.stderr)
    for own in results.by_machine(results.read(PATH)):
        print(results.environments(own), table(own), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
