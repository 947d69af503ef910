"""
Create routing rules: asked by rank, the first that matches is tried first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = WHOLE  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "rules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("rank", WHOLE, nullable=False),
        sa.Column("condition", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=True),
        sa.Column("strategy", sa.Text(), nullable=True),
        sa.Column("share_ppm", WHOLE, nullable=True),
        sa.Column("on_unusable", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("version", WHOLE, server_default="1", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_rules_enabled_flag")),
        sa.CheckConstraint("on_unusable = 'fall_through' OR on_unusable = 'refuse'", name=op.f("ck_rules_on_unusable_known")),
        sa.CheckConstraint("managed_by = 'file' OR managed_by = 'api'", name=op.f("ck_rules_managed_by_known")),
        sa.CheckConstraint("share_ppm >= 0 AND share_ppm <= 1000000", name=op.f("ck_rules_share_ppm_share")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_rules")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("rules")
