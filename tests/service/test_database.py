from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.database import Database, DatabaseError, Scope
from service.keys import create_key
from service.tables import Base, Key, Tenant
from tests.service.postgres import database_url


def test_commits_are_durable_settings(database: Database) -> None:
    database.check()
    with database.reading() as session:
        assert session.execute(sa.text("pragma foreign_keys")).scalar() == 1


def test_an_exception_rolls_back(database: Database) -> None:
    def fail() -> None:
        with database.writing() as session:
            create_key(session, "agency", "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.reading() as session:
        assert session.scalars(sa.select(Tenant)).all() == []


def test_a_reader_sees_one_state(database: Database) -> None:
    with database.reading() as reader:
        before = len(reader.scalars(sa.select(Tenant)).all())
        with database.writing() as session:
            create_key(session, "agency", "a")
        assert len(reader.scalars(sa.select(Tenant)).all()) == before == 0


def test_no_write_is_lost_between_threads(database: Database) -> None:
    with database.writing() as session:
        session.add(Tenant(id="t", name="0", created_at=0))

    def count() -> None:
        for _ in range(25):
            with database.writing() as session:
                tenant = session.get_one(Tenant, "t")
                tenant.name = str(int(tenant.name) + 1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.get_one(Tenant, "t").name == "100"


def test_a_scope_sees_its_tenant_only(database: Database) -> None:
    with database.writing() as session:
        mine, _ = create_key(session, "one", "a")
        theirs, _ = create_key(session, "two", "b")
    with database.reading() as session:
        scope = Scope(session, mine.tenant_id)
        assert scope.get(Key, mine.id) is not None
        assert scope.get(Key, theirs.id) is None
        assert [key.id for key in session.scalars(scope.select(Key))] == [mine.id]


def test_the_migrations_make_the_tables_of_the_code(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.writing() as session:
        session.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(DatabaseError, match="cannot be brought up to date"):
        database.migrate()


def test_the_clock_is_the_databases(database: Database) -> None:
    import time

    with database.reading() as session:
        assert abs(database.now(session) - time.time()) < 5


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rootstock.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises((DatabaseError, sa.exc.DatabaseError)):
        Database(f"sqlite:///{path}").migrate()


def test_who_is_frozen_inside_a_transaction_loses_its_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.database.BUSY_MS", 200)
    with database_url("postgresql") as url:
        database = Database(url)
        database.migrate()
        with database.writing() as session:
            session.add(Tenant(id="t", name="before", created_at=0))

        def freeze() -> None:
            with database.writing() as session:
                session.get_one(Tenant, "t", with_for_update=True)
                time.sleep(1)
                with database.writing() as other:
                    other.get_one(Tenant, "t", with_for_update=True).name = "after"
                session.get_one(Tenant, "t").name = "too late"

        with pytest.raises(sa.exc.DBAPIError):
            freeze()
        with database.reading() as session:
            assert session.get_one(Tenant, "t").name == "after"
        database.close()
