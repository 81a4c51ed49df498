"""A whole service as its users start it: `rootstock serve` in processes of its own, a toy backbone, real clients."""

from __future__ import annotations

import gc
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

from pipelines.config import EMBEDDED_BACKBONE
from tests.toys import tiny_backbone, toy_rows

ROOT = Path(__file__).parents[2]
READY_S = 60.0
QUICK = {  # a job of seconds
    "training": {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "precision": "fp32", "trackers": []},
    "baselines": ["majority", "logistic-regression-tfidf"],
    "evaluation": {"bootstrap": 100},
    "backbone": {"freeze": 1},
    "data": {"validation": 0.2, "test": 0.2},
}


class LiveService:
    """Started by `start`, killed whole by `kill`; the same directory can be started again."""

    def __init__(self, folder: Path, database_url: str = "", limits: str = "lease_s=8") -> None:
        self.data_dir, self.log = folder / "data", folder / "serve.log"
        backbone = folder / "tiny"
        if not backbone.exists():
            tiny_backbone(backbone)
        own = {"ROOTSTOCK_BASE_MODELS": f"toy={backbone},{EMBEDDED_BACKBONE}", "ROOTSTOCK_DATABASE_URL": database_url}
        self.environment = os.environ | own | {"ROOTSTOCK_LIMITS": limits, "OMP_NUM_THREADS": "1"}
        self.process: subprocess.Popen[str] | None = None
        self.url = self.key = ""
        self.port = 0

    def start(self) -> float:
        """Start and wait until it is ready. Returns the seconds that took."""
        started = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "service.cli",
            "serve",
            "--port",
            str(self.port),
            "--data-dir",
            str(self.data_dir),
        ]
        with self.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._read_address()
        wait(lambda: _answers(self.url), READY_S)
        return time.monotonic() - started

    def _read_address(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"rsk_\w+", line):
                self.key = found[0]
            if found := re.search(r"http://\S+:(\d+)", line):
                self.url, self.port = found[0], int(found[1])
                return
        raise AssertionError(self.log.read_text(encoding="utf-8"))

    def stop(self) -> int:
        """Drain, as SIGTERM asks for. Returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(timeout=60)
        self._close()
        return code

    def kill(self) -> None:
        """SIGKILL of the process that keeps the others; they must die with it."""
        assert self.process is not None
        pids = [child.pid for child in self.processes()]
        self.process.kill()
        self.process.wait()
        self._close()
        wait(lambda: not any(map(lives, pids)), 10)

    def _close(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()

    def processes(self) -> list[psutil.Process]:
        """Everything that it has started."""
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def role(self, name: str) -> psutil.Process:
        """The process of a part: api, worker, service.child."""
        found = [p for p in self.processes() if name in " ".join(arguments(p))]
        assert found, [arguments(p) for p in self.processes()]
        return found[0]

    def stop_between_writes(self, process: psutil.Process) -> None:
        """SIGSTOP, but not inside a write: it would hold SQLite's one lock, and nobody could take its jobs over."""
        while True:
            process.suspend()
            if not (self.data_dir / "rootstock.db").exists() or self._can_write():
                return
            process.resume()
            time.sleep(0.05)

    def _can_write(self) -> bool:
        with closing(sqlite3.connect(self.data_dir / "rootstock.db", timeout=1, isolation_level=None)) as connection:
            try:
                connection.execute("begin immediate")
            except sqlite3.OperationalError:
                return False
            connection.execute("rollback")
            return True

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, **options)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[LiveService]:
    """A service for the time of a test; nothing of it is left."""
    service = LiveService(folder, **options)
    service.start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.kill()
        with warnings.catch_warnings():  # connections of clients whose server was killed in the middle of an answer
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def chat_lines(count: int, seed: int = 0) -> bytes:
    """Training data as OpenAI's customers have it."""
    lines = []
    for row in toy_rows(count, seed):
        turns = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]
        lines.append(json.dumps({"messages": turns}))
    return ("\n".join(lines) + "\n").encode()


def batch_lines(model: str, texts: Sequence[str]) -> bytes:
    """Requests for `/v1/classify`."""
    lines = [
        json.dumps(
            {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/classify", "body": {"model": model, "input": text}}
        )
        for n, text in enumerate(texts)
    ]
    return ("\n".join(lines) + "\n").encode()


def submit(client: openai.OpenAI, rows: int = 60, **changes: Any) -> Any:
    """Upload toy data and submit a job."""
    file = client.files.create(file=("train.jsonl", chat_lines(rows)), purpose="fine-tune")
    sections = {
        name: {**section, **changes.pop(name, {})} if isinstance(section, dict) else section
        for name, section in QUICK.items()
    }
    return client.fine_tuning.jobs.create(model="toy", training_file=file.id, extra_body=sections, **changes)


def ended(client: openai.OpenAI, job_id: str, seconds: float = 90) -> Any:
    """The job at its end."""

    def look() -> Any:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.status in ("succeeded", "failed", "cancelled") else None

    return wait(look, seconds)


def wait(what: Callable[[], Any], seconds: float) -> Any:
    """What it returns as soon as that is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s")


def arguments(process: psutil.Process) -> list[str]:
    """Its command line; none if it has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def lives(pid: int) -> bool:
    """Whether it runs; an ended one that nobody has asked about yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
