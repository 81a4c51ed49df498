"""What one tenant may use, and that another is not held back by it."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service import jobs, quotas
from service.database import Database, Scope
from service.errors import ApiError
from service.inference.errors import InferenceError
from service.keys import create_key
from service.quotas import CPU, ROWS, LiveRows, count, used_today
from service.reporting import Reporter
from service.routes import classify
from service.settings import ServiceLimits
from service.supervise import supervise
from tests.service.conftest import Service
from tests.service.test_routes import error_of, submit, upload


def tenant(database: Database, name: str = "agency") -> str:
    with database.writing() as session:
        return create_key(session, name, "a")[0].tenant_id


def limited(service: Service, **limits: int) -> None:
    """The API with other limits."""
    context = service.api.app.state.context  # type: ignore[attr-defined]
    settings = dataclasses.replace(context.settings, limits=ServiceLimits(**limits))
    rows = LiveRows(service.database, limits.get("tenant_rows_per_day", 0))
    service.api.app.state.context = dataclasses.replace(context, settings=settings, live_rows=rows)  # type: ignore[attr-defined]


def used(service: Service, kind: str) -> Any:
    return service.api.get("/v1/usage").json()[kind]["used"]


def test_files_that_would_be_too_many_are_refused(service: Service) -> None:
    limited(service, tenant_mib=1)
    assert upload(service, b"a" * 700_000).status_code == 200
    assert upload(service, b"a" * 700_000).status_code == 200  # the same content is kept once
    found = upload(service, b"b" * 700_000)
    assert (found.status_code, error_of(found)["code"]) == (403, "quota_exceeded")
    assert "1 MiB of files may be kept; delete some" in error_of(found)["message"]
    assert used(service, "bytes") == 700_000
    assert len(list(service.settings.data_dir.glob("tenants/*/files/*"))) == 1  # nor does it stay on the disk
    for file in service.api.get("/v1/files").json()["data"]:
        service.api.delete(f"/v1/files/{file['id']}")
    assert upload(service, b"b" * 700_000).status_code == 200


def test_jobs_that_would_be_too_many_are_refused_and_others_are_not_held_back(service: Service) -> None:
    limited(service, tenant_jobs=2)
    first, _ = submit(service), submit(service)
    found = submit(service)
    assert (found.status_code, error_of(found)["code"]) == (403, "quota_exceeded")
    theirs = service.caller("two")
    body = {
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "training_file": upload(service, headers=theirs).json()["id"],
    }
    assert service.api.post("/v1/fine_tuning/jobs", json=body, headers=theirs).status_code == 200
    path = f"/v1/fine_tuning/jobs/{first.json()['id']}"
    service.api.post(f"{path}/pause")
    assert submit(service).status_code == 200
    assert error_of(service.api.post(f"{path}/resume"))["code"] == "quota_exceeded"


@pytest.mark.parametrize(("kind", "limit"), [(ROWS, "tenant_rows_per_day"), (CPU, "tenant_cpu_s_per_day")])
def test_what_a_day_allows_is_used_up(service: Service, kind: str, limit: str) -> None:
    limited(service, **{limit: 100})
    with service.database.writing() as session:
        own = create_key(session, "one", "b")[0].tenant_id
        count(session, own, kind, 60)
    assert submit(service).status_code == 200
    with service.database.writing() as session:
        count(session, own, kind, 40)
    found = submit(service)
    assert (found.status_code, error_of(found)["code"]) == (403, "quota_exceeded")
    assert "go on tomorrow (UTC)" in error_of(found)["message"]
    assert service.api.get("/v1/usage").json()[kind] == {"used": 100.0, "limit": 100}


def test_without_limits_nothing_is_refused(service: Service) -> None:
    with service.database.writing() as session:
        count(session, create_key(session, "one", "b")[0].tenant_id, ROWS, 1e12)
    assert submit(service).status_code == 200
    assert service.api.get("/v1/usage").json()[ROWS] == {"used": 1e12, "limit": None}


def test_amounts_add_up_by_tenant_and_day(either: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tenant(either, "one"), tenant(either, "two")
    for amount in (1.5, 2.0):
        with either.writing() as session:
            count(session, one, CPU, amount)
    with either.reading() as session:
        assert used_today(Scope(session, one), CPU) == 3.5
        assert used_today(Scope(session, two), CPU) == 0
        monkeypatch.setattr(quotas, "_today", lambda: quotas.date(2999, 1, 1))
        assert used_today(Scope(session, one), CPU) == 0


def test_rows_of_a_batch_count_once_however_often_they_are_told(either: Database) -> None:
    own = tenant(either)
    with either.writing() as session:
        job = jobs.create(Scope(session, own), "table", {}, {})
        claimed = jobs.claim(session, job.id, "w1", "running")
    assert claimed is not None
    for rows in (10, 25, 25):
        told = {"event": "rows", "rows": rows, "errors": 0, "rows_per_second": 1.0, "remaining_s": None}
        Reporter(either, claimed).line(json.dumps(told))
    with either.reading() as session:
        assert used_today(Scope(session, own), ROWS) == 25


def test_live_rows_are_counted_at_once_and_written_later(either: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tenant(either)
    rows = LiveRows(either, 10)

    def written() -> float:
        with either.reading() as session:
            return used_today(Scope(session, own), ROWS)

    rows.take(own, 6)
    assert written() == 0
    with pytest.raises(ApiError) as refused:
        rows.take(own, 5)
    assert refused.value.code == "quota_exceeded"
    rows.flush()
    rows.take(own, 4)
    assert written() == 6
    with pytest.raises(ApiError):
        rows.take(own, 1)
    rows.give_back(own, 4)
    rows.take(own, 4)
    monkeypatch.setattr(quotas, "_today", lambda: quotas.date(2999, 1, 1))
    rows.take(own, 10)  # another day
    rows.close()
    assert written() == 10
    monkeypatch.undo()
    assert written() == 10
    again = LiveRows(either, 10)  # another process
    with pytest.raises(ApiError):
        again.take(own, 1)


def test_rows_that_cannot_be_written_are_written_later(either: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    own, rows = tenant(either), LiveRows(either, 0)

    def full(*_: object) -> None:
        raise OperationalError("insert", {}, Exception("database or disk is full"))

    rows.take(own, 3)
    with monkeypatch.context() as patch:
        patch.setattr(quotas, "count", full)
        rows.flush()
        rows.take(own, 4)
    rows.flush()
    with either.reading() as session:
        assert used_today(Scope(session, own), ROWS) == 7


def test_calls_that_are_not_answered_cost_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object) -> None:
        raise InferenceError("overloaded", "too many calls")

    limited(service, tenant_rows_per_day=2)
    monkeypatch.setattr(service.api.app.state.context.inference, "classify", busy)  # type: ignore[attr-defined]
    monkeypatch.setattr(classify, "the_model", lambda *_: None)
    monkeypatch.setattr(classify, "folder_of", lambda *_: Path("model"))
    for _ in range(3):
        found = service.api.post("/v1/classify", json={"model": "m", "input": ["a", "b"]})
        assert found.status_code == 429, found.text
    found = service.api.post("/v1/classify", json={"model": "m", "input": ["a", "b", "c"]})
    assert (found.status_code, error_of(found)["code"]) == (403, "quota_exceeded")


def test_processor_time_of_a_child_and_its_children_is_known(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    ended = supervise([sys.executable, "-c", code], {}, tmp_path, lambda _: None, lambda _: None, lambda: False)
    assert 0.5 <= ended.cpu_s < 10
