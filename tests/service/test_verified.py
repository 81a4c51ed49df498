"""What is served has the bytes that were written, or is not served."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from pipelines.durable import publish
from pipelines.weights import sha256_file
from service import jobs
from service.database import Scope
from service.files import get_file, path_of
from service.kinds.base import Gone, Task
from service.tables import Job, Key
from service.verified import KNOWN_S, is_intact
from tests.service.conftest import Service


def damage(path: Path) -> None:
    """One bit, of a file that somebody has written to."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_a_bit_that_the_disk_has_lost_is_found_within_the_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"content")
    before, digest = path.stat(), sha256_file(path)
    assert is_intact(path, digest)
    damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    later = time.monotonic() + KNOWN_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert not is_intact(path, digest)


def test_a_damaged_upload_is_neither_served_nor_trained_on(service: Service) -> None:
    made = service.api.post("/v1/files", files={"file": ("a.csv", b"text,label")}, data={"purpose": "fine-tune"}).json()
    with service.database.writing() as session:
        scope = Scope(session, session.query(Key.tenant_id).scalar())
        file = get_file(scope, made["id"])
        job = jobs.create(scope, "fine-tune", {}, {})
    assert file is not None
    task = Task(service.settings, service.database, job, Path("home"), Path("folder"))
    assert task.upload(made["id"]) is not None
    assert service.api.get(f"/v1/files/{made['id']}/content").content == b"text,label"
    damage(path_of(service.settings, file))
    found = service.api.get(f"/v1/files/{made['id']}/content")
    assert found.status_code == 500
    assert found.json()["error"]["code"] == "artifact_damaged"
    assert found.headers["x-should-retry"] == "false"
    with pytest.raises(Gone, match="damaged"):
        task.upload(made["id"])


def test_a_damaged_report_is_not_served(service: Service, tmp_path: Path) -> None:
    with service.database.writing() as session:
        job = jobs.create(Scope(session, session.query(Key.tenant_id).scalar()), "fine-tune", {}, {})
        job.status = "succeeded"
    folder = service.settings.tenant_dir(job.tenant_id) / "models" / job.id
    folder.parent.mkdir(parents=True)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "report.json").write_text('{"main": "x"}', encoding="utf-8")
    publish(tmp_path / "made", folder, {})
    address = f"/v1/fine_tuning/jobs/{job.id}/report"
    assert service.api.get(address).json() == {"main": "x"}
    damage(folder / "report.json")
    assert service.api.get(address).json()["error"]["code"] == "artifact_damaged"
    (folder / "manifest.json").unlink()
    assert service.api.get(address).status_code == 500
    with service.database.reading() as session:
        assert session.get(Job, job.seq) is not None


def test_a_file_that_is_not_there_is_not_intact(tmp_path: Path) -> None:
    assert not is_intact(tmp_path / "nothing", "00")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").write_text("a")
    publish(tmp_path / "made", tmp_path / "out", {})
    digest = json.loads((tmp_path / "out" / "manifest.json").read_text())["sha256"]["a"]
    assert is_intact(tmp_path / "out" / "a", digest)
