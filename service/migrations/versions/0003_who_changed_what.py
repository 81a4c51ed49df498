"""Who changed what: lines that can only be added"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MESSAGE = "lines of the audit can only be added"
POSTGRESQL = f"""
create function audit_is_final() returns trigger language plpgsql as
$$ begin raise exception '{MESSAGE}'; end $$;
create trigger audit_is_final before update or delete or truncate on audit
for each statement execute function audit_is_final();
"""


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("address", sa.String(length=64), nullable=True),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("object_id", sa.String(length=512), nullable=False),
        sa.Column("before", sa.String(length=64), nullable=True),
        sa.Column("after", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_tenant_id"), "audit", ["tenant_id"])
    if op.get_bind().dialect.name == "postgresql":
        op.execute(POSTGRESQL)
        return
    known = "when exists (select 1 from audit where seq = new.seq)"  # insert or replace
    for change, when in (("update", ""), ("delete", ""), ("insert", known)):
        action = f"begin select raise(abort, '{MESSAGE}'); end"
        op.execute(f"create trigger audit_keeps_{change} before {change} on audit {when} {action}")


def downgrade() -> None:
    op.drop_table("audit")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("drop function audit_is_final")
