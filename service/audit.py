"""Who changed what: a row in the same transaction as the change, for every change that a person or a key has made.

Nothing of the content is in it: a change is told by digests of the row before and after. What workers do on their own
is in the events of jobs. The database refuses to change or delete what is there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from service.tables import Alias, Audit, Base, File, Job, Key, Model, ReviewLabel

NAMES: dict[type[Base], str] = {
    File: "file",
    Job: "job",
    Model: "model",
    Alias: "alias",
    Key: "key",
    ReviewLabel: "label",
}
ENDS = {"deleted_at": "deleted", "revoked_at": "revoked"}  # columns that end an object
OPERATOR = "operator"  # who uses the command line on the server


@dataclass(frozen=True)
class Actor:
    """Who acts: the id of a key, or OPERATOR, and by which request from where."""

    id: str
    request_id: str | None = None
    address: str | None = None


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Within it, changes are this actor's; threads that are started for a request know it, too."""
    before = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(before)


@dataclass
class _Change:
    """A row that a transaction changes, and how it was before; None where it was not there."""

    row: Any
    before: dict[str, Any] | None
    deleted: bool = False


class AuditedSession(Session):
    """A session that remembers what it changes, and for whom."""

    def note(self) -> None:
        """Add the lines of this transaction, one for each row. To be called at its end."""
        actor = _actor.get()
        self.flush()
        changes: dict[int, _Change] = self.info.pop("changes", {})
        if actor is not None:
            self.add_all(_line(actor, change) for change in changes.values())
            self.flush()


@event.listens_for(AuditedSession, "before_flush")
def _remember(session: Session, *_: object) -> None:
    if _actor.get() is None:
        return
    changes: dict[int, _Change] = session.info.setdefault("changes", {})
    for row in (*session.new, *session.dirty, *session.deleted):
        if type(row) not in NAMES or not (row in session.new or row in session.deleted or session.is_modified(row)):
            continue
        known = changes.setdefault(id(row), _Change(row, None if row in session.new else _state(row, before=True)))
        known.deleted = row in session.deleted


def _line(actor: Actor, change: _Change) -> Audit:
    row, before, after = change.row, change.before, _state(change.row)
    what = "deleted" if change.deleted else "created" if before is None else _changed(before, after)
    return Audit(
        at=time.time(),
        tenant_id=row.tenant_id,
        actor=actor.id,
        request_id=actor.request_id,
        address=actor.address,
        action=f"{NAMES[type(row)]}.{what}",
        object_id=f"{row.family}@{row.name}" if isinstance(row, Alias) else row.id,
        before=None if before is None else _digest(before),
        after=None if change.deleted else _digest(after),
    )


def _changed(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What has happened to a row: a job's new status, an end, or simply a change."""
    if before.get("status") != after.get("status"):
        return str(after["status"])
    return next((word for column, word in ENDS.items() if before.get(column) != after.get(column)), "changed")


def _state(row: Any, before: bool = False) -> dict[str, Any]:
    """The columns of a row as it is, or as the database has it."""
    found = {}
    for attribute in sa.inspect(row).mapper.column_attrs:
        history = sa.inspect(row).attrs[attribute.key].history
        old = [*history.deleted, *history.unchanged] if before else [*history.added, *history.unchanged]
        found[attribute.key] = old[0] if old else None
    return found


def _digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True, default=str).encode()).hexdigest()


def exported(session: Session, tenant_id: str | None, since: float) -> Iterator[dict[str, Any]]:
    """The lines of a tenant, or of all, from a moment on, oldest first."""
    lines = sa.select(Audit).where(Audit.at >= since).order_by(Audit.seq)
    if tenant_id is not None:
        lines = lines.where(Audit.tenant_id == tenant_id)
    columns = sa.inspect(Audit).column_attrs.keys()
    for line in session.scalars(lines.execution_options(yield_per=1000)):
        yield {column: getattr(line, column) for column in columns}
