"""
Attach every model that has no attachment to the enabled provider of its family: of several, the one whose name is lowest.

A model whose family has no enabled provider gets none, and so stays hidden until somebody attaches it.
Such attachments carry the instant 0 as their birth, which no clock gives: the downgrade removes these and leaves the others.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        INSERT INTO attachments
            (model, provider, priority, position, weight, upstream_model, unmetered, enabled, created_at, updated_at)
        SELECT models.name, providers.name, 0, 0, 1,
               coalesce(providers.default_upstream_model, models.name), 0, 1, 0, 0
        FROM models JOIN providers ON providers.name = (
            SELECT min(other.name) FROM providers AS other WHERE other.family = models.family AND other.enabled = 1
        )
        WHERE NOT EXISTS (SELECT 1 FROM attachments AS own WHERE own.model = models.name)
        """
    )


def downgrade() -> None:
    op.execute("DELETE FROM attachments WHERE created_at = 0")
