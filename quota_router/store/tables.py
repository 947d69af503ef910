"""
The tables of the ledger and the catalog, as SQLAlchemy Core.

Law: these tables equal what the Alembic revisions build from empty, on every database; a test compares them.
Never: mapped classes; what a column is made of is in `columns`.
"""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, LargeBinary, PrimaryKeyConstraint, Text

from quota_router.store.catalog_tables import (
    attachments,
    audit,
    callers,
    epochs,
    limits,
    model_aliases,
    models,
    providers,
    rules,
    workflows,
)
from quota_router.store.columns import EPOCH, MICROSECOND, Instant, Whole, metadata, microseconds
from quota_router.store.columns import instant as _instant
from quota_router.store.columns import one_of as _one_of
from quota_router.store.columns import table as _table
from quota_router.store.columns import text as _text
from quota_router.store.columns import whole as _whole

__all__ = [
    "EPOCH",
    "MICROSECOND",
    "Instant",
    "Whole",
    "attachments",
    "audit",
    "balances",
    "callers",
    "calls",
    "cooldowns",
    "entries",
    "epochs",
    "estimates",
    "holds",
    "journals",
    "limits",
    "metadata",
    "microseconds",
    "model_aliases",
    "models",
    "providers",
    "rules",
    "windows",
    "workflows",
]

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
    _text("rule", null=True),
    _text("router", null=True),
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
`NULL`: the price is unknown. In an adjustment `hold_id` is its own id, which no hold has."""

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

_AMOUNTS = ("nusd", "requests", "input_tokens", "output_tokens")

totals = _table(
    "totals",
    _text("account"),
    *(_whole(f"{kind}_{amount}") for kind in ("posted", "held") for amount in _AMOUNTS),
    PrimaryKeyConstraint("account"),
)
"""What each account has posted and holds, at list price: what is new since a reading is a difference of two of these."""

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

readings = _table(
    "readings",
    _text("account"),
    _text("window"),
    _text("model"),
    _text("unit"),
    _text("seen"),
    _text("calibration", null=True),
    _text("growth", null=True),
    PrimaryKeyConstraint("account", "window", "model", "unit"),
)
"""What an upstream last told of each of its windows, and what was learned from it."""
