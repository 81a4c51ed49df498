"""The process that owns the loaded models: `python -m service.inference.child SOCKET --memory-mib N --threads T`.

It listens at once and loads its libraries meanwhile. It ends when its parent does, on SIGTERM, when no client has been
there for a while, and when a round of computation hangs; nothing that it holds has to be saved.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import gc
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from service.death import die_with_parent
from service.inference import frames
from service.inference.batching import Batcher, Models
from service.inference.errors import Code, InferenceError

HELD = 75  # exit code: another process serves this socket
FAILED = 70
IDLE_S = 60.0  # without a client


class Server:
    """Answers clients on a Unix socket.

    Args:
        batcher: computes.
        idle_s: it ends after so long without a client.
    """

    def __init__(self, batcher: Batcher, idle_s: float = IDLE_S) -> None:
        self._batcher = batcher
        self._idle_s = idle_s
        self._stop = asyncio.Event()
        self._clients = 0
        self._idle: asyncio.TimerHandle | None = None

    async def run(self, socket: Path) -> None:
        """Serve until there is a reason to end. Raises what the computation raised, if that is the reason."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._serve, socket)
        finally:
            os.umask(before)
        rounds = asyncio.create_task(self._batcher.run())
        rounds.add_done_callback(lambda _: self._stop.set())
        self._count(0)
        await self._stop.wait()
        server.close()
        socket.unlink(missing_ok=True)
        if rounds.done():
            rounds.result()

    def _count(self, change: int) -> None:
        """Clients come and go; when the last is gone, the clock starts."""
        self._clients += change
        if self._idle:
            self._idle.cancel()
        self._idle = None
        if not self._clients:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._stop.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count(+1)
        requests: dict[int, asyncio.Task[None]] = {}
        sender = frames.Sender(writer)
        try:
            sender.send(frames.packed({"pid": os.getpid()}))
            while (message := await frames.read(reader)) is not None:
                number = message["id"]
                if message["ask"] == "cancel":
                    if number in requests:
                        requests[number].cancel()
                    continue
                request = requests[number] = asyncio.create_task(self._answer(message, sender))
                request.add_done_callback(partial(_forget, requests, number))
        except asyncio.CancelledError:
            pass  # the process ends
        finally:
            for request in requests.values():
                request.cancel()
            writer.close()
            self._count(-1)

    async def _answer(self, message: dict[str, Any], sender: frames.Sender) -> None:
        number = message["id"]
        try:
            reply = frames.packed({"id": number} | await self._reply(message))
        except InferenceError as error:
            reply = _refusal(number, error.code, str(error))
        except frames.TooLongError as error:
            reply = _refusal(number, "request_too_large", f"its answer is too long: {error}; ask for fewer texts")
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reply = _refusal(number, "internal_error", f"{type(error).__name__}: {error}")
        sender.send(reply)

    async def _reply(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["ask"] == "statistics":
            return self._batcher.statistics()
        answer = await self._batcher.classify(Path(message["model"]), message["texts"])
        return {"labels": answer.labels, "probabilities": answer.probabilities, "tokens": answer.tokens}


def _refusal(number: int, code: Code, message: str) -> bytes:
    return frames.packed({"id": number, "error": {"code": code, "message": message}})


def _forget(requests: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    del requests[number]


def open_pool(memory_mib: int, threads: int, precision: str) -> Models:
    """An empty pool. Imports what takes seconds."""
    from pipelines.device import resolve_precision
    from service.inference.pool import Pool

    gc.freeze()  # a million objects of libraries, which the collector would walk in the middle of a request
    return Pool(memory_mib << 20, threads, resolve_precision(precision))  # type: ignore[arg-type]


def main() -> None:
    """Serve, then end without waiting for threads: a load may take minutes, and nobody wants it any more."""
    options = _options()
    die_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the parent
    with options.socket.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(HELD)
        os._exit(_served(options))


def _served(options: argparse.Namespace) -> int:
    async def serve() -> None:
        batcher = Batcher(lambda: open_pool(options.memory_mib, options.threads, options.precision))
        await Server(batcher).run(options.socket)

    try:
        asyncio.run(serve())
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        return FAILED
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.inference.child", description=__doc__)
    parser.add_argument("socket", type=Path, help="Unix socket to listen at")
    parser.add_argument("--memory-mib", type=int, required=True, help="bound on distinct weights")
    parser.add_argument("--threads", type=int, required=True, help="of the computation")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process with which this one ends")
    return parser.parse_args()


if __name__ == "__main__":
    main()
