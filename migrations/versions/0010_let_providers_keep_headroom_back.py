"""
Let providers keep headroom back: a reserve, a share at which they pause, and pacing.
"""

from alembic import op

revision = "0010"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    whole = "BIGINT" if op.get_bind().dialect.name == "postgresql" else "INTEGER"
    op.execute(f"ALTER TABLE providers ADD COLUMN reserve_ppm {whole} DEFAULT '0' NOT NULL"
        " CONSTRAINT ck_providers_reserve_ppm_share CHECK (reserve_ppm >= 0 AND reserve_ppm < 1000000)")
    op.execute(f"ALTER TABLE providers ADD COLUMN pause_at_ppm {whole}"
        " CONSTRAINT ck_providers_pause_at_ppm_share CHECK (pause_at_ppm > 0 AND pause_at_ppm <= 1000000)")
    op.execute(f"ALTER TABLE providers ADD COLUMN pace {whole} DEFAULT '0' NOT NULL CONSTRAINT ck_providers_pace_flag CHECK (pace IN (0, 1))")


def downgrade() -> None:
    op.execute("ALTER TABLE providers DROP COLUMN pace")
    op.execute("ALTER TABLE providers DROP COLUMN pause_at_ppm")
    op.execute("ALTER TABLE providers DROP COLUMN reserve_ppm")
