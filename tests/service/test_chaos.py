"""SIGKILL of the whole service at random moments, under a mix of calls: nothing acknowledged is lost or comes twice.

ROOTSTOCK_SERVICE_KILLS says how many (20; `make chaos` takes 200).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.service.live import QUICK, LiveService, batch_lines, chat_lines, ended, running, wait
from tests.service.postgres import database_url
from tests.toys import toy_rows

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ROOTSTOCK_SERVICE_KILLS", "20"))
SEEDS = (1, 2, 3)
TEXTS = [row["text"] for row in toy_rows(300, seed=11)]
FINAL = ("succeeded", "failed", "cancelled")


@dataclass
class Ledger:
    """What was acknowledged."""

    files: dict[str, bytes] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)  # id -> seed
    batches: list[str] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    operations: dict[str, str] = field(default_factory=dict)  # operation -> id of what it made


class Callers(threading.Thread):
    """Random calls until `done`; what is answered is written down, what is refused or lost is tried or forgotten."""

    def __init__(self, service: LiveService, model: str, seed: int, ledger: Ledger, jobs: int) -> None:
        super().__init__()
        self.service, self.model, self.random, self.ledger, self.most = (
            service,
            model,
            random.Random(seed),
            ledger,
            jobs,
        )
        self.done = threading.Event()
        self.faults: list[BaseException] = []
        self.number = 0

    def run(self) -> None:
        calls = [self.upload, self.train, self.train, self.batch, self.cancel, self.pause, self.resume]
        while not self.done.is_set():
            client = self.service.client(max_retries=8, timeout=10)
            try:
                self.random.choice(calls)(client)
            except (openai.APIConnectionError, openai.InternalServerError):
                pass  # not acknowledged
            except openai.BadRequestError as error:
                if error.code not in ("job_already_finished", "job_already_paused", "job_not_paused"):
                    self.faults.append(error)
            except BaseException as error:
                self.faults.append(error)
            time.sleep(self.random.uniform(0, 0.6))

    def upload(self, client: openai.OpenAI) -> None:
        content = self.random.randbytes(2000)
        self.ledger.files[client.files.create(file=("a.bin", content), purpose="user_data").id] = content

    def train(self, client: openai.OpenAI) -> None:
        if len(self.ledger.jobs) >= self.most:
            return
        seed, operation = self.random.choice(SEEDS), self._operation()
        file = client.files.create(file=("train.jsonl", chat_lines(60)), purpose="fine-tune")
        job = train(client, file.id, seed, {"operation": operation})
        self.ledger.jobs[job.id] = seed
        self.ledger.operations[operation] = job.id

    def batch(self, client: openai.OpenAI) -> None:
        if len(self.ledger.batches) >= self.most:
            return
        operation = self._operation()
        batch = classify(client, self.model, {"operation": operation})
        self.ledger.batches.append(batch.id)
        self.ledger.operations[operation] = batch.id

    def cancel(self, client: openai.OpenAI) -> None:
        id = self._some_job()
        if id is not None and self.random.random() < 0.3:
            assert client.fine_tuning.jobs.cancel(id).status == "cancelled"
            self.ledger.cancelled.add(id)

    def pause(self, client: openai.OpenAI) -> None:
        id = self._some_job()
        if id is not None:
            assert client.fine_tuning.jobs.pause(id).status == "paused"
            self.ledger.paused.add(id)

    def resume(self, client: openai.OpenAI) -> None:
        if self.ledger.paused:
            id = self.random.choice(sorted(self.ledger.paused))
            client.fine_tuning.jobs.resume(id)
            self.ledger.paused.discard(id)

    def _some_job(self) -> str | None:
        return self.random.choice(list(self.ledger.jobs)) if self.ledger.jobs else None

    def _operation(self) -> str:
        self.number += 1
        return f"{self.name}-{self.number}"


def train(client: openai.OpenAI, file: str, seed: int, metadata: dict[str, str]) -> Any:
    sections: dict[str, Any] = QUICK | {"training": QUICK["training"] | {"epochs": 4, "checkpoint_steps": 3}}
    return client.fine_tuning.jobs.create(
        model="toy", training_file=file, seed=seed, metadata=metadata, extra_body=sections
    )


def classify(client: openai.OpenAI, model: str, metadata: dict[str, str]) -> Any:
    file = client.files.create(file=("batch.jsonl", batch_lines(model, TEXTS)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/classify",
        completion_window="24h",
        metadata=metadata,  # type: ignore[call-overload]
    )


def weights(service: LiveService, job_id: str) -> str:
    (path,) = service.data_dir.glob(f"tenants/*/models/{job_id}/model/model.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def answers(client: openai.OpenAI, batch: Any) -> list[Any]:
    """Of a finished batch, in order: custom_id, label, probabilities."""
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    found = [(line["custom_id"], line["response"]["body"]["data"][0]) for line in lines]
    return [(id, data["label"], data["probs"]) for id, data in found]


def ended_batch(client: openai.OpenAI, id: str) -> Any:
    return patiently(
        client, lambda: (b := client.batches.retrieve(id)).status in ("completed", "failed", "cancelled") and b
    )


def ended_job(client: openai.OpenAI, id: str, states: tuple[str, ...] = FINAL) -> Any:
    return patiently(client, lambda: (j := client.fine_tuning.jobs.retrieve(id)).status in states and j)


def patiently(client: openai.OpenAI, found: Callable[[], Any]) -> Any:
    """Wait for something as long as others end: after many kills a hundred jobs may stand before it in the queue."""
    while True:
        before = _ended_so_far(client)
        try:
            return wait(found, 300)
        except AssertionError:
            if _ended_so_far(client) == before:
                raise


def _ended_so_far(client: openai.OpenAI) -> int:
    lists = client.fine_tuning.jobs.list(limit=100), client.batches.list(limit=100)
    return sum(each.status in (*FINAL, "completed") for own in lists for each in own)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_nothing_acknowledged_is_lost_or_comes_twice(kind: str, tmp_path: Path) -> None:
    with (
        database_url(kind) as url,
        running(tmp_path, database_url=url, limits="lease_s=8,jobs_per_worker=2") as service,
    ):
        client = service.client()
        file = client.files.create(file=("train.jsonl", chat_lines(60)), purpose="fine-tune").id
        first = {seed: train(client, file, seed, {}).id for seed in SEEDS}
        done = {seed: ended(client, id) for seed, id in first.items()}
        expected = {seed: weights(service, job.id) for seed, job in done.items()}
        model = done[SEEDS[0]].fine_tuned_model
        rows = answers(client, ended_batch(client, classify(client, model, {}).id))
        assert len(rows) == len(TEXTS)

        ledger = Ledger()
        callers = Callers(service, model, KILLS, ledger, jobs=max(8, KILLS // 4))
        callers.start()
        moments = random.Random(KILLS)
        for _ in range(KILLS):
            time.sleep(min(20.0, moments.expovariate(1 / 5)))
            service.kill()
            service.start()
        callers.done.set()
        callers.join()
        assert callers.faults == []
        _check(service, ledger, expected, rows, first)
        assert service.stop() == 0
        assert not _left(service)


def _check(
    service: LiveService, ledger: Ledger, expected: dict[int, str], rows: list[Any], first: dict[int, str]
) -> None:
    client = service.client()
    for id in sorted(ledger.paused):
        if client.fine_tuning.jobs.retrieve(id).status == "paused":
            client.fine_tuning.jobs.resume(id)
    succeeded = set(first.values())
    for id, seed in ledger.jobs.items():
        if client.fine_tuning.jobs.retrieve(id).status == "paused":
            client.fine_tuning.jobs.resume(id)  # its pause was done, and the answer lost
        job = ended_job(client, id)
        assert job.status != "failed", job.error
        if id in ledger.cancelled:
            assert job.status == "cancelled"
        if job.status == "succeeded":
            succeeded.add(id)
            assert weights(service, id) == expected[seed]
    for id in ledger.batches:
        assert answers(client, ended_batch(client, id)) == rows
    for id, content in ledger.files.items():
        assert client.files.content(id).content == content
    made = list(client.fine_tuning.jobs.list(limit=100))
    for job in made:  # those too whose answer was lost
        ended_job(client, job.id, (*FINAL, "paused"))
    operations = Counter(job.metadata["operation"] for job in made if job.metadata)
    operations.update(batch.metadata["operation"] for batch in client.batches.list(limit=100) if batch.metadata)
    assert all(number == 1 for number in operations.values()), operations
    assert set(ledger.operations) <= set(operations)
    models = Counter(each.model_extra["job_id"] for each in client.models.list() if each.id.startswith("ft:"))  # type: ignore[index]
    assert all(number == 1 for number in models.values())
    final = {job.id for job in client.fine_tuning.jobs.list(limit=100) if job.status == "succeeded"}
    assert set(models) == final >= succeeded


def _left(service: LiveService) -> list[list[str]]:
    """Processes that still know the service's directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        arguments = process.info["cmdline"] or []
        if any(str(service.data_dir) in argument for argument in arguments):
            found.append(arguments)
    return found
