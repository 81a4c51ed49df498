"""A browser that is signed in, without a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from service import jobs
from service.database import Scope
from service.keys import find_caller
from service.tables import Job
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


@pytest.fixture
def browser(service: Service) -> Iterator[Browser]:
    service.api.headers.pop("Authorization")
    app = service.api.app
    with TestClient(app, "http://127.0.0.1", follow_redirects=False, raise_server_exceptions=False) as http:
        assert http.post("/login", data={"key": service.key}).status_code == 303
        yield Browser(http, service)
