"""
Create the audit trail: who edited which row of the catalog, when, and what it was before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = WHOLE  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", WHOLE, autoincrement=False, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("admin", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", WHOLE, nullable=True),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_audit_kind_name"), "audit", ["kind", "name"], unique=False)
    has_key = sa.text("idempotency_key IS NOT NULL")
    op.create_index(
        op.f("ix_audit_key"), "audit", ["admin", "idempotency_key"], unique=True, sqlite_where=has_key, postgresql_where=has_key
    )


def downgrade() -> None:
    op.drop_table("audit")
