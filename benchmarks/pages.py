"""How soon the first byte of every page comes, with 10,000 jobs and 1,000 models in the database.

    python -m benchmarks.pages                run what is missing, print the table
    python -m benchmarks.pages --tables       print the table only
    python -m benchmarks.pages --repeat 0     one row

The server is `rootstock serve` on SQLite, the reader one browser's connection on the same machine. Rows of jobs and
models are written into the database while the service is down; one model has files, those of a real toy run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import sqlalchemy as sa

from benchmarks import results
from benchmarks.machine import name as name_of_machine
from service import jobs
from service.database import Database, Scope
from service.models import add_model
from service.tables import Job, JobEvent, Tenant
from tests.service.live import LiveService, running
from tests.service.pages.walk import addresses

JOBS, MODELS, EVENTS = 10_000, 1_000, 500  # events of the job that is read
REPEATS, READS = 3, 100
AIM_MS = 100
PATH = results.results_file("pages")


def measure(repeat: int) -> results.Row:
    """95th percentile of every page, in milliseconds."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as service:
        pages = addresses(service)
        service.stop()
        fill(service, pages["job"].rsplit("/", 1)[1])
        service.start()
        with httpx.Client(base_url=service.url) as http:
            http.post("/login", data={"key": service.key})
            p95 = {name: _p95(http, path) for name, path in pages.items()}
    row = {"key": key_of(repeat), "kind": "pages", "repeat": repeat, "p95_ms": p95, "jobs": JOBS, "models": MODELS}
    return row | {"machine": name_of_machine(), "threads": psutil.cpu_count(), "versions": results.versions()}


def fill(service: LiveService, job_id: str) -> None:
    """Ended jobs and models of the tenant, and events of one job."""
    database = Database(f"sqlite:///{service.data_dir / 'rootstock.db'}")
    with database.writing() as session:
        scope = Scope(session, session.scalars(sa.select(Tenant.id)).one())
        real = scope.get(Job, job_id)
        assert real is not None
        for number in range(JOBS):
            made = jobs.create(scope, "fine-tune", real.request | {"suffix": f"brand-{number % 50}"}, {})
            made.status, made.finished_at, made.started_at = "succeeded", time.time(), time.time() - 60
            made.progress, made.result = real.progress, real.result
            if number < MODELS:
                add_model(scope, made, f"ft:toy:default:{number}", "toy", f"brand-{number % 50}", ["calm", "harsh"])
        for number in range(EVENTS):
            data = {"step": number, "train_loss": 1 / (number + 1)}
            own = {"job_id": job_id, "level": "info", "message": f"step {number}", "data": data}
            scope.add(JobEvent(id=f"filled-{number}", type="metrics", **own))
    database.close()


def _p95(http: httpx.Client, path: str) -> float:
    found = []
    for _ in range(READS):
        started = time.perf_counter()
        with http.stream("GET", path) as answer:
            assert answer.status_code in (200, 404), path  # not a way to the form
            received = answer.iter_raw()
            next(received, b"")
            found.append(1000 * (time.perf_counter() - started))
            deque(received, maxlen=0)
    return float(np.percentile(found[5:], 95))


def key_of(repeat: int) -> str:
    return f"pages {repeat}, {name_of_machine()}"


def table(rows: list[results.Row]) -> str:
    """Markdown: the medians of the repeats."""
    names: dict[str, Any] = rows[0]["p95_ms"]
    lines = [[f"`{name}`", f"{np.median([row['p95_ms'][name] for row in rows]):.1f}"] for name in names]
    return results.markdown([f"page, {len(rows)} repeats", f"first byte, p95, ms (aim ≤ {AIM_MS})"], lines)


def main() -> None:
    """Run one row, or all that are missing, and print a table for each machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--tables", action="store_true", help="only print what is there")
    args = parser.parse_args()
    if args.repeat is not None:
        results.append(PATH, measure(args.repeat))
        return
    for repeat in range(REPEATS if not args.tables else 0):
        if not results.has(PATH, key_of(repeat)):
            command = [sys.executable, "-m", "benchmarks.pages", "--repeat", str(repeat)]
            subprocess.run(command, check=True, stdout=sys.stderr)
    for own in results.by_machine(results.read(PATH)):
        print(results.environments(own), table(own), sep="\n\n", end="\n\n")


if __name__ == "__main__":
    main()
