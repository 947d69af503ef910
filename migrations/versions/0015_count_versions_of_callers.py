"""
Count the versions of callers, so that an edit can name the one it was made on.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    op.execute(f"ALTER TABLE callers ADD COLUMN version {whole} DEFAULT '1' NOT NULL")


def downgrade() -> None:
    op.execute("ALTER TABLE callers DROP COLUMN version")
