"""
Let holds tell which rule and which router sent their call: usage is told by rule.

Holds from before follow none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("holds", sa.Column("rule", sa.Text(), nullable=True))
    op.add_column("holds", sa.Column("router", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("holds", "router")
    op.drop_column("holds", "rule")
