"""The whole service, as users have it: real processes, the unmodified clients, SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.live import LiveService, batch_lines, ended, running, stop_process, submit, wait
from tests.service.postgres import database_url
from tests.toys import toy_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    folder = tmp_path_factory.mktemp("live")
    with database_url(request.param) as url, running(folder, database_url=url) as service:
        yield service


@pytest.fixture(scope="module")
def model(live: LiveService) -> str:
    job = ended(live.client(), submit(live.client(), suffix="brand").id)
    assert job.status == "succeeded", job.error
    name: str = job.fine_tuned_model
    return name


def test_a_job_becomes_a_model_with_a_report(live: LiveService, model: str) -> None:
    client = live.client()
    job = next(j for j in client.fine_tuning.jobs.list() if j.fine_tuned_model == model)
    assert model.startswith("ft:toy:default:brand:")
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert messages[-1] == "Job is queued."
    assert any("60 rows of chat JSONL" in message for message in messages)
    assert not any(str(live.data_dir) in message for message in messages)
    assert len(client.fine_tuning.jobs.checkpoints.list(job.id).data) == 2
    report = json.loads(client.files.content(job.model_extra["report_file_id"]).text)  # type: ignore[index]
    assert [s["name"] for s in report["systems"]] == ["majority", "logistic-regression-tfidf", "fine-tuned"]
    with live.http() as http:
        page = http.get(f"/v1/fine_tuning/jobs/{job.id}/report", headers={"Accept": "text/html"})
        assert page.text.startswith("<!doctype html>")
        assert http.get(f"/v1/fine_tuning/jobs/{job.id}/report").json() == report


def test_classifying_live_and_in_a_batch_agree(live: LiveService, model: str) -> None:
    client = live.client()
    texts = [row["text"] for row in toy_rows(40, seed=7)]
    with live.http() as http:
        reply = http.post("/v1/classify", json={"model": model, "input": texts}).json()
    file = client.files.create(file=("batch.jsonl", batch_lines(model, texts)), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/classify", completion_window="24h")  # type: ignore[call-overload]
    batch = wait(lambda: (b := client.batches.retrieve(batch.id)).status in ("completed", "failed") and b, 60)
    assert batch.status == "completed", batch.errors
    assert (batch.request_counts.total, batch.request_counts.completed) == (40, 40)
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"row-{n}" for n in range(40)]
    for line, one in zip(lines, reply["data"], strict=True):
        found = line["response"]["body"]["data"][0]
        assert found["label"] == one["label"]
        assert found["probs"] == pytest.approx(
            one["probs"], abs=0.01
        )  # fp32 for so few rows; live is bf16 where that is fast


def test_chat_completions_answer_with_the_label(live: LiveService, model: str) -> None:
    messages: Any = [{"role": "user", "content": "the cat sleeps kindly"}]
    reply = live.client().chat.completions.create(
        model=model, messages=messages, logprobs=True, top_logprobs=2, temperature=0
    )
    assert reply.choices[0].message.content in ("calm", "harsh")
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.content is not None
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 2


def test_hugging_faces_client_classifies(live: LiveService, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this is no hub
    client = InferenceClient(model=f"{live.url}/hf/models/{model}", token=live.key)
    found = client.text_classification("the cat sleeps kindly", top_k=2)
    assert {each.label for each in found} == {"calm", "harsh"}
    assert sum(each.score for each in found) == pytest.approx(1, abs=1e-4)


def test_an_alias_moves(live: LiveService, model: str) -> None:
    with live.http() as http:
        assert http.put(f"/v1/models/{model}/aliases/champion").json()["name"] == "brand@champion"
        reply = http.post("/v1/classify", json={"model": "brand@champion", "input": "the cat sleeps"})
        assert reply.status_code == 200
        assert http.delete(f"/v1/models/{model}").json()["error"]["code"] == "model_in_use"
        assert http.put(f"/v1/models/{model}/aliases/latest").status_code == 400
        assert http.get(f"/v1/models/{model}").json()["aliases"] == ["champion"]
        assert http.delete(f"/v1/models/{model}/aliases/champion").json()["deleted"]
        assert http.post("/v1/classify", json={"model": "brand@champion", "input": "x"}).status_code == 404


def test_models_are_compared_on_a_file(live: LiveService, model: str) -> None:
    client = live.client()
    rows = "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in toy_rows(60, seed=9))
    file = client.files.create(file=("held-out.jsonl", rows.encode()), purpose="user_data")
    with live.http() as http:
        made = http.post("/v1/comparisons", json={"models": [model], "file_id": file.id}).json()
        done = wait(lambda: (c := http.get(f"/v1/comparisons/{made['id']}").json())["finished_at"] and c, 60)
        assert done["status"] == "succeeded", done["error"]
        assert http.get(f"/v1/comparisons/{made['id']}/report").json()["verdict"]["sentence"] == done["verdict"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b'{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant"', "invalid_training_file"),
        (
            b"".join(
                json.dumps(
                    {"prompt": f"question {n}", "completion": f"A long answer, number {n}, in whole sentences. " * 4}
                ).encode()
                + b"\n"
                for n in range(60)
            ),
            "not_classification_data",
        ),
    ],
)
def test_data_that_cannot_be_used_fails_the_job_with_a_reason(live: LiveService, content: bytes, code: str) -> None:
    client = live.client()
    file = client.files.create(file=("train.jsonl", content), purpose="fine-tune")
    job = ended(client, client.fine_tuning.jobs.create(model="toy", training_file=file.id).id)
    assert job.status == "failed"
    assert job.error.code == code
    assert str(live.data_dir) not in job.error.message


def test_a_batch_with_a_broken_line_says_which(live: LiveService, model: str) -> None:
    client = live.client()
    content = batch_lines(model, ["a", "b"]) + b'{"custom_id": "row-1"}\nno json\n'
    file = client.files.create(file=("batch.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/classify", completion_window="24h")  # type: ignore[call-overload]
    batch = wait(lambda: (b := client.batches.retrieve(batch.id)).status in ("completed", "failed") and b, 60)
    assert batch.status == "failed"
    assert [problem.line for problem in batch.errors.data] == [3, 4]


def test_pause_resume_and_cancel_of_a_running_job(live: LiveService) -> None:
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 40, "checkpoint_steps": 20})

    def steps() -> int:
        return client.fine_tuning.jobs.retrieve(job.id).model_extra["steps_completed"] or 0  # type: ignore[index]

    wait(lambda: steps() > 60, 60)
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    wait(lambda: not client.fine_tuning.jobs.retrieve(job.id).model_extra["stopping"], 30)  # type: ignore[index]
    at = steps()
    client.fine_tuning.jobs.resume(job.id)
    wait(lambda: steps() > at + 20, 60)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    wait(lambda: not client.fine_tuning.jobs.retrieve(job.id).model_extra["stopping"], 30)  # type: ignore[index]
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model is None
    assert not any("service.child" in " ".join(p.cmdline()) for p in live.processes())


def test_the_service_is_killed_while_it_trains_and_goes_on(live: LiveService) -> None:
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 20, "checkpoint_steps": 20})
    wait(lambda: len(client.fine_tuning.jobs.checkpoints.list(job.id).data) > 1, 60)
    live.kill()
    assert live.start() < 10
    done = ended(live.client(), job.id)
    assert done.status == "succeeded", done.error
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
    assert sum("worker was lost" in m or "worker ended" in m for m in messages) <= 1


def test_a_stopped_worker_is_replaced_and_cannot_write_when_it_wakes(live: LiveService, tmp_path: Path) -> None:
    import subprocess
    import sys

    client = live.client()
    job = submit(client, rows=400, training={"epochs": 40, "checkpoint_steps": 20})
    child = wait(lambda: [p for p in live.processes() if "execute" in p.cmdline()], 60)[0]
    worker = live.role("worker")
    stop_process(worker)
    command = [sys.executable, "-m", "service.cli", "worker", "--data-dir", str(live.data_dir)]
    with (tmp_path / "second.log").open("w") as log:
        second = subprocess.Popen(command, env=live.environment, stdout=log, stderr=log)
    try:
        wait(lambda: not child.is_running() or child.status() == "zombie", 40)  # killed before the job moves on
        worker.resume()
        done = ended(client, job.id)
        assert done.status == "succeeded", done.error
        wait(lambda: not worker.is_running() or worker.status() == "zombie", 20)
        events = [e.message for e in client.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert sum(message.startswith("New fine-tuned model") for message in events) == 1
        assert sum(each.id.endswith(job.id.removeprefix("ftjob-")[:12]) for each in client.models.list()) == 1
    finally:
        second.terminate()
        second.wait(timeout=60)


def test_two_processes_train_one_job_and_die_with_their_worker(live: LiveService) -> None:
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 30, "processes": 2, "checkpoint_steps": 20})
    ranks = wait(lambda: [p for p in live.processes() if "finetune" in p.cmdline()][:2], 60)
    wait(lambda: len(client.fine_tuning.jobs.checkpoints.list(job.id).data) > 0, 60)
    live.role("worker").kill()
    wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in ranks), 15)
    done = ended(client, job.id, 120)
    assert done.status == "succeeded", done.error


def test_sigterm_drains(live: LiveService) -> None:
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 30, "checkpoint_steps": 1000})
    wait(lambda: client.fine_tuning.jobs.retrieve(job.id).model_extra["steps_completed"], 60)  # type: ignore[index]
    assert live.stop() == 0
    live.start()
    done = ended(live.client(), job.id)
    assert done.status == "succeeded", done.error
