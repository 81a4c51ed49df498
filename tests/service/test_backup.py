"""A backup of a running service is whole, and a service made of it has everything."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from pipelines.errors import RootstockError
from service import jobs
from service.api import create_app
from service.backup import LOCK, back_up, nothing_is_removed, restore
from service.database import Database, Scope
from service.engine import JobEngine, prepare_tables
from service.execution import Execution
from service.files import add_file, path_of, store
from service.inference.client import Inference
from service.keys import create_key
from service.leftovers import Leftovers
from service.settings import ServiceSettings
from service.tables import File, Job, Key, Worker
from tests.service.conftest import Service
from tests.service.live import ROOT, LiveService, ended, running, wait
from tests.service.live import submit as submit_live
from tests.service.postgres import database_url
from tests.service.test_routes import submit, upload


def moved(settings: ServiceSettings, to: Path) -> ServiceSettings:
    """Settings of another directory."""
    return dataclasses.replace(settings, data_dir=to, database_url=f"sqlite:///{to / 'rootstock.db'}")


def test_a_restored_service_has_everything(service: Service, tmp_path: Path) -> None:
    file = upload(service, b"a text").json()["id"]
    job = submit(service).json()["id"]
    manifest = back_up(service.settings, tmp_path / "backup")
    assert manifest["kind"] == "backup"
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    upload(service, b"after the backup")
    settings = moved(service.settings, tmp_path / "new")
    restore(settings, tmp_path / "backup")
    assert not (settings.data_dir / "session.key").exists()
    database = Database(settings.database_url)
    engine = JobEngine(database)
    app = create_app(settings, database, engine, Inference(tmp_path / "other"))
    with TestClient(app, "http://127.0.0.1", headers={"Authorization": f"Bearer {service.key}"}) as api:
        assert api.get(f"/v1/files/{file}/content").content == b"a text"
        assert len(api.get("/v1/files").json()["data"]) == 2  # and the one of the job
        assert api.get(f"/v1/fine_tuning/jobs/{job}").json()["status"] == "queued"
    assert engine.states([job]) == {job: "ENQUEUED"}
    engine.close()
    database.close()
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700


def test_every_file_of_the_snapshot_is_there_whatever_is_uploaded_meanwhile(service: Service, tmp_path: Path) -> None:
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            upload(service, f"text {number}".encode())
            number += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for number in range(5):
            back_up(service.settings, tmp_path / f"backup{number}")
    finally:
        done.set()
        thread.join()
    settings = moved(service.settings, tmp_path / "new")
    restore(settings, tmp_path / "backup4")
    database = Database(settings.database_url)
    with database.reading() as session:
        files = session.scalars(sa.select(File)).all()
    assert files
    assert all(path_of(settings, file).is_file() for file in files)
    database.close()


def test_nothing_is_removed_while_a_backup_is_made(service: Service) -> None:
    with service.database.writing() as session:
        tenant = create_key(session, "one", "b")[0].tenant_id
        with (service.settings.data_dir / "content").open("w+b") as content:
            file = add_file(Scope(session, tenant), store(service.settings, tenant, content), "a", "batch")
        file.deleted_at = 1.0
    leftovers = Leftovers(service.settings, service.database)
    with nothing_is_removed(service.settings):
        for _ in range(3):
            leftovers.remove()
        assert path_of(service.settings, file).exists()
    leftovers.remove()
    leftovers.remove()
    assert not path_of(service.settings, file).exists()
    assert (service.settings.data_dir / LOCK).exists()


def test_jobs_that_were_on_their_way_begin_again(service: Service, tmp_path: Path) -> None:
    job = submit(service).json()["id"]
    with service.database.writing() as session:
        session.add(Worker(boot_id="w1", host="h", pid=1, started_at=0.0, heartbeat_at=0.0))
        jobs.claim(session, job, "w1", "running")
    back_up(service.settings, tmp_path / "backup")
    settings = moved(service.settings, tmp_path / "new")
    assert restore(settings, tmp_path / "backup") == 1
    database = Database(settings.database_url)
    with database.reading() as session:
        found = session.scalars(sa.select(Job)).one()
        assert (found.status, found.owner, found.idle_attempts) == ("queued", None, 0)
        assert session.scalars(sa.select(Worker)).all() == []
    database.close()


@pytest.fixture
def backup(service: Service, tmp_path: Path) -> Path:
    upload(service)
    back_up(service.settings, tmp_path / "backup")
    return tmp_path / "backup"


def test_a_damaged_backup_is_not_restored_and_leaves_nothing(service: Service, backup: Path, tmp_path: Path) -> None:
    content = next(backup.glob("tenants/*/files/*"))
    content.write_bytes(b"x" * content.stat().st_size)
    settings = moved(service.settings, tmp_path / "new")
    with pytest.raises(RootstockError, match="was changed after it was written"):
        restore(settings, backup)
    assert not settings.data_dir.exists()


def test_what_stands_there_is_not_overwritten(service: Service, backup: Path, tmp_path: Path) -> None:
    with pytest.raises(RootstockError, match="exists already"):
        back_up(service.settings, backup)
    with pytest.raises(RootstockError, match="is not empty"):
        restore(service.settings, backup)
    with pytest.raises(RootstockError, match=r"no such directory"):
        restore(moved(service.settings, tmp_path / "new"), tmp_path / "nothing")


def test_a_backup_that_fails_leaves_nothing(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(service)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("service.backup.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        back_up(service.settings, tmp_path / "backup")
    assert not list(tmp_path.glob("*backup*"))


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[tuple[ServiceSettings, str]]:
    """Settings of a service on PostgreSQL, and the address of an empty database."""
    with database_url("postgresql") as url, database_url("postgresql") as empty:
        settings = ServiceSettings(tmp_path / "data", url)
        settings.data_dir.mkdir()
        database = Database(url)
        database.migrate()
        prepare_tables(database)
        with database.writing() as session:
            tenant = create_key(session, "one", "a")[0].tenant_id
            with (tmp_path / "content").open("w+b") as content:
                add_file(Scope(session, tenant), store(settings, tenant, content), "a.csv", "batch")
        database.close()
        yield settings, empty


def test_a_service_on_postgresql(postgresql: tuple[ServiceSettings, str], tmp_path: Path) -> None:
    settings, empty = postgresql
    back_up(settings, tmp_path / "backup")
    with pytest.raises(RootstockError, match="is not empty: it has the table"):
        restore(dataclasses.replace(settings, data_dir=tmp_path / "new"), tmp_path / "backup")
    assert not (tmp_path / "new").exists()
    restored = ServiceSettings(tmp_path / "new", empty)
    restore(restored, tmp_path / "backup")
    database = Database(empty)
    with database.reading() as session:
        (file,) = session.scalars(sa.select(File))
        assert path_of(restored, file).is_file()
    database.close()
    with pytest.raises(RootstockError, match="other kind of database"):
        restore(moved(settings, tmp_path / "third"), tmp_path / "backup")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_restored_service_finishes_what_was_on_its_way(kind: str, tmp_path: Path) -> None:
    def rootstock(of: LiveService, *arguments: str) -> str:
        command = [sys.executable, "-m", "service.cli", *arguments, "--data-dir", str(of.data_dir)]
        environment = of.environment | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with database_url(kind) as url, database_url(kind) as empty:
        with running(tmp_path / "one", database_url=url) as service:
            client = service.client()
            model = ended(client, submit_live(client, suffix="brand").id).fine_tuned_model
            job = submit_live(client, training={"epochs": 900}).id
            wait(lambda: client.fine_tuning.jobs.retrieve(job).model_extra.get("steps_completed"), 90)
            rootstock(service, "backup", "backup")
            key = service.key
        restored = LiveService(tmp_path / "two", database_url=empty)
        restored.key = key
        assert "1 jobs that were on their way begin again" in rootstock(restored, "restore", "backup")
        try:
            restored.start()
            client = restored.client()
            with restored.http() as http:
                answer = http.post("/v1/classify", json={"model": model, "input": "the cat sings softly"})
                assert answer.status_code == 200
            done = ended(client, job, 240)
            assert done.status == "succeeded", done.error
        finally:
            restored.kill()


def test_a_job_whose_work_is_not_in_the_backup_is_carried_out_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was between its work and its publication."""
    job = submit(service).json()["id"]
    with service.database.writing() as session:
        session.add(Worker(boot_id="w1", host="h", pid=1, started_at=0.0, heartbeat_at=0.0))
    execution = Execution(service.settings, service.database, service.engine, "w1")
    carried_out = []
    monkeypatch.setattr(execution, "execute", lambda id: carried_out.append(id))
    execution.publish(job, "000001")
    assert carried_out == [job]


def test_a_password_reaches_the_tools_but_not_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "pg_dump"
    tool.write_text('#!/bin/sh\necho "$@" >&2; echo "password: $PGPASSWORD" >&2; exit 1\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    settings = ServiceSettings(tmp_path / "data", "postgresql://rs:secret@db.example/rootstock")
    settings.data_dir.mkdir()
    with pytest.raises(RootstockError) as failed:
        back_up(settings, tmp_path / "backup")
    assert "--dbname=postgresql://rs@db.example/rootstock " in str(failed.value)
    assert str(failed.value).count("secret") == 1  # in the environment


def test_a_directory_may_have_any_name(service: Service, tmp_path: Path) -> None:
    odd = tmp_path / "a#b c"
    restore_from = tmp_path / "backup"
    back_up(service.settings, restore_from)
    restore(moved(service.settings, odd), restore_from)
    back_up(moved(service.settings, odd), tmp_path / "again")
    database = Database(f"sqlite:///{tmp_path / 'again' / 'rootstock.db'}")
    with database.reading() as session:
        assert len(session.scalars(sa.select(Key)).all()) == 1
    database.close()
