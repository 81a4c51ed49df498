"""What one tenant may use: bytes that are kept, jobs at once, rows and CPU seconds of a day (UTC).

Asked when something is asked for: what was accepted is finished, so a day's rows may be exceeded by the batches that
were accepted before. CPU seconds are of the day on which a process ends. 403 `quota_exceeded`: clients do not repeat
such a call, as they do after 429.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service import jobs
from service.database import Database, Scope
from service.errors import ApiError
from service.files import Stored
from service.settings import ServiceLimits
from service.tables import File, Job, Usage

ROWS, CPU = "rows", "cpu_seconds"  # what is counted by day
FLUSH_S = 5.0  # live rows are written this often; those since the last time are lost with the process
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Use:
    """What is used of one thing, and how much may be; 0: as much as is wanted."""

    used: float
    limit: int


def usage_of(limits: ServiceLimits, scope: Scope) -> dict[str, Use]:
    """What a tenant uses now and today."""
    return {"bytes": Use(_kept(scope), limits.tenant_mib << 20)} | _work(limits, scope)


def _work(limits: ServiceLimits, scope: Scope) -> dict[str, Use]:
    """The part of it that jobs use."""
    active = scope.select(Job).where(Job.status.in_(jobs.ACTIVE)).with_only_columns(sa.func.count())
    return {
        "jobs": Use(scope.session.scalar(active) or 0, limits.tenant_jobs),
        ROWS: Use(used_today(scope, ROWS), limits.tenant_rows_per_day),
        CPU: Use(used_today(scope, CPU), limits.tenant_cpu_s_per_day),
    }


def check_upload(limits: ServiceLimits, database: Database, tenant_id: str, content: IO[bytes]) -> None:
    """Raises ApiError 403 before a file is stored that would be one too many."""
    if not limits.tenant_mib:
        return
    size = content.seek(0, os.SEEK_END)
    content.seek(0)
    with database.reading() as session:
        scope = Scope(session, tenant_id)
        if _kept(scope) + size > limits.tenant_mib << 20:  # unless the content is known
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]  # uploads will do
            content.seek(0)
            _check_bytes(limits, scope, Stored(sha256, size))


def check_bytes(limits: ServiceLimits, scope: Scope, stored: Stored) -> None:
    """The same for what is stored, in the transaction that adds the file: two at once do not both fit."""
    if limits.tenant_mib:
        _one_at_a_time(scope)
        _check_bytes(limits, scope, stored)


def check_job(limits: ServiceLimits, scope: Scope) -> None:
    """Raises ApiError 403 where there are too many jobs, or a day's rows or CPU seconds are used up."""
    if not any((limits.tenant_jobs, limits.tenant_rows_per_day, limits.tenant_cpu_s_per_day)):
        return
    _one_at_a_time(scope)
    for name, use in _work(limits, scope).items():
        if use.limit and use.used >= use.limit:
            what = "jobs may wait and run at once" if name == "jobs" else f"{name.replace('_', ' ')} a day may be used"
            raise _exceeded(f"{use.limit:,} {what}; {'wait for one' if name == 'jobs' else 'go on tomorrow (UTC)'}")


def count(session: Session, tenant_id: str, kind: str, amount: float, day: date | None = None) -> None:
    """Add to what a tenant has used today, or on another day."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    number = (day or _today()).toordinal()
    line = insert(Usage).values(tenant_id=tenant_id, day=number, kind=kind, amount=amount)
    keys = [Usage.tenant_id, Usage.day, Usage.kind]
    session.execute(line.on_conflict_do_update(index_elements=keys, set_={"amount": Usage.amount + amount}))


def used_today(scope: Scope, kind: str) -> float:
    own = Usage.tenant_id == scope.tenant_id, Usage.day == _today().toordinal(), Usage.kind == kind
    return scope.session.scalar(sa.select(Usage.amount).where(*own)) or 0.0


class LiveRows:
    """Rows of live calls, counted in this process and written every FLUSH_S by a thread of its own.

    Args:
        most: a day, of each tenant; 0: as many as are wanted.
    """

    def __init__(self, database: Database, most: int) -> None:
        self.database, self.most = database, most
        self._pending: dict[tuple[str, date], int] = {}
        self._known: dict[str, tuple[float, date, float]] = {}  # of a tenant: when it was read, the day, rows then
        self._lock, self._flushing = threading.Lock(), threading.Lock()
        self._ending = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._flush_often, daemon=True).start()

    def close(self) -> None:
        """Write what is left."""
        self._ending.set()
        self.flush()

    def take(self, tenant_id: str, rows: int) -> None:
        """Count a call. Raises ApiError 403."""
        key = tenant_id, _today()
        used = self._used(*key) if self.most else 0.0
        with self._lock:
            pending = self._pending.get(key, 0)
            if self.most and used + pending + rows > self.most:
                raise _exceeded(f"{self.most:,} rows a day may be used; go on tomorrow (UTC)")
            self._pending[key] = pending + rows

    def give_back(self, tenant_id: str, rows: int) -> None:
        """Of a call that was not answered."""
        key = tenant_id, _today()
        with self._lock:
            self._pending[key] = self._pending.get(key, 0) - rows

    def flush(self) -> None:
        """Write what was counted; what cannot be written now is written later."""
        with self._flushing:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            taken = {key: rows for key, rows in self._pending.items() if rows}
        if not taken:
            return
        try:
            with self.database.writing() as session:
                for (tenant_id, day), rows in taken.items():
                    count(session, tenant_id, ROWS, rows, day)
        except SQLAlchemyError:  # a full disk must not stop answers
            log.exception("rows that were classified live cannot be written down yet")
            return
        with self._lock:
            for (tenant_id, day), rows in taken.items():
                self._pending[tenant_id, day] -= rows
                if not self._pending[tenant_id, day]:
                    del self._pending[tenant_id, day]
                self._known.pop(tenant_id, None)

    def _flush_often(self) -> None:
        while not self._ending.wait(FLUSH_S):
            self.flush()

    def _used(self, tenant_id: str, day: date) -> float:
        """Rows of the day in the database, as of at most FLUSH_S ago."""
        at, known_day, used = self._known.get(tenant_id, (-FLUSH_S, day, 0.0))
        if known_day == day and time.monotonic() - at < FLUSH_S:
            return used
        with self.database.reading() as session:
            used = used_today(Scope(session, tenant_id), ROWS)
        self._known[tenant_id] = (time.monotonic(), day, used)
        return used


def usage_object(found: dict[str, Use]) -> dict[str, Any]:
    """For callers; a limit that is not set is null."""
    shown = {name: {"used": use.used, "limit": use.limit or None} for name, use in found.items()}
    return {"object": "usage", "day": _today().isoformat()} | shown


def _kept(scope: Scope) -> int:
    """Bytes of the tenant's files; content that two files share counts once."""
    live = scope.select(File).where(File.deleted_at.is_(None))
    distinct = live.with_only_columns(File.sha256, File.bytes).distinct().subquery()
    return scope.session.scalar(sa.select(sa.func.sum(distinct.c.bytes))) or 0


def _check_bytes(limits: ServiceLimits, scope: Scope, stored: Stored) -> None:
    same = scope.select(File).where(File.sha256 == stored.sha256, File.deleted_at.is_(None))
    more = 0 if scope.session.scalars(same.limit(1)).first() else stored.bytes
    if _kept(scope) + more > limits.tenant_mib << 20:
        raise _exceeded(f"{limits.tenant_mib:,} MiB of files may be kept; delete some")


def _one_at_a_time(scope: Scope) -> None:
    """Until the end of the transaction nobody else adds to what this tenant has; SQLite has one writer anyway."""
    if scope.session.get_bind().dialect.name == "postgresql":
        scope.session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(scope.tenant_id, 0))))


def _today() -> date:
    return datetime.now(UTC).date()


def _exceeded(what: str) -> ApiError:
    return ApiError(403, f"Quota of this account exceeded: {what}", "quota_exceeded")
