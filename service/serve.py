"""`rootstock serve`: the API and one worker, each a process of its own, started again when it ends by itself."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO

from pipelines.errors import ConfigError, RootstockError
from service.audit import OPERATOR, Actor, acting
from service.database import Database
from service.death import die_with_parent
from service.engine import prepare_tables
from service.keys import FIRST_TENANT, any_key, create_key
from service.settings import ServiceSettings

DRAIN_S = 150.0  # until processes that were asked to end are killed
AGAIN_S = (0.2, 5.0)  # shortest and longest wait before a process is started again
SWITCH_S = 0.0005  # at 5 ms, a thread that reads the database waits that long for the event loop after every statement
LOOPBACK = ("127.0.0.1", "localhost", "::1")
log = logging.getLogger(__name__)


def serve(settings: ServiceSettings, host: str, port: int) -> int:
    """Run until SIGTERM or Ctrl-C. Returns the exit code.

    Raises:
        ConfigError: an address that is not this machine's own.
        RootstockError: the port or the directory is taken.
        DatabaseError: the database cannot be used.
    """
    if host not in LOOPBACK:
        raise ConfigError(f"--host: expected one of {', '.join(LOOPBACK)}, found {host}; put a proxy with TLS in front")
    listening = _listen(host, port)
    lock = claim_directory(settings)
    prepare(settings)
    place = listening.getsockname()
    print(f"http://{place[0]}:{place[1]} - data in {settings.data_dir}", flush=True)
    own = (str(settings.data_dir), str(os.getpid()))
    api = _Kept("API", ["service.serve", "api", *own, str(listening.fileno())], listening.fileno())
    worker = _Kept("worker", ["service.serve", "worker", *own], None)
    code = _supervise([api, worker])
    lock.close()
    return code


def prepare(settings: ServiceSettings) -> None:
    """Tables up to date, and a first key, which is printed once."""
    database = Database(settings.database_url)
    try:
        database.migrate()
        prepare_tables(database)
        database.check()
        with acting(Actor(OPERATOR)), database.writing() as session:
            text = None if any_key(session) else create_key(session, FIRST_TENANT, "first")[1]
    finally:
        database.close()
    if text is not None:
        print(f"API key of the tenant `{FIRST_TENANT}`, shown only now: {text}", flush=True)


def claim_directory(settings: ServiceSettings) -> IO[str]:
    """One service per directory. Raises RootstockError."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (settings.data_dir / "serve.lock").open("w")
    except OSError as error:
        raise RootstockError(f"{settings.data_dir}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RootstockError(f"{settings.data_dir}: another `rootstock serve` uses this directory") from None
    return file


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        raise RootstockError(f"port {port} of {host}: {error.strerror}; choose another with --port") from None
    listening.listen(2048)
    listening.set_inheritable(True)
    return listening


class _Kept:
    """A process that is started again, with growing patience, when it ends by itself."""

    def __init__(self, name: str, module: Sequence[str], passed: int | None) -> None:
        self.name, self.passed = name, passed
        self.command = [sys.executable, "-m", *module]
        self.process: subprocess.Popen[bytes] | None = None
        self.wait_s, self.started, self.next_start = AGAIN_S[0], 0.0, 0.0

    def keep(self) -> None:
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            log.warning("the %s ended with exit code %s", self.name, self.process.returncode)
            self.wait_s = AGAIN_S[0] if now - self.started > 60 else min(AGAIN_S[1], 2 * self.wait_s)
            self.process, self.next_start = None, now + self.wait_s
        if self.process is None and now >= self.next_start:
            self.started = now
            files = () if self.passed is None else (self.passed,)
            self.process = subprocess.Popen(self.command, pass_fds=files, start_new_session=True)

    def end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None


def _supervise(kept: Sequence[_Kept]) -> int:
    asked = threading.Event()

    def ask(_: int, __: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    while not asked.wait(0.1):
        for each in kept:
            each.keep()
    for each in kept:
        each.end(signal.SIGTERM)
    until = time.monotonic() + DRAIN_S
    while any(each.lives for each in kept) and time.monotonic() < until:
        time.sleep(0.05)
    for each in kept:
        each.end(signal.SIGKILL)
    return 0


# ---- the processes


def run_api(settings: ServiceSettings, descriptor: int) -> int:
    """Serve HTTP on a socket that is open already. Returns the exit code."""
    import tempfile

    import uvicorn

    from service.api import create_app
    from service.engine import JobEngine
    from service.inference.client import Inference

    uploads = settings.data_dir / "uploads"
    uploads.mkdir(exist_ok=True)
    tempfile.tempdir = str(uploads)  # forms are spooled on the disk that keeps them
    for left in uploads.iterdir():
        left.unlink()
    database = Database(settings.database_url)
    database.check()
    inference = Inference(settings.data_dir / "run", settings.limits.models_mib)
    engine = JobEngine(database)
    app = create_app(settings, database, engine, inference)
    sys.setswitchinterval(SWITCH_S)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=20)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])
    engine.close()
    database.close()
    return 0


def main(arguments: Sequence[str]) -> int:
    """Entry point of the processes that `serve` keeps. Returns the exit code."""
    from service.settings import service_settings
    from service.worker import run_worker

    role, data_dir, parent = arguments[0], Path(arguments[1]), int(arguments[2])
    die_with_parent(parent)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = service_settings(data_dir)
    try:
        return run_api(settings, int(arguments[3])) if role == "api" else run_worker(settings)
    except RootstockError as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
