"""Labels that people give to items of batches"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "review_labels",
        sa.Column("job_id", sa.String(length=255), nullable=False),
        sa.Column("model_id", sa.String(length=255), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("predicted", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_review_labels_job_id")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_review_labels_tenant_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_review_labels")),
        sa.UniqueConstraint("id", name=op.f("uq_review_labels_id")),
        sa.UniqueConstraint("job_id", "row", name=op.f("uq_review_labels_job_id_row")),
    )
    with op.batch_alter_table("review_labels", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_review_labels_model_id"), ["model_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_review_labels_tenant_id"), ["tenant_id"], unique=False)


def downgrade() -> None:
    op.drop_table("review_labels")
