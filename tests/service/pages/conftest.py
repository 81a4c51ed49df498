"""A browser that is signed in, without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from pipelines.weights import sha256_file
from service import jobs
from service.database import Scope
from service.files import delete_file, get_file
from service.keys import find_caller
from service.models import add_model
from service.tables import Job, Model
from tests.service.conftest import Service

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@dataclass
class Browser:
    """Reads pages and sends their forms."""

    http: httpx.Client
    service: Service

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.http.get(path, **options)

    def read(self, path: str) -> str:
        found = self.get(path)
        assert found.status_code == 200, found.text
        return found.text

    def token(self) -> str:
        match = re.search(r'name="token" value="([^"]+)"', self.read("/"))
        assert match is not None
        return match[1]

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
        """Send a form as the page has it."""
        return self.http.post(path, data={"token": self.token()} | (data or {}), **options)

    @property
    def tenant(self) -> str:
        with self.service.database.reading() as session:
            caller = find_caller(session, self.service.key)
        assert caller is not None
        return caller.tenant_id

    def job(self, status: str = "queued", kind: jobs.Kind = "check", **request: Any) -> str:
        """Id of a job in a state, as workers would leave it."""
        asked = {"model": "m", "training_file": "file-none", "suffix": None, "data": {}} | request
        with self.service.database.writing() as session:
            job = jobs.create(Scope(session, self.tenant), kind, asked, {})
            job.status = status
            return job.id

    def change(self, job_id: str, **values: Any) -> None:
        with self.service.database.writing() as session:
            job = Scope(session, self.tenant).get(Job, job_id)
            assert job is not None
            for name, value in values.items():
                setattr(job, name, value)

    def model_of(self, job_id: str) -> str:
        """Id of the model that a job made."""
        with self.service.database.reading() as session:
            return session.scalars(Scope(session, self.tenant).select(Model).where(Model.job_id == job_id)).one().id

    def delete_output(self, job_id: str) -> None:
        """Delete the file that a batch has made."""
        with self.service.database.writing() as session:
            scope = Scope(session, self.tenant)
            job = scope.get(Job, job_id)
            assert job is not None
            assert job.result is not None
            file = get_file(scope, job.result["output_file_id"])
            assert file is not None
            delete_file(scope, file)


def with_model(browser: Browser, suffix: str | None = "brand", labels: tuple[str, ...] = ("a", "b")) -> str:
    """Job id of a finished model."""
    job_id = browser.job("succeeded", "fine-tune", suffix=suffix, start_from=None, config={"task": "t"})
    with browser.service.database.writing() as session:
        scope = Scope(session, browser.tenant)
        job = scope.get(Job, job_id)
        assert job is not None
        add_model(scope, job, f"ft:base:one:{suffix}:{job_id[-12:]}", "base/model", suffix, list(labels))
    folder = browser.service.settings.tenant_dir(browser.tenant) / "models" / job_id
    folder.mkdir(parents=True)
    system = {"name": "fine-tuned", "metrics": {"macro_f1": 0.8123, "macro_f1_ci": [0.75, 0.87], "accuracy": 0.9}}
    report = {"verdict": {"sentence": f"Worth it {HOSTILE}"}, "systems": [system], "main": "fine-tuned", "n_test": 100}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "report.html").write_text("<p>the report</p>", encoding="utf-8")
    tenant = browser.service.settings.tenant_dir(browser.tenant)
    (folder / "config.yaml").write_text(f"task: {HOSTILE}\ntrain: {tenant}/jobs/x/plan/train.jsonl", encoding="utf-8")
    files = {path.name: sha256_file(path) for path in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"sha256": files}), encoding="utf-8")
    return job_id


@pytest.fixture
def browser(service: Service) -> Iterator[Browser]:
    service.api.headers.pop("Authorization")
    app = service.api.app
    with TestClient(app, "http://127.0.0.1", follow_redirects=False, raise_server_exceptions=False) as http:
        assert http.post("/login", data={"key": service.key}).status_code == 303
        yield Browser(http, service)
