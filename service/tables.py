"""What the service remembers: one class per table. Times are Unix seconds; `seq` is the order of creation.

Every row but that of a tenant, a worker or the audit belongs to a tenant; `database.Scope` adds the condition to every
query.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, MetaData, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite numbers rows by itself only where the key is an INTEGER.
Sequence = BigInteger().with_variant(Integer(), "sqlite")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {dict[str, Any]: JSON, list[Any]: JSON, float: Float}


class Owned:
    """A row of one tenant, numbered, with a public id."""

    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(255), unique=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    created_at: Mapped[float]


class Tenant(Base):
    """The account that owns keys and content."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float]


class Key(Owned, Base):
    """An API key. Only its SHA-256 is kept; `hint` is its last four characters."""

    __tablename__ = "keys"
    name: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(8))
    scopes: Mapped[list[Any]]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]
    last_used_at: Mapped[float | None]


class File(Owned, Base):
    """An uploaded file, or one that a job wrote; its content lies under its digest in the tenant's folder."""

    __tablename__ = "files"
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    expires_at: Mapped[float | None]
    deleted_at: Mapped[float | None]


class Job(Owned, Base):
    """A fine-tuning, a comparison or a batch. `jobs.py` says which moves between states are allowed."""

    __tablename__ = "jobs"
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), index=True)
    priority: Mapped[int]
    request: Mapped[dict[str, Any]]  # what was asked, checked and complete
    labels: Mapped[dict[str, Any]]  # the user's own metadata: 16 pairs at most
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]
    attempt: Mapped[int] = mapped_column(default=0)  # rises at every take-over; older attempts can write nothing
    idle_attempts: Mapped[int] = mapped_column(default=0)  # in a row that ended without a checkpoint
    owner: Mapped[str | None] = mapped_column(String(64), index=True)  # boot id of the worker that runs it
    child: Mapped[dict[str, Any] | None]  # host, pid and start time of its process
    stopping: Mapped[bool] = mapped_column(default=False)  # stopped, but its process still saves
    progress: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None]  # code, message, param
    result: Mapped[dict[str, Any] | None]


class JobEvent(Owned, Base):
    """Something that a job's follower sees."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id_seq", "job_id", "seq"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    level: Mapped[str] = mapped_column(String(8))
    type: Mapped[str] = mapped_column(String(16))
    message: Mapped[str]
    data: Mapped[dict[str, Any] | None]


class JobCheckpoint(Owned, Base):
    """Weights that a fine-tuning can go on from."""

    __tablename__ = "job_checkpoints"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    step: Mapped[int]
    metrics: Mapped[dict[str, Any]]


class ReviewLabel(Owned, Base):
    """What a person says of an item of a labelled table; without a label: skipped."""

    __tablename__ = "review_labels"
    __table_args__ = (UniqueConstraint("job_id", "row"),)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    model_id: Mapped[str] = mapped_column(String(255), index=True)
    row: Mapped[int]  # of the output, from 1
    text: Mapped[str]
    predicted: Mapped[str]
    label: Mapped[str | None]


class Model(Owned, Base):
    """A finished model. `folder` is its run directory, below the tenant's own."""

    __tablename__ = "models"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    base: Mapped[str] = mapped_column(String(255))
    family: Mapped[str] = mapped_column(String(64), index=True)  # what aliases belong to
    folder: Mapped[str] = mapped_column(String(255))
    labels: Mapped[list[Any]]
    deleted_at: Mapped[float | None]


class Alias(Base):
    """`FAMILY@NAME`: a name that moves from one model of a family to the next."""

    __tablename__ = "aliases"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    family: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    created_at: Mapped[float]


class Answered(Base):
    """A create call that was answered, so that the same call again gives the same object."""

    __tablename__ = "answered"
    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(String(255), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    request_digest: Mapped[str] = mapped_column(String(64), index=True)
    object_id: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[float] = mapped_column(index=True)


class Usage(Base):
    """What a tenant has used of one thing on one day (UTC, as Python counts days)."""

    __tablename__ = "usage"
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    amount: Mapped[float]


class Audit(Base):
    """Who changed what. Lines are only added; `before` and `after` are digests of the row that was changed."""

    __tablename__ = "audit"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    at: Mapped[float]
    tenant_id: Mapped[str] = mapped_column(String(64), index=True)  # no foreign key: it outlives its tenant
    actor: Mapped[str] = mapped_column(String(255))
    request_id: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str] = mapped_column(String(512))
    before: Mapped[str | None] = mapped_column(String(64))
    after: Mapped[str | None] = mapped_column(String(64))


class Worker(Base):
    """A worker process, as long as it shows that it lives."""

    __tablename__ = "workers"
    boot_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[float]
    heartbeat_at: Mapped[float]
