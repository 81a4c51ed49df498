"""The database: SQLite in one file or PostgreSQL by URL, the same code. Sessions that always carry a tenant."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import event
from sqlalchemy.orm import Session

from pipelines.errors import RootstockError
from service.audit import AuditedSession
from service.tables import Owned

Row = TypeVar("Row", bound=Owned)
BUSY_MS = 30_000
MIGRATIONS = Path(__file__).parent / "migrations"


class DatabaseError(RootstockError):
    """The database cannot be used as it is; the message says why."""


class Database:
    """Reading and writing transactions.

    On SQLite writers take turns inside this process before they take turns on the file: 110 ms instead of 1.3 s for the
    slowest of a hundred (measured, `reliability.md`). WAL with synchronous=FULL: what was committed survives the loss
    of power, as far as the disk keeps its word. Errors do not tell the parameters of a statement: content is in them.
    """

    def __init__(self, url: str) -> None:
        self.url = sa.make_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if not self.sqlite:
            self.url = self.url.set(drivername="postgresql+psycopg")
        self.engine = sa.create_engine(self.url, pool_size=20, max_overflow=40, hide_parameters=True, **self.options)
        self._writers = threading.Lock() if self.sqlite else nullcontext()
        if self.sqlite:
            _careful(self.engine)
            _explicit_transactions(self.engine)

    @property
    def options(self) -> dict[str, Any]:
        """Of an engine on PostgreSQL: a process frozen inside a transaction loses its locks instead of keeping them."""
        patience = {"options": f"-c idle_in_transaction_session_timeout={BUSY_MS}"}
        return {} if self.sqlite else {"pool_pre_ping": True, "connect_args": patience}

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """For reading; on SQLite one consistent view."""
        with self.engine.connect().execution_options(rootstock_reading=True) as connection, _session(connection) as own:
            yield own

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction, committed at the end, rolled back on any exception."""
        with self._writers, self.engine.begin() as connection, _session(connection) as own:
            yield own
            own.note()

    def now(self, session: Session) -> float:
        """The database's clock, in Unix seconds: the one that all hosts share."""
        seconds = "(julianday('now') - 2440587.5) * 86400.0" if self.sqlite else "extract(epoch from clock_timestamp())"
        return float(session.execute(sa.text(f"select {seconds}")).scalar_one())

    def migrate(self) -> None:
        """Bring the tables up to date. Raises DatabaseError for a database of a newer version."""
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with self._writers, self.engine.begin() as connection:
            if not self.sqlite:
                connection.execute(sa.text("select pg_advisory_xact_lock(7071)"))  # one migrates, the others wait
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except Exception as error:
                raise DatabaseError(f"{self.name}: its tables cannot be brought up to date: {error}") from error

    def check(self) -> None:
        """Read the settings back that durability rests on. Raises DatabaseError."""
        if not self.sqlite:
            return
        with self.engine.connect() as connection:
            found = {
                name: connection.exec_driver_sql(f"pragma {name}").scalar() for name in ("journal_mode", "synchronous")
            }
        if found != {"journal_mode": "wal", "synchronous": 2}:
            raise DatabaseError(f"{self.name}: expected journal_mode wal and synchronous 2 (full), found {found}")

    @property
    def name(self) -> str:
        """For messages; no password."""
        return str(self.url.database) if self.sqlite else self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()


class Scope:
    """What one tenant can see: every query has the tenant in it."""

    def __init__(self, session: Session, tenant_id: str) -> None:
        self.session = session
        self.tenant_id = tenant_id

    def get(self, table: type[Row], id: str, lock: bool = False) -> Row | None:
        """The row with this public id, locked for a change; None if there is none, or it is another tenant's."""
        query = _one_of(table).with_for_update() if lock else _one_of(table)  # type: ignore[arg-type]  # a class is hashable
        return self.session.scalars(query, {"tenant": self.tenant_id, "id": id}).one_or_none()

    def select(self, table: type[Row]) -> sa.Select[Row]:
        """All rows of the tenant."""
        return sa.select(table).where(table.tenant_id == self.tenant_id)

    def add(self, row: Row) -> Row:
        """Add a row to the tenant's."""
        row.tenant_id = self.tenant_id
        row.created_at = row.created_at or time.time()
        self.session.add(row)
        return row


@cache
def _one_of(table: type[Row]) -> sa.Select[Row]:
    """A statement that is built once: building it took longer than running it."""
    return sa.select(table).where(table.tenant_id == sa.bindparam("tenant"), table.id == sa.bindparam("id"))


def _session(connection: sa.Connection) -> AuditedSession:
    return AuditedSession(bind=connection, expire_on_commit=False, autoflush=True)


def _careful(engine: sa.Engine) -> None:
    """Durable commits, and patience with other writers."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for setting in ("journal_mode=wal", "synchronous=full", f"busy_timeout={BUSY_MS}", "foreign_keys=on"):
            cursor.execute(f"pragma {setting}")
        cursor.close()


def _explicit_transactions(engine: sa.Engine) -> None:
    """The driver would begin a transaction only before the first write, when it may be too late to get the lock."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reading = connection.get_execution_options().get("rootstock_reading", False)
        connection.exec_driver_sql("begin" if reading else "begin immediate")


def engine_for_jobs(database: Database) -> sa.Engine:
    """A second engine on the same database, with the transactions that the job library expects."""
    engine = sa.create_engine(database.url, pool_size=10, max_overflow=20, hide_parameters=True, **database.options)
    if database.sqlite:
        _careful(engine)

        @event.listens_for(engine, "connect")
        def connect(connection: Any, _: Any) -> None:
            connection.isolation_level = "IMMEDIATE"

    return engine
