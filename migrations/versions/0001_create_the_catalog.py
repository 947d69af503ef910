"""
Create the catalog: what the operator wants, and the epoch that grows with every edit.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = WHOLE  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "providers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("vendor", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("credential_ref", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("allow", sa.Text(), server_default="[]", nullable=False),
        sa.Column("billing", sa.Text(), nullable=False),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("paused", WHOLE, server_default="0", nullable=False),
        sa.Column("default_upstream_model", sa.Text(), nullable=True),
        sa.Column("display_name", sa.Text(), server_default="", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("version", WHOLE, server_default="1", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("billing = 'metered' OR billing = 'flat'", name=op.f("ck_providers_billing_known")),
        sa.CheckConstraint("family = 'openai' OR family = 'anthropic'", name=op.f("ck_providers_family_known")),
        sa.CheckConstraint("managed_by = 'file' OR managed_by = 'api'", name=op.f("ck_providers_managed_by_known")),
        sa.CheckConstraint("network = 'public' OR network = 'private' OR network = 'loopback'", name=op.f("ck_providers_network_known")),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_providers_enabled_flag")),
        sa.CheckConstraint("paused IN (0, 1)", name=op.f("ck_providers_paused_flag")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_providers")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "models",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("strategy", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), server_default="", nullable=False),
        sa.Column("capabilities", sa.Text(), nullable=True),
        sa.Column("context_tokens", WHOLE, nullable=True),
        sa.Column("max_output_tokens", WHOLE, nullable=True),
        sa.Column("fallbacks", sa.Text(), server_default="[]", nullable=False),
        sa.Column("price", sa.Text(), nullable=True),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("version", WHOLE, server_default="1", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("family = 'openai' OR family = 'anthropic'", name=op.f("ck_models_family_known")),
        sa.CheckConstraint("managed_by = 'file' OR managed_by = 'api'", name=op.f("ck_models_managed_by_known")),
        sa.CheckConstraint("context_tokens > 0", name=op.f("ck_models_context_tokens_positive")),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_models_enabled_flag")),
        sa.CheckConstraint("max_output_tokens > 0", name=op.f("ck_models_max_output_tokens_positive")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_models")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "model_aliases",
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_aliases_model_models")),
        sa.PrimaryKeyConstraint("alias", name=op.f("pk_model_aliases")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_model_aliases_model"), "model_aliases", ["model"], unique=False)
    op.create_table(
        "limits",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("amount", WHOLE, nullable=False),
        sa.Column("window", sa.Text(), nullable=False),
        sa.Column("anchor", sa.Text(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("enforcement", sa.Text(), nullable=False),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("version", WHOLE, server_default="1", nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("enforcement = 'strict' OR enforcement = 'bounded' OR enforcement = 'advisory'", name=op.f("ck_limits_enforcement_known")),
        sa.CheckConstraint("kind = 'quota' OR kind = 'budget'", name=op.f("ck_limits_kind_known")),
        sa.CheckConstraint("managed_by = 'file' OR managed_by = 'api'", name=op.f("ck_limits_managed_by_known")),
        sa.CheckConstraint(
            "unit = 'usd' OR unit = 'requests' OR unit = 'tokens' OR unit = 'input_tokens' OR unit = 'output_tokens' OR unit = 'concurrency'", name=op.f("ck_limits_unit_known"),
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_limits_amount_counted")),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_limits_enabled_flag")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_limits")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_limits_subject"), "limits", ["subject"], unique=False)
    op.create_table(
        "callers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_sha256", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("enabled", WHOLE, server_default="1", nullable=False),
        sa.Column("managed_by", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint("managed_by = 'file' OR managed_by = 'api'", name=op.f("ck_callers_managed_by_known")),
        sa.CheckConstraint("enabled IN (0, 1)", name=op.f("ck_callers_enabled_flag")),
        sa.CheckConstraint("length(token_sha256) = 64", name=op.f("ck_callers_token_sha256_length")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_callers")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_callers_token_sha256")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "epochs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", WHOLE, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_epochs")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO epochs (name, value) VALUES ('catalog', 0)")


def downgrade() -> None:
    op.drop_table("epochs")
    op.drop_table("callers")
    op.drop_table("limits")
    op.drop_table("model_aliases")
    op.drop_table("models")
    op.drop_table("providers")
