"""PostgreSQL for tests: a database of its own for each, where there is a server."""

from __future__ import annotations

import os
import uuid

import pytest
import sqlalchemy as sa

POSTGRES = os.environ.get("ROOTSTOCK_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


class database_url:  # noqa: N801  # read as a function
    """A database of its own for as long as it is needed; '' for SQLite."""

    def __init__(self, kind: str) -> None:
        self.kind, self.name = kind, f"rootstock_{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> str:
        if self.kind == "sqlite":
            return ""
        url = sa.make_url(POSTGRES).set(drivername="postgresql+psycopg")
        self.admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with self.admin.connect() as connection:
                connection.exec_driver_sql(f"create database {self.name}")
        except sa.exc.OperationalError as error:
            message = f"no PostgreSQL at {POSTGRES}: {error}"
            if os.environ.get("ROOTSTOCK_REQUIRE_POSTGRES") == "1":
                pytest.fail(message)
            pytest.skip(message)
        return url.set(drivername="postgresql", database=self.name).render_as_string(hide_password=False)

    def __exit__(self, *_: object) -> None:
        if self.kind == "sqlite":
            return
        with self.admin.connect() as connection:
            connection.exec_driver_sql(f"drop database {self.name} with (force)")
        self.admin.dispose()
