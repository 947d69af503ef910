"""
Say of a provider's command how it is given its prompt and its key, how long it may take, and how its answer is read.

An older row says none of it, which is what its program did: a prompt in a file, and all that it writes is the answer.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE providers ADD COLUMN command_options TEXT DEFAULT '{}' NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE providers DROP COLUMN command_options")
