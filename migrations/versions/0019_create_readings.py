"""
Create readings and totals: what upstreams last told of their windows, and what each account has posted and holds.

Both begin empty: only what totals grow by is ever asked for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
AMOUNTS = ("nusd", "requests", "input_tokens", "output_tokens")


def upgrade() -> None:
    op.create_table(
        "readings",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("seen", sa.Text(), nullable=False),
        sa.Column("calibration", sa.Text(), nullable=True),
        sa.Column("growth", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", "window", "model", "unit", name=op.f("pk_readings")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "totals",
        sa.Column("account", sa.Text(), nullable=False),
        *(sa.Column(f"{kind}_{amount}", WHOLE, nullable=False) for kind in ("posted", "held") for amount in AMOUNTS),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_totals")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("totals")
    op.drop_table("readings")
