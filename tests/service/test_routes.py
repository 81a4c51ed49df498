"""The API without a worker: objects, lists, errors, who may do what."""

from __future__ import annotations

import asyncio
import io
import time
from typing import Any

import pytest

from service.keys import find_caller, revoke
from service.routes import stream
from tests.service.conftest import Service

DATA = b'{"text": "a", "label": "x"}\n'


def upload(service: Service, content: bytes = DATA, name: str = "train.jsonl", **options: Any) -> Any:
    files = {"file": (name, io.BytesIO(content))}
    return service.api.post(
        "/v1/files", files=files, data={"purpose": "fine-tune"} | options.pop("data", {}), **options
    )


def submit(service: Service, **changes: Any) -> Any:
    body = {"model": "sentence-transformers/all-MiniLM-L6-v2", "training_file": upload(service).json()["id"]}
    return service.api.post("/v1/fine_tuning/jobs", json=body | changes)


def error_of(response: Any) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


# ---- everything


def test_every_answer_has_an_id_and_limits(service: Service) -> None:
    found = service.api.get("/v1/files")
    assert found.headers["x-request-id"].startswith("req_")
    assert int(found.headers["x-ratelimit-remaining-requests"]) < int(found.headers["x-ratelimit-limit-requests"])
    assert found.headers["x-ratelimit-reset-requests"].endswith("ms")


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer rsk_wrong"}, {"Authorization": "Basic x"}])
def test_without_a_good_key_nothing_is_shown(service: Service, header: dict[str, str]) -> None:
    service.api.headers.clear()
    for path in ("/v1/files", "/metrics", "/openapi.json", "/v1/nothing"):
        found = service.api.get(path, headers=header)
        assert found.status_code == 401, path
        assert error_of(found)["code"] == "invalid_api_key"
    for path in ("/healthz", "/readyz"):
        assert service.api.get(path, headers={}).status_code == 200


def test_a_revoked_key_stops_working_within_a_second(service: Service) -> None:
    assert service.api.get("/v1/files").status_code == 200
    with service.database.writing() as session:
        caller = find_caller(session, service.key)
        assert caller is not None
        revoke(session, caller.key_id)
    time.sleep(0.6)
    assert service.api.get("/v1/files").status_code == 401


def test_a_stream_ends_with_its_key(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_S", 0.01)
    with service.database.writing() as session:
        caller = find_caller(session, service.key)
    assert caller is not None
    job = submit(service).json()["id"]
    context = service.api.app.state.context  # type: ignore[attr-defined]

    async def follow() -> list[str]:
        seen = []
        async for message in stream._events(context, caller, job, 0):
            seen.append(message)
            with service.database.writing() as session:
                revoke(session, caller.key_id)
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 10))  # it would go on until the job ends


def test_another_host_is_refused(service: Service) -> None:
    found = service.api.get("/healthz", headers={"Host": "evil.example"})
    assert (found.status_code, error_of(found)["code"]) == (400, "invalid_host")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_path"),
        ("PATCH", "/v1/files", 405, "method_not_allowed"),
        ("GET", "/v1/files/file-none", 404, "file_not_found"),
        ("GET", "/v1/fine_tuning/jobs/ftjob-none", 404, "fine_tune_not_found"),
        ("POST", "/v1/fine_tuning/jobs/ftjob-none/cancel", 404, "fine_tune_not_found"),
        ("GET", "/v1/batches/batch_none", 404, "batch_not_found"),
        ("GET", "/v1/models/ft:none", 404, "model_not_found"),
        ("GET", "/v1/comparisons/cmp_none", 404, "comparison_not_found"),
        ("GET", "/v1/looks/check_none", 404, "look_not_found"),
        ("POST", "/v1/looks/probe_none/cancel", 404, "look_not_found"),
        ("POST", "/v1/data/check", 400, "invalid_value"),
        ("POST", "/v1/estimates", 400, "invalid_value"),
        ("POST", "/v1/explanations", 400, "invalid_value"),
        ("GET", "/v1/files?limit=0", 400, "invalid_value"),
        ("GET", "/v1/files?after=file-none", 400, "invalid_value"),
        ("POST", "/v1/fine_tuning/jobs", 400, "invalid_value"),
        ("POST", "/v1/batches", 400, "invalid_value"),
    ],
)
def test_every_refusal_has_the_one_shape(service: Service, method: str, path: str, status: int, code: str) -> None:
    found = service.api.request(method, path)
    assert found.status_code == status, found.text
    assert error_of(found)["code"] == code


def test_a_scope_that_is_missing_is_named(service: Service) -> None:
    headers = service.caller("one", scopes=["models:read"])
    found = service.api.post("/v1/fine_tuning/jobs", json={"model": "m", "training_file": "f"}, headers=headers)
    assert found.status_code == 403
    assert "jobs:write" in error_of(found)["message"]
    assert service.api.get("/metrics", headers=headers).status_code == 403
    assert service.api.get("/metrics", headers=service.caller("one", scopes=["admin"])).status_code == 200


# ---- files


def test_a_file_comes_back_as_it_was(service: Service) -> None:
    content = bytes(range(256)) * 5000
    made = upload(service, content, "C:\\Users\\me\\..\\secret/../data.bin").json()
    assert made["filename"] == "data.bin"
    assert made["bytes"] == len(content)
    found = service.api.get(f"/v1/files/{made['id']}/content")
    assert found.content == content
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-disposition"].startswith("attachment")
    assert service.api.get(f"/v1/files/{made['id']}").json() == made


def test_files_are_listed_in_pages_and_a_deleted_cursor_still_works(service: Service) -> None:
    ids = [upload(service, bytes([n])).json()["id"] for n in range(5)][::-1]
    first = service.api.get("/v1/files?limit=2").json()
    assert [each["id"] for each in first["data"]] == ids[:2]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[0], ids[1], True)
    assert service.api.delete(f"/v1/files/{ids[1]}").json()["deleted"]
    second = service.api.get(f"/v1/files?limit=2&after={ids[1]}").json()
    assert [each["id"] for each in second["data"]] == ids[2:4]
    rising = service.api.get("/v1/files?order=asc").json()
    assert [each["id"] for each in rising["data"]] == [ids[n] for n in (4, 3, 2, 0)]
    empty = service.api.get("/v1/files?purpose=batch").json()
    assert (empty["data"], empty["first_id"], empty["has_more"]) == ([], None, False)


def test_the_same_content_is_kept_once(service: Service) -> None:
    one, two = (upload(service).json()["id"] for _ in range(2))
    assert len(list(service.settings.data_dir.glob("tenants/*/files/*"))) == 1
    service.api.delete(f"/v1/files/{one}")
    assert service.api.get(f"/v1/files/{two}/content").content == DATA
    service.api.delete(f"/v1/files/{two}")
    assert service.api.get(f"/v1/files/{two}").status_code == 404


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "theft"}, "purpose"),
        ({"colour": "red"}, "colour"),
        ({"expires_after[anchor]": "yesterday", "expires_after[seconds]": "3600"}, "expires_after[anchor]"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "expires_after[seconds]"),
    ],
)
def test_a_form_that_is_wrong(service: Service, form: dict[str, str], param: str) -> None:
    found = upload(service, data=form)
    assert found.status_code == 400
    assert error_of(found)["param"] == param
    assert not list(service.settings.data_dir.glob("tenants/*/files/*"))


def test_an_upload_over_the_limit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.body_limit.FORM_BYTES", -(service.settings.limits.upload_mib << 20) + 1000)
    found = upload(service, b"x" * 2000)
    assert found.status_code == 413
    assert error_of(found)["code"] == "file_too_large"

    def chunks() -> Any:  # without a declared length
        yield b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\n'
        yield b"x" * 5000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    found = service.api.post("/v1/files", content=chunks(), headers=headers)
    assert found.status_code == 413, found.text


def test_a_full_disk_is_507_and_leaves_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.files.RESERVE", 1 << 60)
    found = upload(service)
    assert found.status_code == 507
    assert found.headers["x-should-retry"] == "false"
    assert not list(service.settings.data_dir.glob("tenants/*/files/*"))


def test_an_expired_file_is_gone(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    made = upload(service, data=data).json()
    assert made["expires_at"] - made["created_at"] in (3600, 3601)
    later = time.time() + 4000
    monkeypatch.setattr("service.files.time.time", lambda: later)
    assert service.api.get(f"/v1/files/{made['id']}").status_code == 404


# ---- jobs


def test_a_job_has_every_field(service: Service) -> None:
    job = submit(service, suffix="brand", metadata={"client": "a"}, hyperparameters={"n_epochs": 2}).json()
    assert job["status"] == "queued"
    assert job["object"] == "fine_tuning.job"
    assert job["organization_id"] == "one"
    assert job["hyperparameters"] == {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert job["method"]["supervised"]["hyperparameters"] == job["hyperparameters"]
    for name in ("finished_at", "fine_tuned_model", "error", "estimated_finish", "labels", "baseline"):
        assert job[name] is None
    assert service.api.get(f"/v1/fine_tuning/jobs/{job['id']}").json() == job | {"queue_depth": 0}
    service.api.post("/v1/data/columns", json={"file_id": job["training_file"]}).raise_for_status()  # another queue
    second = submit(service).json()["id"]
    assert service.api.get(f"/v1/fine_tuning/jobs/{second}").json()["queue_depth"] == 1
    events = service.api.get(f"/v1/fine_tuning/jobs/{job['id']}/events").json()
    assert [event["message"] for event in events["data"]] == ["Job is queued."]
    after = service.api.get(f"/v1/fine_tuning/jobs/{job['id']}/events?after={events['last_id']}").json()
    assert after["data"] == []  # what old clients ask for at the end
    assert service.api.get(f"/v1/fine_tuning/jobs/{job['id']}/checkpoints").json()["data"] == []
    assert service.api.get(f"/v1/fine_tuning/jobs/{job['id']}/report").status_code == 404


def test_jobs_are_found_by_metadata(service: Service) -> None:
    one = submit(service, metadata={"client": "a"}).json()
    submit(service, metadata={"client": "b"})
    found = service.api.get("/v1/fine_tuning/jobs", params={"metadata[client]": "a"}).json()
    assert [job["id"] for job in found["data"]] == [one["id"]]


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"model": "gpt-4o-mini"}, "model", "all-MiniLM-L6-v2"),
        ({"training_file": "file-none"}, "training_file", "No such file"),
        ({"validation_file": "file-none"}, "validation_file", "No such file"),
        ({"method": {"type": "dpo"}}, "method.type", "supervised"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs", "50"),
        ({"training": {"epoch": 3}}, "training.epoch", "Did you mean training.epochs?"),
        ({"training": {"epochs": 3}, "hyperparameters": {"n_epochs": 2}}, "n_epochs", "one of them"),
        ({"backbone": {"name": "/etc"}}, "backbone", "freeze or cache"),
        ({"data": {"train": "/etc/passwd"}}, "data.train", "unknown field"),
        ({"output": "/tmp/x"}, "output", "unknown field"),
        ({"start_from": "/tmp/x"}, "start_from", "unknown field"),
        ({"suffix": "a/b"}, "suffix", "pattern"),
        ({"suffix": "a\n"}, "suffix", "pattern"),
        ({"seed": "1"}, "seed", "integer"),
        ({"baselines": ["magic"]}, "baselines.0", "magic"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "512"),
        ({"integrations": [{"type": "wandb"}]}, "integrations", "none"),
        ({"training": {"processes": 1000}}, "training.processes", "at most 16"),
        ({"training": {"epochs": 10**9}}, "training.epochs", "at most 1,000"),
        ({"evaluation": {"bootstrap": 10**9}}, "evaluation.bootstrap", "at most 10,000"),
    ],
)
def test_a_request_that_cannot_be_carried_out(service: Service, changes: Any, param: str, words: str) -> None:
    found = submit(service, **changes)
    assert found.status_code == 400, found.text
    error = error_of(found)
    assert error["param"] == param
    assert words in error["message"]
    assert service.api.get("/v1/fine_tuning/jobs").json()["data"] == []


def test_invalid_json_is_said_to_be(service: Service) -> None:
    found = service.api.post("/v1/fine_tuning/jobs", content=b"{", headers={"Content-Type": "application/json"})
    assert found.status_code == 400
    assert "not valid JSON" in error_of(found)["message"]


@pytest.mark.parametrize("model", [b"a\\ud800", b"\\u0000"])
def test_strange_characters_are_a_bad_request(service: Service, model: bytes) -> None:
    content = b'{"model": "' + model + b'", "training_file": "b"}'
    found = service.api.post("/v1/fine_tuning/jobs", content=content, headers={"Content-Type": "application/json"})
    assert found.status_code == 400, found.text


def test_a_body_over_the_limit_without_a_length(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.body_limit.JSON_BYTES", 1000)
    headers = {"Content-Type": "application/json"}
    found = service.api.post("/v1/fine_tuning/jobs", content=iter([b'"' + b"x" * 5000]), headers=headers)
    assert (found.status_code, error_of(found)["code"]) == (413, "file_too_large")


def test_a_move_that_is_committed_is_answered_even_if_the_engine_is_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: str) -> None:
        raise ConnectionError("the engine's database is gone")

    job = submit(service).json()["id"]
    monkeypatch.setattr(service.engine, "stop", away)
    found = service.api.post(f"/v1/fine_tuning/jobs/{job}/cancel")
    assert (found.status_code, found.json()["status"]) == (200, "cancelled")


def test_cancel_pause_resume(service: Service) -> None:
    path = f"/v1/fine_tuning/jobs/{submit(service).json()['id']}"
    assert service.api.post(f"{path}/pause").json()["status"] == "paused"
    assert error_of(service.api.post(f"{path}/pause"))["code"] == "job_already_paused"
    assert service.engine.states([path.rsplit("/", 1)[1]]) == {path.rsplit("/", 1)[1]: "CANCELLED"}
    assert service.api.post(f"{path}/resume").json()["status"] == "queued"
    assert service.engine.states([path.rsplit("/", 1)[1]]) == {path.rsplit("/", 1)[1]: "ENQUEUED"}
    assert service.api.post(f"{path}/cancel").json()["status"] == "cancelled"
    found = service.api.post(f"{path}/cancel")
    assert found.status_code == 400
    assert error_of(found)["code"] == "job_already_finished"
    assert error_of(service.api.post(f"{path}/retry"))["code"] == "job_not_failed"


def test_what_is_refused_leaves_no_trace_in_the_engine(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the engine is gone")

    monkeypatch.setattr(service.engine.client, "enqueue_in_transaction", fail)
    found = submit(service)
    assert found.status_code == 500
    assert found.headers["x-request-id"] in error_of(found)["message"]
    assert service.api.get("/v1/fine_tuning/jobs").json()["data"] == []


# ---- the same call again


def test_a_retried_create_gives_the_first_job(service: Service) -> None:
    body = {"model": "sentence-transformers/all-MiniLM-L6-v2", "training_file": upload(service).json()["id"]}
    ids = {
        service.api.post("/v1/fine_tuning/jobs", json=body, headers={"x-stainless-retry-count": str(n)}).json()["id"]
        for n in (0, 1, 2)
    }
    assert len(ids) == 1
    other = service.api.post("/v1/fine_tuning/jobs", json=body, headers={"x-stainless-retry-count": "0"}).json()["id"]
    assert other not in ids  # a first try always makes a new one
    changed = service.api.post(
        "/v1/fine_tuning/jobs", json=body | {"seed": 5}, headers={"x-stainless-retry-count": "1"}
    ).json()["id"]
    assert changed not in ids


def test_an_idempotency_key_is_kept(service: Service) -> None:
    body = {"model": "sentence-transformers/all-MiniLM-L6-v2", "training_file": upload(service).json()["id"]}
    headers = {"Idempotency-Key": "k1"}
    ids = {service.api.post("/v1/fine_tuning/jobs", json=body, headers=headers).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    found = service.api.post("/v1/fine_tuning/jobs", json=body | {"seed": 1}, headers=headers)
    assert found.status_code == 422
    assert error_of(found)["code"] == "idempotency_key_reused"
    theirs = service.api.post(
        "/v1/files", headers=headers | service.caller("two"), files={"file": ("a", DATA)}, data={"purpose": "batch"}
    )
    assert theirs.status_code == 200  # another key's keys are its own


def test_a_retried_upload_gives_the_first_file(service: Service) -> None:
    first = upload(service).json()["id"]
    assert upload(service, headers={"x-stainless-retry-count": "1"}).json()["id"] == first
    assert upload(service).json()["id"] != first


# ---- tenants


def test_another_tenants_things_do_not_exist(service: Service) -> None:
    file = upload(service).json()["id"]
    job = submit(service).json()["id"]
    headers = service.caller("two")
    for method, path in (
        ("GET", f"/v1/files/{file}"),
        ("GET", f"/v1/files/{file}/content"),
        ("DELETE", f"/v1/files/{file}"),
        ("GET", f"/v1/fine_tuning/jobs/{job}"),
        ("POST", f"/v1/fine_tuning/jobs/{job}/cancel"),
        ("GET", f"/v1/fine_tuning/jobs/{job}/events"),
        ("GET", f"/v1/fine_tuning/jobs/{job}/stream"),
        ("GET", f"/v1/fine_tuning/jobs/{job}/report"),
    ):
        assert service.api.request(method, path, headers=headers).status_code == 404, path
    for path in ("/v1/files", "/v1/fine_tuning/jobs", "/v1/batches"):
        assert service.api.get(path, headers=headers).json()["data"] == []
    body = {"model": "sentence-transformers/all-MiniLM-L6-v2", "training_file": file}
    assert service.api.post("/v1/fine_tuning/jobs", json=body, headers=headers).status_code == 400


def test_the_api_never_imports_torch() -> None:
    import subprocess
    import sys

    code = "import sys, service.api, service.serve; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
