"""
Create workflows: named stages, each with its model.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = WHOLE  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "workflows",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("stages", sa.Text(), nullable=False),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("version", WHOLE, server_default="1", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_workflows_enabled_flag")),
        sa.CheckConstraint("managed_by = 'file' OR managed_by = 'api'", name=op.f("ck_workflows_managed_by_known")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workflows")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("workflows")
