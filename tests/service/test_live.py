"""The whole service, as users have it: real processes, the unmodified clients, SQLite and PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.live import (
    QUICK,
    ROOT,
    LiveService,
    arguments,
    batch_lines,
    chat_lines,
    ended,
    lives,
    running,
    submit,
    wait,
)
from tests.service.postgres import database_url
from tests.toys import toy_rows

pytestmark = pytest.mark.slow
# Of what asks little of a database.
on_sqlite = pytest.mark.parametrize("live", ["sqlite"], indirect=True, scope="module")
OTHER_OPENAI = "1.109.1"  # the last of another major version; it cannot stand in the constraints beside the first


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


@on_sqlite
def test_chat_completions_answer_with_the_label(live: LiveService, model: str) -> None:
    messages: Any = [{"role": "user", "content": "the cat sleeps kindly"}]
    reply = live.client().chat.completions.create(
        model=model, messages=messages, logprobs=True, top_logprobs=2, temperature=0
    )
    assert reply.choices[0].message.content in ("calm", "harsh")
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs.content is not None
    assert len(reply.choices[0].logprobs.content[0].top_logprobs) == 2


@on_sqlite
def test_hugging_faces_client_classifies(live: LiveService, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import InferenceClient

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this is no hub
    client = InferenceClient(model=f"{live.url}/hf/models/{model}", token=live.key)
    found = client.text_classification("the cat sleeps kindly", top_k=2)
    assert {each.label for each in found} == {"calm", "harsh"}
    assert sum(each.score for each in found) == pytest.approx(1, abs=1e-4)


@on_sqlite
@pytest.mark.parametrize("version", [None, OTHER_OPENAI])
def test_the_script_of_the_readme(live: LiveService, version: str | None, tmp_path: Path) -> None:
    """Unmodified but for address, key, backbone and the shortest training, with two major versions of the client."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = next(part for part in readme.split("```python\n")[1:] if "from openai" in part).split("```")[0]
    for old, new in (
        ("http://127.0.0.1:8080", live.url),
        ("rsk_...", live.key),
        ("sentence-transformers/all-MiniLM-L6-v2", "toy"),
        ('suffix="brand"', f'suffix="brand", extra_body={QUICK!r}'),
    ):
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "train.jsonl").write_bytes(chat_lines(60))
    (tmp_path / "texts.txt").write_text("the cat sleeps kindly\nthe dog waits rudely\n", encoding="utf-8")
    environment = os.environ | ({"PYTHONPATH": str(_other_client(version, tmp_path))} if version else {})
    check = "import openai; print(openai.__version__)\n"
    command = [sys.executable, "-c", check + script]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    assert version is None or ran.stdout.startswith(version)
    answers = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    assert [answer["custom_id"] for answer in answers] == ["0", "1"]
    assert {answer["response"]["body"]["data"][0]["label"] for answer in answers} <= {"calm", "harsh"}


def _other_client(version: str, folder: Path) -> Path:
    """Another version of the package `openai`, beside the installed one."""
    target = folder / "packages"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        f"openai=={version}",
        "distro",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if ran.returncode:
        message = f"openai {version} cannot be installed here: {ran.stderr[-300:]}"
        (pytest.fail if os.environ.get("ROOTSTOCK_REQUIRE_CLIENTS") == "1" else pytest.skip)(message)
    return target


def rootstock(live: LiveService, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The client's commands."""
    own = {"ROOTSTOCK_URL": live.url, "ROOTSTOCK_API_KEY": live.key, "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True, timeout=180)


@on_sqlite
def test_the_command_line_submits_follows_and_shows_the_report(live: LiveService, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(chat_lines(60))
    sections = QUICK | {"task": "text-classification", "backbone": {"name": "toy", "freeze": 1}}
    (tmp_path / "my.yaml").write_text(json.dumps(sections), encoding="utf-8")
    ran = rootstock(live, tmp_path, "jobs", "submit", "my.yaml", "--data", "train.jsonl", "--suffix", "cli", "--follow")
    assert ran.returncode == 0, ran.stderr
    id, *report = ran.stdout.splitlines()
    assert id.startswith("ftjob-")
    assert any(line.startswith("fine-tuned ") for line in report)
    assert "60 rows of chat JSONL" in ran.stderr
    assert id in rootstock(live, tmp_path, "jobs", "list").stdout
    assert json.loads(rootstock(live, tmp_path, "jobs", "show", id).stdout)["status"] == "succeeded"
    assert "fine-tuned" in rootstock(live, tmp_path, "jobs", "report", id).stdout
    again = rootstock(live, tmp_path, "jobs", "cancel", id)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"error: Job {id} has already ended: it succeeded\n"


@on_sqlite
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("files", "upload", "none.jsonl"), "none.jsonl: No such file or directory"),
        (("jobs", "show", "ftjob-none"), "No such fine-tuning job: 'ftjob-none'"),
        (("jobs", "submit", "none.yaml"), "none.yaml: no such config file"),
    ],
)
def test_a_command_that_cannot_be_carried_out(
    live: LiveService, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = rootstock(live, tmp_path, *arguments)
    assert ran.returncode in (1, 2)
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


@on_sqlite
def test_a_port_or_a_directory_that_is_taken(live: LiveService, tmp_path: Path) -> None:
    ran = rootstock(live, tmp_path, "serve", "--port", str(live.port), "--data-dir", str(tmp_path / "other"))
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "choose another with --port" in ran.stderr
    ran = rootstock(live, tmp_path, "serve", "--port", "0", "--data-dir", str(live.data_dir))
    assert ran.returncode == 1
    assert "another `rootstock serve` uses this directory" in ran.stderr
    ran = rootstock(live, tmp_path, "serve", "--host", "0.0.0.0")
    assert ran.returncode == 2
    assert "a proxy with TLS" in ran.stderr


def test_keys_are_made_listed_and_revoked(live: LiveService, tmp_path: Path) -> None:
    import httpx

    environment = live.environment | {"PYTHONPATH": str(ROOT)}

    def keys(*arguments: str) -> str:
        command = [sys.executable, "-m", "service.cli", "keys", *arguments, "--data-dir", str(live.data_dir)]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    text = keys("create", "--tenant", "agency", "--name", "laptop", "--scope", "models:read", "--days", "1")
    headers = {"Authorization": f"Bearer {text}"}
    assert httpx.get(f"{live.url}/v1/models", headers=headers).status_code == 200
    own = next(key for key in json.loads(keys("list", "--json")) if key["tenant"] == "agency")
    assert text not in keys("list", "--json")
    keys("revoke", own["id"])
    wait(lambda: httpx.get(f"{live.url}/v1/models", headers=headers).status_code == 401, 1.5)


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


@on_sqlite
def test_models_are_compared_on_a_file(live: LiveService, model: str) -> None:
    client = live.client()
    rows = "".join(json.dumps({"text": r["text"], "label": r["label"]}) + "\n" for r in toy_rows(60, seed=9))
    file = client.files.create(file=("held-out.jsonl", rows.encode()), purpose="user_data")
    with live.http() as http:
        made = http.post("/v1/comparisons", json={"models": [model], "file_id": file.id}).json()
        done = wait(lambda: (c := http.get(f"/v1/comparisons/{made['id']}").json())["finished_at"] and c, 60)
        assert done["status"] == "succeeded", done["error"]
        assert http.get(f"/v1/comparisons/{made['id']}/report").json()["verdict"]["sentence"] == done["verdict"]


@on_sqlite
def test_looks_before_and_after_training(live: LiveService, model: str) -> None:
    client = live.client()
    doubled = chat_lines(60) + chat_lines(60)[: chat_lines(60).index(b"\n") + 1]
    file = client.files.create(file=("train.jsonl", doubled), purpose="fine-tune").id
    job = {"model": "toy", "training_file": file, "training": {"epochs": 1}, "evaluation": {"bootstrap": 100}}
    text = {"model": model, "input": "the cat sleeps cruelly"}
    asked = [
        ("/v1/data/check", job, "data.check", "duplicates", True),
        ("/v1/probes", job, "probe", "layers frozen", True),
        ("/v1/estimates", job, "estimate", "MiB of memory", False),
        ("/v1/explanations", text, "explanation", "in 1 of 1 texts", True),
    ]
    with live.http() as http:
        for path, body, kind, told, paged in asked:
            made = http.post(path, json=body).json()
            assert made["object"] == kind, made
            done = wait(lambda id=made["id"]: (c := http.get(f"/v1/looks/{id}").json())["finished_at"] and c, 120)
            assert done["status"] == "succeeded", done["error"]
            assert told in done["sentence"]
            report = f"/v1/looks/{made['id']}/report"
            assert http.get(report).json()["sentence"] == done["sentence"]
            page = http.get(report, headers={"Accept": "text/html"})
            assert "sandbox" in page.headers["content-security-policy"]
            assert ("<h1>" in page.text) == paged


@on_sqlite
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


@on_sqlite
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_table_is_classified_as_it_is(live: LiveService, model: str, format: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table({"n": [1, 2, 3], "body": ["the cat sleeps kindly", "", "the dog waits rudely"]})
    path, module = tmp_path / f"rows.{format}", getattr(pa, format)
    (module.write_csv if format == "csv" else module.write_table)(table, path)
    client = live.client()
    file = client.files.create(file=path, purpose="batch")
    options: Any = {"endpoint": "/v1/classify", "completion_window": "24h"}
    batch = client.batches.create(input_file_id=file.id, extra_body={"model": model, "text": "body"}, **options)
    batch = wait(lambda: (b := client.batches.retrieve(batch.id)).status in ("completed", "failed") and b, 60)
    assert batch.status == "completed", batch.errors
    assert (batch.request_counts.total, batch.request_counts.failed) == (3, 1)
    made = tmp_path / f"made.{format}"
    made.write_bytes(client.files.content(batch.output_file_id).content)
    found = module.read_csv(made) if format == "csv" else module.read_table(made)
    assert found.column_names[:3] == ["n", "body", "predicted_label"]
    assert found["n"].to_pylist() == [1, 2, 3]
    error = json.loads(client.files.content(batch.error_file_id).text)
    assert (error["row"] if format == "parquet" else error["line"] - 1) == 2
    refused = client.batches.create(input_file_id=file.id, extra_body={"model": model, "text": "words"}, **options)
    refused = wait(lambda: (b := client.batches.retrieve(refused.id)).status == "failed" and b, 60)
    assert "columns found: 'n', 'body'" in refused.errors.data[0].message


@on_sqlite
def test_what_people_wait_for_is_not_behind_a_training(live: LiveService) -> None:
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 200, "checkpoint_steps": 20})
    try:
        wait(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "running", 60)
        with live.http() as http:
            look = http.post("/v1/data/columns", json={"file_id": job.training_file}).json()
            found = wait(lambda: (r := http.get(f"/v1/looks/{look['id']}").json())["finished_at"] and r, 60)
            assert found["status"] == "succeeded", found["error"]
            assert http.get(f"/v1/looks/{look['id']}/report").json()["columns"] == ["messages"]
        assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    finally:
        client.fine_tuning.jobs.cancel(job.id)
        wait(lambda: not client.fine_tuning.jobs.retrieve(job.id).model_extra["stopping"], 60)  # type: ignore[index]


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
    assert not any("service.child" in " ".join(arguments(p)) for p in live.processes())


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
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 80, "checkpoint_steps": 20})
    child = wait(lambda: [p for p in live.processes() if "execute" in arguments(p)], 60)[0]
    worker = live.role("worker")
    live.stop_between_writes(worker)
    command = [sys.executable, "-m", "service.cli", "worker", "--data-dir", str(live.data_dir)]
    said = tmp_path / "second.log"
    with said.open("w") as log:
        second = subprocess.Popen(command, env=live.environment, stdout=log, stderr=log)
    try:
        wait(lambda: not lives(child.pid), 40)  # killed before the job moves on
        assert "is dead" in said.read_text(), "the child ended by itself: nobody has taken the job over"
        worker.resume()
        done = ended(client, job.id, 180)
        assert done.status == "succeeded", done.error
        wait(lambda: not lives(worker.pid), 20)
        events = [e.message for e in client.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert sum(message.startswith("New fine-tuned model") for message in events) == 1
        assert sum(each.id.endswith(job.id.removeprefix("ftjob-")[:12]) for each in client.models.list()) == 1
    finally:
        second.terminate()
        second.wait(timeout=60)


def test_two_processes_train_one_job_and_die_with_their_worker(live: LiveService) -> None:
    client = live.client()
    job = submit(client, rows=400, training={"epochs": 30, "processes": 2, "checkpoint_steps": 20})
    ranks = wait(lambda: [p for p in live.processes() if "finetune" in arguments(p)][:2], 60)
    wait(lambda: len(client.fine_tuning.jobs.checkpoints.list(job.id).data) > 0, 60)
    live.role("worker").kill()
    wait(lambda: not any(lives(p.pid) for p in ranks), 15)
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
