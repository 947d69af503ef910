"""
Let providers be programs of this machine, with variables of their own.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE providers ADD COLUMN command_template TEXT DEFAULT '[]' NOT NULL")
    op.execute("ALTER TABLE providers ADD COLUMN env TEXT DEFAULT '{}' NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE providers DROP COLUMN env")
    op.execute("ALTER TABLE providers DROP COLUMN command_template")
