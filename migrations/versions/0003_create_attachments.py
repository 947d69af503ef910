"""
Create attachments: which provider serves which model, in which order.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = WHOLE  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "attachments",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("priority", WHOLE, nullable=False),
        sa.Column("position", WHOLE, nullable=False),
        sa.Column("weight", WHOLE, server_default="1", nullable=False),
        sa.Column("upstream_model", sa.Text(), nullable=False),
        sa.Column("price", sa.Text(), nullable=True),
        sa.Column("unmetered", WHOLE, server_default="0", nullable=False),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_attachments_enabled_flag")),
        sa.CheckConstraint("position >= 0", name=op.f("ck_attachments_position_counted")),
        sa.CheckConstraint("priority >= 0", name=op.f("ck_attachments_priority_counted")),
        sa.CheckConstraint("unmetered IN (0, 1)", name=op.f("ck_attachments_unmetered_flag")),
        sa.CheckConstraint("weight >= 1", name=op.f("ck_attachments_weight_positive")),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_attachments_model_models")),
        sa.ForeignKeyConstraint(["provider"], ["providers.name"], name=op.f("fk_attachments_provider_providers")),
        sa.PrimaryKeyConstraint("model", "provider", name=op.f("pk_attachments")),
        sa.UniqueConstraint("model", "priority", "position", name=op.f("uq_attachments_model_priority_position")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_attachments_provider"), "attachments", ["provider"], unique=False)


def downgrade() -> None:
    op.drop_table("attachments")
