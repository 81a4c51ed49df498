"""The whole path: client, socket, process, models. One process is started for all, and killed once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest

from pipelines.errors import ConfigError
from pipelines.predict import predict_probabilities
from service.inference import client, frames
from service.inference.child import Server
from service.inference.client import Inference
from service.inference.errors import InferenceError
from service.inference.records import Answer
from tests.service.inference.models import grafted, saved
from tests.toys import tiny_backbone, toy_rows

TEXTS = [row["text"] for row in toy_rows(32, seed=6)]
NAMES = "abd"
T = TypeVar("T")


class Service:
    """Runs, what they should answer, and an inference process that lives as long as the tests."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        base, other = tiny_backbone(folder / "tiny"), tiny_backbone(folder / "other", seed=7)
        models = {
            "a": grafted(base, 1, 2),
            "b": grafted(base, 2, 2, ("x", "y", "z")),
            "d": grafted(other, 4),
        }
        self.expected = {n: predict_probabilities(m, m.encode(TEXTS), "fp32") for n, m in models.items()}
        self.runs = {name: saved(folder / name, model) for name, model in models.items()}
        self.runner = asyncio.Runner()
        self.inference = self.call(self._opened(sockets))

    async def _opened(self, sockets: Path) -> Inference:
        return Inference(sockets, memory_mib=64, threads=1, precision="fp32")

    def call(self, request: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(request, 60))

    async def each(self) -> None:
        """32 requests at once for three models; every one gets its own rows."""
        wanted = [(NAMES[n % 3], n) for n in range(32)]
        found = await asyncio.gather(*(self.inference.classify(self.runs[m], [TEXTS[n]]) for m, n in wanted))
        for (name, n), answer in zip(wanted, found, strict=True):
            np.testing.assert_allclose(answer.probabilities, self.expected[name][[n]], atol=1e-5)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="rs-") as sockets:  # pytest's own paths are too long for a socket
        made = Service(tmp_path_factory.mktemp("client"), Path(sockets) / "made")
        yield made
        pid = made.inference.pid
        made.call(made.inference.close())
        made.runner.close()
        assert pid is None or not psutil.pid_exists(pid)


def code_of(service: Service, path: Path, texts: list[str]) -> str:
    with pytest.raises(InferenceError) as caught:
        service.call(service.inference.classify(path, texts))
    return caught.value.code


@pytest.mark.slow
def test_requests_that_were_under_way_when_the_process_died_are_answered(service: Service) -> None:
    """The first one has not loaded its libraries yet, which makes no difference and spares a second load."""
    service.call(service.inference.statistics())
    killed = service.inference.pid
    assert killed is not None

    async def die() -> None:
        os.kill(killed, signal.SIGSTOP)  # so that all of them are under way
        requests = asyncio.create_task(service.each())
        await asyncio.sleep(0.1)
        os.kill(killed, signal.SIGKILL)
        await requests

    service.call(die())
    assert service.inference.pid not in (None, killed)
    assert service.call(service.inference.statistics())["requests"] == 32


def test_answers_are_those_of_the_model(service: Service) -> None:
    for name in NAMES:
        answer = service.call(service.inference.classify(service.runs[name], TEXTS))
        np.testing.assert_allclose(answer.probabilities, service.expected[name], atol=1e-5)
        assert answer.labels == (("x", "y", "z") if name == "b" else ("calm", "harsh"))
        assert answer.tokens > 32 * 5
    assert len(service.call(service.inference.statistics())["models"]) == 3


def test_thirty_two_at_once_get_their_own_rows_in_few_rounds(service: Service) -> None:
    service.call(service.each())
    before = service.call(service.inference.statistics())
    service.call(service.each())
    after = service.call(service.inference.statistics())
    assert after["requests"] - before["requests"] == 32
    assert 1 <= after["batches"] - before["batches"] <= 16


def test_a_model_that_is_not_what_was_written_fails_alone(service: Service, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(service.runs["a"], copy)
    (copy / "model/model.safetensors").write_bytes(b"not weights")

    async def both() -> tuple[Any, Any]:
        bad = service.inference.classify(copy, TEXTS[:1])
        good = service.inference.classify(service.runs["a"], TEXTS[:1])
        bad_result, good_result = await asyncio.gather(bad, good, return_exceptions=True)
        return bad_result, good_result

    bad, good = service.call(both())
    assert isinstance(good, Answer)
    assert bad.code == "model_unusable"
    assert "model/model.safetensors was changed after it was written" in str(bad)
    assert code_of(service, tmp_path / "nowhere", ["x"]) == "model_unusable"


def test_half_a_character_costs_only_its_own_request(service: Service) -> None:
    assert code_of(service, service.runs["a"], [TEXTS[0], "\ud800"]) == "invalid_text"
    service.call(service.each())


def test_what_is_too_much_is_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_CHARACTERS", 10)
    assert code_of(service, service.runs["a"], ["x" * 11]) == "request_too_large"
    monkeypatch.setattr(client, "MOST_REQUESTS", 2)

    async def three() -> list[Any]:
        asked = [service.inference.classify(service.runs["a"], ["the cat"]) for _ in range(3)]
        return await asyncio.gather(*asked, return_exceptions=True)

    results = service.call(three())
    assert [getattr(result, "code", "answered") for result in results] == ["answered", "answered", "overloaded"]


def test_a_caller_that_goes_away_leaves_nothing_behind(service: Service) -> None:
    async def leave() -> int:
        request = asyncio.create_task(service.inference.classify(service.runs["a"], TEXTS))
        await asyncio.sleep(0)
        request.cancel()
        await asyncio.wait([request])
        return (await service.inference.statistics())["waiting"]  # type: ignore[no-any-return]

    assert service.call(leave()) == 0
    service.call(service.each())


def test_a_process_that_cannot_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        with tempfile.TemporaryDirectory(prefix="rs-") as folder:
            inference: Any = Inference(Path(folder))
            inference._process._command = [sys.executable, "-c", "raise SystemExit(9)"]
            with pytest.raises(InferenceError, match="ended with code 9 before it listened") as error:
                await inference.statistics()
            assert error.value.code == "unavailable"
            inference._process._command = [sys.executable, "-c", "import time; time.sleep(60)"]
            monkeypatch.setattr(client, "START_S", 0.3)
            with pytest.raises(InferenceError, match="no inference process answers within"):
                await inference.statistics()
            await inference.close()

    asyncio.run(ask())


def test_once_closed_it_starts_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DRAIN_S", 0.1)

    async def close() -> None:
        with tempfile.TemporaryDirectory(prefix="rs-") as folder:
            inference: Any = Inference(Path(folder))
            await inference.statistics()
            os.kill(inference.pid, signal.SIGSTOP)
            asked = asyncio.create_task(inference.statistics())
            await asyncio.sleep(0.05)
            monkeypatch.setattr("service.inference.process.STOP_S", 0.1)
            await inference.close()
            assert not inference._process.running
            for late in (asked, inference.statistics()):
                with pytest.raises(InferenceError, match="the service is stopping"):
                    await late
            assert not inference._process.running

    asyncio.run(close())


def test_a_message_that_is_too_long_is_refused_on_either_side(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MOST_BYTES", 1000)
    assert code_of(service, service.runs["a"], ["x" * 1000]) == "request_too_large"

    async def answer() -> bytes:
        written: list[bytes] = []
        batcher: Any = SimpleNamespace(statistics=lambda: {"models": ["x" * 1000]})
        sender: Any = SimpleNamespace(send=written.append)
        await Server(batcher)._answer({"id": 1, "ask": "statistics"}, sender)
        return written[0]

    assert b"request_too_large" in asyncio.run(answer())


def test_a_path_that_no_socket_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a path of at most 107 bytes for a socket, found 2\d\d"):
        Inference(Path("/tmp") / ("x" * 200))


def test_the_client_never_loads_torch() -> None:
    script = (
        "import sys, service.inference.client; print(*sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
