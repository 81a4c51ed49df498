"""The process: who may connect, when it ends. None of these wait until its libraries are loaded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.environment import child_environment
from service.inference.batching import Batcher
from service.inference.child import HELD, Server
from tests.service.test_death import gone

Child = subprocess.Popen[bytes]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rs-") as folder:
        yield Path(folder) / "child.sock"


def start(path: Path, *options: str) -> Child:
    command = [sys.executable, "-m", "service.inference.child", str(path), "--memory-mib", "64", "--threads", "1"]
    return subprocess.Popen([*command, *options], env=child_environment(OMP_NUM_THREADS="1"))


def wait_for(path: Path) -> socket.socket:
    """A client of it, greeted."""
    deadline = time.monotonic() + 10
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            break
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    size = int.from_bytes(client.recv(4), "big")
    assert json.loads(client.recv(size))["pid"] > 0
    return client


def test_only_its_own_user_may_connect_and_sigterm_ends_it(path: Path) -> None:
    with start(path) as child, wait_for(path):
        assert path.stat().st_mode & 0o777 == 0o600
        child.send_signal(signal.SIGINT)  # of a terminal
        time.sleep(0.1)
        assert child.poll() is None
        child.terminate()
        assert child.wait(10) == 0
        assert not path.exists()


def test_a_second_one_makes_way_and_one_that_was_killed_leaves_nothing_in_the_way(path: Path) -> None:
    with start(path) as first, wait_for(path):
        assert start(path).wait(10) == HELD
        first.kill()
    with start(path) as next_one, wait_for(path):
        next_one.kill()


def test_it_ends_with_the_process_that_started_it(path: Path) -> None:
    script = (
        "import os, sys, asyncio; from pathlib import Path; from service.inference.client import Inference\n"
        "async def main():\n"
        "    inference = Inference(Path(sys.argv[1]))\n"
        "    await inference.statistics()\n"
        "    print(inference.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(path.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    assert gone(child)


def test_it_ends_when_no_client_is_there(path: Path) -> None:
    async def main() -> None:
        batcher = Batcher(lambda: pytest.fail("no models are wanted"))
        batcher.run = asyncio.Event().wait  # type: ignore[method-assign, assignment]
        server = asyncio.create_task(Server(batcher, idle_s=0.6).run(path))
        while not path.exists():
            await asyncio.sleep(0.01)
        _, writer = await asyncio.open_unix_connection(path)
        await asyncio.sleep(0.8)
        assert not server.done()
        left = time.monotonic()
        writer.close()
        await asyncio.wait_for(server, 5)
        assert time.monotonic() - left > 0.5

    asyncio.run(main())


def test_it_ends_when_the_computation_does(path: Path) -> None:
    async def main() -> None:
        def broken() -> None:
            raise ImportError("no torch here")

        with pytest.raises(ImportError, match="no torch here"):
            await asyncio.wait_for(Server(Batcher(broken)).run(path), 10)  # type: ignore[arg-type]

    asyncio.run(main())
