"""
The tables of the catalog: what the operator wants, and who changed it when.

Law: as in `tables`: these equal what the Alembic revisions build from empty.
Never: a secret; credentials are references, a caller's token is a digest.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Text, UniqueConstraint

from quota_router.store.columns import Whole, flag, instant, one_of, table, text, whole

providers = table(
    "providers",
    text("name"),
    text("family"),
    text("vendor"),
    text("account"),
    text("base_url"),
    text("credential_ref"),
    text("network"),
    text("allow", default="[]"),
    text("billing"),
    *flag("enabled", 1),
    *flag("paused", 0),
    text("default_upstream_model", null=True),
    text("display_name", default=""),
    text("description", default=""),
    whole("reserve_ppm", default=0),
    whole("pause_at_ppm", null=True),
    *flag("pace", 0),
    text("quota_sources", default='["headers"]'),
    text("pollers", default="[]"),
    text("command_template", default="[]"),
    text("env", default="{}"),
    text("command_options", default="{}"),
    text("paused_reason", default=""),
    text("managed_by"),
    whole("version", default=1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("name"),
    one_of("family", "openai", "anthropic"),
    one_of("network", "public", "private", "loopback"),
    one_of("billing", "metered", "flat"),
    CheckConstraint("reserve_ppm >= 0 AND reserve_ppm < 1000000", name="reserve_ppm_share"),
    CheckConstraint("pause_at_ppm > 0 AND pause_at_ppm <= 1000000", name="pause_at_ppm_share"),
    one_of("managed_by", "file", "api"),
)

models = table(
    "models",
    text("name"),
    text("family"),
    text("strategy"),
    text("display_name", default=""),
    text("capabilities", null=True),
    text("tags", default="[]"),
    whole("context_tokens", null=True),
    whole("max_output_tokens", null=True),
    text("fallbacks", default="[]"),
    text("price", null=True),
    *flag("enabled", 1),
    text("managed_by"),
    whole("version", default=1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("name"),
    one_of("family", "openai", "anthropic"),
    one_of("managed_by", "file", "api"),
    CheckConstraint("context_tokens > 0", name="context_tokens_positive"),
    CheckConstraint("max_output_tokens > 0", name="max_output_tokens_positive"),
)

model_aliases = table(
    "model_aliases",
    text("alias"),
    text("model"),
    PrimaryKeyConstraint("alias"),
    ForeignKeyConstraint(["model"], ["models.name"]),
    Index(None, "model"),
)

attachments = table(
    "attachments",
    text("model"),
    text("provider"),
    whole("priority"),
    whole("position"),
    whole("weight", default=1),
    text("upstream_model"),
    text("price", null=True),
    *flag("unmetered", 0),
    *flag("enabled", 1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("model", "provider"),
    UniqueConstraint("model", "priority", "position"),
    ForeignKeyConstraint(["model"], ["models.name"]),
    ForeignKeyConstraint(["provider"], ["providers.name"]),
    CheckConstraint("priority >= 0", name="priority_counted"),
    CheckConstraint("position >= 0", name="position_counted"),
    CheckConstraint("weight >= 1", name="weight_positive"),
    Index(None, "provider"),
)

limits = table(
    "limits",
    text("name"),
    text("kind"),
    text("subject"),
    text("unit"),
    whole("amount"),
    text("window"),
    text("anchor", null=True),
    text("timezone"),
    text("enforcement"),
    *flag("enabled", 1),
    text("managed_by"),
    whole("version", default=1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("name"),
    one_of("kind", "quota", "budget"),
    one_of("unit", "usd", "requests", "tokens", "input_tokens", "output_tokens", "concurrency"),
    one_of("enforcement", "strict", "bounded", "advisory"),
    one_of("managed_by", "file", "api"),
    CheckConstraint("amount >= 0", name="amount_counted"),
    Index(None, "subject"),
)

callers = table(
    "callers",
    text("name"),
    text("token_sha256"),
    text("scopes"),
    *flag("enabled", 1),
    text("managed_by"),
    whole("version", default=1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("name"),
    UniqueConstraint("token_sha256"),
    one_of("managed_by", "file", "api"),
    CheckConstraint("length(token_sha256) = 64", name="token_sha256_length"),
)

rules = table(
    "rules",
    text("name"),
    whole("rank"),
    text("condition"),
    text("model", null=True),
    text("provider", null=True),
    text("strategy", null=True),
    whole("share_ppm", null=True),
    text("on_unusable"),
    text("reason", null=True),
    *flag("enabled", 1),
    text("managed_by"),
    whole("version", default=1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("name"),
    one_of("on_unusable", "fall_through", "refuse"),
    one_of("managed_by", "file", "api"),
    CheckConstraint("share_ppm >= 0 AND share_ppm <= 1000000", name="share_ppm_share"),
)
"""Asked by `rank`, then `name`."""

workflows = table(
    "workflows",
    text("name"),
    text("stages"),
    *flag("enabled", 1),
    text("managed_by"),
    whole("version", default=1),
    instant("created_at"),
    instant("updated_at"),
    PrimaryKeyConstraint("name"),
    one_of("managed_by", "file", "api"),
)

epochs = table("epochs", text("name"), whole("value"), PrimaryKeyConstraint("name"))
"""One row, `catalog`: grows with every edit, so that whoever caches knows when to look again."""

_HAS_KEY = Column("idempotency_key", Text).is_not(None)

audit = table(
    "audit",
    Column("seq", Whole, autoincrement=False, nullable=False),
    instant("at"),
    text("admin"),
    text("action"),
    text("kind"),
    text("name"),
    whole("version", null=True),
    text("before", null=True),
    text("after", null=True),
    text("idempotency_key", null=True),
    text("fingerprint", null=True),
    PrimaryKeyConstraint("seq"),
    Index(None, "kind", "name"),
    Index("ix_audit_key", "admin", "idempotency_key", unique=True, sqlite_where=_HAS_KEY, postgresql_where=_HAS_KEY),
)
"""One line for each row of the catalog that was edited, in the transaction that edited it. `before` and `after` are its columns as
JSON: `NULL` where there was or is no row."""
