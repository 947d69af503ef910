"""
Tag models with free words.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE models ADD COLUMN tags TEXT DEFAULT '[]' NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE models DROP COLUMN tags")
