"""
The tables of the ledger and the catalog, as SQLAlchemy Core.

Law: these tables equal what the Alembic revisions build from empty, on every database; a test compares them.
Never: mapped classes. Instants are integers (microseconds since 1970, UTC), amounts integers, lists JSON text, flags 0 or 1:
the same bytes on SQLite (STRICT tables) and PostgreSQL.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Whole = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit integer: SQLite's STRICT tables know only the word INTEGER."""


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as whole microseconds since 1970."""

    impl = Whole
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 -- SQLAlchemy's signature
        """Store whole microseconds, rounded down."""
        return None if value is None else microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- likewise
        """Read it back, aware and in UTC."""
        return None if value is None else EPOCH + timedelta(microseconds=value)


def _table(name: str, *parts: SchemaItem) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True, sqlite_with_rowid=False)


def _one_of(column: str, *words: str) -> CheckConstraint:
    # Not `IN`: for three words or more SQLite builds a table of them, anew for every row.
    return CheckConstraint(" OR ".join(f"{column} = '{word}'" for word in words), name=f"{column}_known")


def _flag(name: str, default: int) -> tuple[Column[int], CheckConstraint]:
    column = Column(name, Whole, nullable=False, server_default=str(default))
    return column, CheckConstraint(f"{name} IN (0, 1)", name=f"{name}_flag")


def _text(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, Text, nullable=null, server_default=default)


def microseconds(at: datetime) -> int:
    """An instant as it is stored, rounded down."""
    return (at - EPOCH) // MICROSECOND


def _whole(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, Whole, nullable=null)


def _instant(name: str, *, null: bool = False) -> Column[datetime]:
    return Column(name, Instant, nullable=null)


# --- what the operator wants ------------------------------------------------------------------------------------------

providers = _table(
    "providers",
    _text("name"),
    _text("family"),
    _text("vendor"),
    _text("account"),
    _text("base_url"),
    _text("credential_ref"),
    _text("network"),
    _text("allow", default="[]"),
    _text("billing"),
    *_flag("enabled", 1),
    *_flag("paused", 0),
    _text("default_upstream_model", null=True),
    _text("display_name", default=""),
    _text("description", default=""),
    _text("managed_by"),
    Column("version", Whole, nullable=False, server_default="1"),
    _instant("created_at"),
    _instant("updated_at"),
    PrimaryKeyConstraint("name"),
    _one_of("family", "openai", "anthropic"),
    _one_of("network", "public", "private", "loopback"),
    _one_of("billing", "metered", "flat"),
    _one_of("managed_by", "file", "api"),
)

models = _table(
    "models",
    _text("name"),
    _text("family"),
    _text("strategy"),
    _text("display_name", default=""),
    _text("capabilities", null=True),
    _whole("context_tokens", null=True),
    _whole("max_output_tokens", null=True),
    _text("fallbacks", default="[]"),
    _text("price", null=True),
    *_flag("enabled", 1),
    _text("managed_by"),
    Column("version", Whole, nullable=False, server_default="1"),
    _instant("created_at"),
    _instant("updated_at"),
    PrimaryKeyConstraint("name"),
    _one_of("family", "openai", "anthropic"),
    _one_of("managed_by", "file", "api"),
    CheckConstraint("context_tokens > 0", name="context_tokens_positive"),
    CheckConstraint("max_output_tokens > 0", name="max_output_tokens_positive"),
)

model_aliases = _table(
    "model_aliases",
    _text("alias"),
    _text("model"),
    PrimaryKeyConstraint("alias"),
    ForeignKeyConstraint(["model"], ["models.name"]),
    Index(None, "model"),
)

attachments = _table(
    "attachments",
    _text("model"),
    _text("provider"),
    _whole("priority"),
    _whole("position"),
    Column("weight", Whole, nullable=False, server_default="1"),
    _text("upstream_model"),
    _text("price", null=True),
    *_flag("unmetered", 0),
    *_flag("enabled", 1),
    _instant("created_at"),
    _instant("updated_at"),
    PrimaryKeyConstraint("model", "provider"),
    UniqueConstraint("model", "priority", "position"),
    ForeignKeyConstraint(["model"], ["models.name"]),
    ForeignKeyConstraint(["provider"], ["providers.name"]),
    CheckConstraint("priority >= 0", name="priority_counted"),
    CheckConstraint("position >= 0", name="position_counted"),
    CheckConstraint("weight >= 1", name="weight_positive"),
    Index(None, "provider"),
)

limits = _table(
    "limits",
    _text("name"),
    _text("kind"),
    _text("subject"),
    _text("unit"),
    _whole("amount"),
    _text("window"),
    _text("anchor", null=True),
    _text("timezone"),
    _text("enforcement"),
    *_flag("enabled", 1),
    _text("managed_by"),
    Column("version", Whole, nullable=False, server_default="1"),
    _instant("created_at"),
    _instant("updated_at"),
    PrimaryKeyConstraint("name"),
    _one_of("kind", "quota", "budget"),
    _one_of("unit", "usd", "requests", "tokens", "input_tokens", "output_tokens", "concurrency"),
    _one_of("enforcement", "strict", "bounded", "advisory"),
    _one_of("managed_by", "file", "api"),
    CheckConstraint("amount >= 0", name="amount_counted"),
    Index(None, "subject"),
)

callers = _table(
    "callers",
    _text("name"),
    _text("token_sha256"),
    _text("scopes"),
    *_flag("enabled", 1),
    _text("managed_by"),
    _instant("created_at"),
    _instant("updated_at"),
    PrimaryKeyConstraint("name"),
    UniqueConstraint("token_sha256"),
    _one_of("managed_by", "file", "api"),
    CheckConstraint("length(token_sha256) = 64", name="token_sha256_length"),
)

epochs = _table("epochs", _text("name"), _whole("value"), PrimaryKeyConstraint("name"))
"""One row, `catalog`: grows with every edit, so that whoever caches knows when to look again."""

# --- what was booked --------------------------------------------------------------------------------------------------

_HAS_KEY = Column("idempotency_key", Text).is_not(None)

calls = _table(
    "calls",
    _text("id"),
    _text("caller"),
    _text("idempotency_key", null=True),
    _text("fingerprint", null=True),
    _text("plane"),
    _text("operation"),
    _text("model", null=True),
    _text("labels", default="[]"),
    _text("workflow", null=True),
    _text("stage", null=True),
    _text("decision"),
    _instant("at"),
    PrimaryKeyConstraint("id"),
    _one_of("plane", "data", "decision"),
    Index("ix_calls_key", "caller", "idempotency_key", unique=True, sqlite_where=_HAS_KEY, postgresql_where=_HAS_KEY),
)

holds = _table(
    "holds",
    _text("id"),
    Column("call_id", Text, ForeignKey("calls.id"), nullable=False),
    _text("journal"),
    _whole("attempt"),
    _text("provider"),
    _text("account"),
    _text("model"),
    _text("upstream_model"),
    _text("caller"),
    _text("labels", default="[]"),
    _text("workflow", null=True),
    _text("stage", null=True),
    _text("plane"),
    _text("state"),
    _text("estimate"),
    _text("outcome", null=True),
    _text("failure", null=True),
    _whole("status", null=True),
    _text("fingerprint", null=True),
    _whole("latency_ms", null=True),
    _whole("first_byte_ms", null=True),
    _instant("held_at"),
    _instant("expires_at"),
    _instant("resolved_at", null=True),
    PrimaryKeyConstraint("id"),
    _one_of("plane", "data", "decision"),
    _one_of("state", "held", "posted", "voided", "expired"),
    _one_of("outcome", "ok", "failed", "unknown", "cancelled"),
    CheckConstraint("(state = 'held') = (resolved_at IS NULL)", name="resolved_when_not_held"),
    Index(None, "call_id"),
    Index(
        "ix_holds_open",
        "expires_at",
        sqlite_where=Column("state", Text) == "held",
        postgresql_where=Column("state", Text) == "held",
    ),
)

entries = _table(
    "entries",
    _text("journal"),
    _whole("seq"),
    _text("kind"),
    _text("call_id", null=True),
    _text("hold_id", null=True),
    _text("provider"),
    _text("account"),
    _text("model"),
    _text("upstream_model"),
    _text("caller"),
    _text("labels", default="[]"),
    _text("workflow", null=True),
    _text("stage", null=True),
    _whole("cost_nusd", null=True),
    _whole("estimate_nusd", null=True),
    _whole("shadow_cost_nusd", null=True),
    _whole("input"),
    _whole("cache_read"),
    _whole("cache_write_5m"),
    _whole("cache_write_1h"),
    _whole("output"),
    _whole("reasoning"),
    _text("quality"),
    _text("price_source", null=True),
    _text("price_version", null=True),
    _text("reason", null=True),
    _text("admin", null=True),
    _instant("held_at"),
    _instant("at"),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("journal", "seq"),
    _one_of("kind", "post", "expire", "late", "adjust"),
    _one_of("quality", "reported", "estimated", "assumed"),
    CheckConstraint("cost_nusd >= 0 OR kind = 'late' OR kind = 'adjust'", name="cost_counted"),
    CheckConstraint("abs(cost_nusd) < 9007199254740992", name="cost_exact"),
    CheckConstraint("kind <> 'adjust' OR (reason IS NOT NULL AND admin IS NOT NULL)", name="adjust_explained"),
    Index(None, "held_at"),
    Index("ix_entries_resolution", "hold_id", "kind", unique=True),
)
"""Money only, append-only; a call's are found through its holds. `cost_nusd` is the change in spend, so that the sum is spend.
`NULL`: the price is unknown."""

journals = _table(
    "journals",
    _text("name"),
    _whole("seq"),
    Column("hash", LargeBinary, nullable=False),
    _instant("at"),
    PrimaryKeyConstraint("name"),
)
"""The head of each journal's hash chain: the seq, hash and time of its last entry."""

windows = _table(
    "windows",
    _text("limit_name"),
    _instant("start"),
    _instant("end"),
    _text("opened_by"),
    PrimaryKeyConstraint("limit_name", "start"),
)
"""First-use windows that a hold opened."""

balances = _table(
    "balances",
    _text("limit_name"),
    _instant("bucket"),
    _whole("posted"),
    _whole("held"),
    PrimaryKeyConstraint("limit_name", "bucket"),
    CheckConstraint("held >= 0", name="held_counted"),
)
"""The projection of entries and open holds onto a limit's window, kept so that a check costs one row and not a sum."""

estimates = _table(
    "estimates",
    _text("model"),
    _text("provider"),
    _whole("answers"),
    _text("input_histogram"),
    _text("output_histogram"),
    PrimaryKeyConstraint("model", "provider"),
)
"""What answers of an attachment have used, as counts per bucket: the source of the `bounded` quantile."""

# --- what the upstreams said ------------------------------------------------------------------------------------------

cooldowns = _table(
    "cooldowns",
    _text("provider"),
    _text("model"),
    _instant("until"),
    _text("source"),
    _text("cause"),
    _whole("failures"),
    _whole("strikes"),
    _text("probe_hold", null=True),
    _instant("probe_until", null=True),
    PrimaryKeyConstraint("provider", "model"),
    _one_of("source", "said", "assumed"),
    CheckConstraint("failures >= 0", name="failures_counted"),
    CheckConstraint("(probe_hold IS NULL) = (probe_until IS NULL)", name="probe_whole"),
)
"""Rungs not to try before `until`, and then by one probe alone; model `''` stands for the whole provider."""
