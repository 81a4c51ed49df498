from __future__ import annotations

import io
import time

import sqlalchemy as sa

from service import jobs
from service.database import Scope
from service.files import add_file, path_of, remove_content, store, unnamed_content
from service.leftovers import KEPT_FAILED_S, Leftovers
from service.tables import Job, Key
from tests.service.conftest import Service


def tenant_of(service: Service) -> str:
    with service.database.reading() as session:
        return session.scalars(sa.select(Key.tenant_id)).one()


def test_expired_files_go_and_others_stay(service: Service) -> None:
    tenant = tenant_of(service)
    with service.database.writing() as session:
        scope = Scope(session, tenant)
        old = add_file(scope, store(service.settings, tenant, io.BytesIO(b"old")), "a", "batch", time.time() - 1)
        new = add_file(scope, store(service.settings, tenant, io.BytesIO(b"new")), "b", "batch", time.time() + 100)
    leftovers = Leftovers(service.settings, service.database)
    leftovers.remove()
    assert path_of(service.settings, old).exists()  # another upload of the same bytes may be on its way
    leftovers.remove()
    assert not path_of(service.settings, old).exists()
    assert path_of(service.settings, new).exists()


def test_content_that_is_uploaded_again_meanwhile_stays(service: Service) -> None:
    tenant = tenant_of(service)
    leftovers = Leftovers(service.settings, service.database)
    stored = store(service.settings, tenant, io.BytesIO(b"twice"))
    leftovers.remove()
    content = service.settings.tenant_dir(tenant) / "files" / stored.sha256
    with service.database.reading() as session:
        found = unnamed_content(service.settings, session)
    store(service.settings, tenant, io.BytesIO(b"twice"))  # after it was found, before it is deleted
    remove_content(content, found[content])
    assert content.read_bytes() == b"twice"
    leftovers.remove()
    assert content.exists()
    leftovers.remove()
    assert not content.exists()


def test_folders_of_jobs_go_when_nobody_needs_them(service: Service) -> None:
    tenant, states = tenant_of(service), ("succeeded", "cancelled", "failed", "old failed", "running", "paused")
    folders = {}
    for state in states:
        with service.database.writing() as session:
            job = jobs.create(Scope(session, tenant), "fine-tune", {}, {})
            job.status = state.removeprefix("old ")
            job.finished_at = time.time() - (KEPT_FAILED_S + 1 if state == "old failed" else 0)
        folders[state] = service.settings.tenant_dir(tenant) / "jobs" / job.id
        folders[state].mkdir(parents=True)
    with service.database.writing() as session:  # cancelled, but its process still saves
        saving = jobs.create(Scope(session, tenant), "fine-tune", {}, {})
        saving.status, saving.owner = "cancelled", "w1"
    folders["saving"] = service.settings.tenant_dir(tenant) / "jobs" / saving.id
    folders["saving"].mkdir()
    Leftovers(service.settings, service.database).remove()
    assert {state for state, folder in folders.items() if folder.exists()} == {"failed", "running", "paused", "saving"}
    with service.database.reading() as session:
        assert len(session.scalars(sa.select(Job)).all()) == 7
