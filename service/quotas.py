"""What one tenant may use: bytes that are kept, jobs at once, rows and CPU seconds of a day (UTC).

Asked when something is asked for: what was accepted is finished, so a day's rows may be exceeded by one batch. 403
`quota_exceeded`: clients do not repeat such a call, as they do after 429.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service import jobs
from service.database import Database, Scope
from service.errors import ApiError
from service.files import Stored
from service.settings import ServiceLimits
from service.tables import File, Job, Usage

ROWS, CPU = "rows", "cpu_seconds"  # what is counted by day
FLUSH_S = 5.0  # live rows are written this often; those since the last time are lost with the process


@dataclass(frozen=True)
class Use:
    """What is used of one thing, and how much may be; 0: as much as is wanted."""

    used: float
    limit: int


def usage_of(limits: ServiceLimits, scope: Scope) -> dict[str, Use]:
    """What a tenant uses now and today."""
    active = scope.select(Job).where(Job.status.in_(jobs.ACTIVE)).with_only_columns(sa.func.count())
    return {
        "bytes": Use(_kept(scope), limits.tenant_mib << 20),
        "jobs": Use(scope.session.scalar(active) or 0, limits.tenant_jobs),
        ROWS: Use(used_today(scope, ROWS), limits.tenant_rows_per_day),
        CPU: Use(used_today(scope, CPU), limits.tenant_cpu_s_per_day),
    }


def check_bytes(limits: ServiceLimits, scope: Scope, stored: Stored) -> None:
    """Raises ApiError 403 where a file would be one too many; one with the same content costs nothing."""
    most = limits.tenant_mib << 20
    if not most:
        return
    same = scope.select(File).where(File.sha256 == stored.sha256, File.deleted_at.is_(None))
    more = 0 if scope.session.scalars(same.limit(1)).first() else stored.bytes
    if _kept(scope) + more > most:
        raise _exceeded(f"{limits.tenant_mib:,} MiB of files may be kept; delete some")


def check_job(limits: ServiceLimits, scope: Scope) -> None:
    """Raises ApiError 403 where there are too many jobs, or a day's rows or CPU seconds are used up."""
    if not any((limits.tenant_jobs, limits.tenant_rows_per_day, limits.tenant_cpu_s_per_day)):
        return
    for name, use in usage_of(limits, scope).items():
        if use.limit and use.used >= use.limit and name != "bytes":
            what = "jobs may wait and run at once" if name == "jobs" else f"{name.replace('_', ' ')} a day may be used"
            raise _exceeded(f"{use.limit:,} {what}; {'wait for one' if name == 'jobs' else 'go on tomorrow (UTC)'}")


def count(session: Session, tenant_id: str, kind: str, amount: float) -> None:
    """Add to what a tenant has used today."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    line = insert(Usage).values(tenant_id=tenant_id, day=_today().toordinal(), kind=kind, amount=amount)
    keys = [Usage.tenant_id, Usage.day, Usage.kind]
    session.execute(line.on_conflict_do_update(index_elements=keys, set_={"amount": Usage.amount + amount}))


def used_today(scope: Scope, kind: str) -> float:
    own = Usage.tenant_id == scope.tenant_id, Usage.day == _today().toordinal(), Usage.kind == kind
    return scope.session.scalar(sa.select(Usage.amount).where(*own)) or 0.0


class LiveRows:
    """Rows of live calls, counted in this process and written from time to time.

    Args:
        most: a day, of each tenant; 0 counts nothing.
    """

    def __init__(self, database: Database, most: int) -> None:
        self.database, self.most = database, most
        self._pending: dict[str, int] = {}
        self._known: dict[str, tuple[float, float]] = {}  # when it was read, and rows of the day then
        self._lock = threading.Lock()

    def take(self, tenant_id: str, rows: int) -> None:
        """Count a call. Raises ApiError 403."""
        if not self.most:
            return
        with self._lock:
            read, used = self._known.get(tenant_id, (-FLUSH_S, 0.0))
            if time.monotonic() - read >= FLUSH_S:
                used = self._flush(tenant_id)
            pending = self._pending.get(tenant_id, 0)
            if used + pending + rows > self.most:
                raise _exceeded(f"{self.most:,} rows a day may be used; go on tomorrow (UTC)")
            self._pending[tenant_id] = pending + rows

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            for tenant_id in list(self._pending):
                self._flush(tenant_id)

    def _flush(self, tenant_id: str) -> float:
        pending = self._pending.pop(tenant_id, 0)
        if pending:
            with self.database.writing() as session:
                count(session, tenant_id, ROWS, pending)
        with self.database.reading() as session:
            used = used_today(Scope(session, tenant_id), ROWS)
        self._known[tenant_id] = (time.monotonic(), used)
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


def _today() -> date:
    return datetime.now(UTC).date()


def _exceeded(what: str) -> ApiError:
    return ApiError(403, f"Quota of this account exceeded: {what}", "quota_exceeded")
