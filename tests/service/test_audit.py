"""Every change leaves a line, in its own transaction; no line can be changed, and no content is in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from pipelines.errors import RootstockError
from service.audit import OPERATOR, Actor, acting, exported
from service.cli import app
from service.database import Database, Scope
from service.files import Stored, add_file
from service.keys import create_key, find_caller, revoke, rotate
from service.models import add_model
from service.serve import prepare
from service.settings import service_settings
from service.tables import Audit, File, Job
from tests.service.conftest import Service
from tests.service.test_routes import submit, upload


def lines(database: Database) -> list[dict[str, Any]]:
    with database.reading() as session:
        return list(exported(session, None, 0.0))


def told(database: Database) -> list[tuple[str, str]]:
    return [(line["action"], line["object_id"]) for line in lines(database)]


def test_every_change_of_a_call_leaves_a_line(service: Service) -> None:
    file = upload(service).json()["id"]
    job = submit(service).json()["id"]
    service.api.post(f"/v1/fine_tuning/jobs/{job}/pause")
    service.api.post(f"/v1/fine_tuning/jobs/{job}/resume")
    service.api.post(f"/v1/fine_tuning/jobs/{job}/cancel")
    service.api.delete(f"/v1/files/{file}")
    with service.database.writing() as session:
        caller = find_caller(session, service.key)
        assert caller is not None
        scope = Scope(session, caller.tenant_id)
        made = scope.get(Job, job)
        assert made is not None
        add_model(scope, made, "ft:m", "base", "brand", ["a"])  # as a worker does: it is nobody's
    service.api.put("/v1/models/ft:m/aliases/champion")
    service.api.delete("/v1/models/ft:m/aliases/champion")
    found = service.api.delete("/v1/models/ft:m")
    other = told(service.database)[1][1]
    assert told(service.database) == [
        ("file.created", file),
        ("file.created", other),
        ("job.created", job),
        ("job.paused", job),
        ("job.queued", job),
        ("job.cancelled", job),
        ("file.deleted", file),
        ("alias.created", "brand@champion"),
        ("alias.deleted", "brand@champion"),
        ("model.deleted", "ft:m"),
    ]
    last = lines(service.database)[-1]
    assert (last["actor"], last["tenant_id"]) == (caller.key_id, caller.tenant_id)
    assert (last["request_id"], last["address"]) == (found.headers["x-request-id"], "testclient")


def test_what_is_read_or_refused_leaves_none(service: Service) -> None:
    for path in ("/v1/files", "/v1/models", "/v1/fine_tuning/jobs"):
        service.api.get(path)
    assert service.api.delete("/v1/files/file-none").status_code == 404
    assert service.api.post("/v1/fine_tuning/jobs", json={"model": "m", "training_file": "f"}).status_code >= 400
    assert lines(service.database) == []


def test_nothing_of_the_content_is_in_a_line(service: Service) -> None:
    upload(service, b"a secret text", "secret.csv")
    assert "secret" not in json.dumps(lines(service.database))


def test_keys_leave_lines(either: Database) -> None:
    with acting(Actor(OPERATOR)), either.writing() as session:
        id = create_key(session, "agency", "a")[0].id
    with acting(Actor(OPERATOR)), either.writing() as session:
        rotate(session, id, 60)
    with acting(Actor(OPERATOR)), either.writing() as session:
        revoke(session, id)
    assert [action for action, _ in told(either)] == ["key.created", "key.created", "key.changed", "key.revoked"]
    assert {line["actor"] for line in lines(either)} == {OPERATOR}


def test_a_line_shares_the_fate_of_its_change(either: Database) -> None:
    def fail() -> None:
        with acting(Actor("key_1")), either.writing() as session:
            create_key(session, "agency", "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert lines(either) == []


def test_what_nobody_asked_for_leaves_none(either: Database) -> None:
    with either.writing() as session:
        create_key(session, "agency", "a")
    assert lines(either) == []


def test_before_and_after_are_digests_that_fit(either: Database) -> None:
    with either.writing() as session:
        tenant = create_key(session, "agency", "a")[0].tenant_id
    with acting(Actor("key_1")), either.writing() as session:
        made = add_file(Scope(session, tenant), Stored("00", 1), "a.csv", "batch").id
    with acting(Actor("key_1")), either.writing() as session:
        file = Scope(session, tenant).get(File, made)
        assert file is not None
        file.deleted_at = 1.0
    created, deleted = lines(either)
    assert created["before"] is None
    assert deleted["before"] == created["after"] != deleted["after"]
    assert len(deleted["after"]) == 64


REPLACE = "insert or replace into audit (seq, at, tenant_id, actor, action, object_id) values (1, 0, '', 'x', '', '')"


@pytest.mark.parametrize("change", ["update audit set actor = 'x'", "delete from audit", REPLACE])
def test_lines_can_only_be_added(either: Database, change: str) -> None:
    if change == REPLACE and not either.sqlite:
        pytest.skip("there are no such words in PostgreSQL")
    with acting(Actor(OPERATOR)), either.writing() as session:
        create_key(session, "agency", "a")

    def tamper() -> None:
        with either.writing() as session:
            session.execute(sa.text(change))

    with pytest.raises(DBAPIError, match="can only be added"):
        tamper()
    assert [line["actor"] for line in lines(either)] == [OPERATOR]


def test_lines_of_one_tenant_from_a_moment_on(either: Database) -> None:
    with acting(Actor(OPERATOR)), either.writing() as session:
        one = create_key(session, "one", "a")[0]
        create_key(session, "two", "b")
    with either.reading() as session:
        assert [line["object_id"] for line in exported(session, one.tenant_id, 0.0)] == [one.id]
        assert list(exported(session, None, 4e9)) == []
        assert session.scalar(sa.select(sa.func.count()).select_from(Audit)) == 2


def test_the_commands_of_the_operator(service: Service) -> None:
    runner, place = CliRunner(), ["--data-dir", str(service.settings.data_dir)]
    made = runner.invoke(app, ["keys", "create", "--tenant", "agency", *place])
    assert (made.exit_code, made.stdout[:4]) == (0, "rsk_")
    (line,) = [json.loads(each) for each in runner.invoke(app, ["audit", "export", *place]).stdout.splitlines()]
    assert (line["actor"], line["action"]) == (OPERATOR, "key.created")
    rotated = runner.invoke(app, ["keys", "rotate", line["object_id"], "--overlap", "0", *place])
    assert (rotated.exit_code, rotated.stdout[:4]) == (0, "rsk_")
    assert service.api.get("/v1/files", headers={"Authorization": f"Bearer {made.stdout.strip()}"}).status_code == 401
    assert (
        service.api.get("/v1/files", headers={"Authorization": f"Bearer {rotated.stdout.strip()}"}).status_code == 200
    )
    again = runner.invoke(app, ["keys", "rotate", line["object_id"], *place])
    assert isinstance(again.exception, RootstockError)
    of = ["audit", "export", "--tenant"]
    assert len(runner.invoke(app, [*of, "agency", *place]).stdout.splitlines()) == 3
    assert runner.invoke(app, [*of, "agency", "--since", "2999-01-01", *place]).stdout == ""
    assert "no such account" in str(runner.invoke(app, [*of, "nobody", *place]).exception)


def test_the_first_key_leaves_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOTSTOCK_DATABASE_URL", "")
    settings = service_settings(tmp_path)
    prepare(settings)
    database = Database(settings.database_url)
    assert [line["action"] for line in lines(database)] == ["key.created"]
    database.close()
