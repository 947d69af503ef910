"""
Let providers say where their quota is learned from: headers, and endpoints that are polled.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE providers ADD COLUMN quota_sources TEXT DEFAULT '[\"headers\"]' NOT NULL")
    op.execute("ALTER TABLE providers ADD COLUMN pollers TEXT DEFAULT '[]' NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE providers DROP COLUMN pollers")
    op.execute("ALTER TABLE providers DROP COLUMN quota_sources")
