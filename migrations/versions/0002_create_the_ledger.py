"""
Create the ledger: calls, holds, entries and their projections, and the cooldowns.

Its append-only triggers are made after this revision, as after every other: see env.py.
"""

import sqlalchemy as sa
from alembic import op

from quota_router.store.triggers import drop_triggers

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = WHOLE  # microseconds since 1970, UTC


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("plane", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("labels", sa.Text(), server_default="[]", nullable=False),
        sa.Column("workflow", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.CheckConstraint("plane = 'data' OR plane = 'decision'", name=op.f("ck_calls_plane_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    has_key = sa.text("idempotency_key IS NOT NULL")
    op.create_index(
        op.f("ix_calls_key"), "calls", ["caller", "idempotency_key"], unique=True, sqlite_where=has_key, postgresql_where=has_key
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=False),
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("attempt", WHOLE, nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("upstream_model", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), server_default="[]", nullable=False),
        sa.Column("workflow", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("plane", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("estimate", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("status", WHOLE, nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("latency_ms", WHOLE, nullable=True),
        sa.Column("first_byte_ms", WHOLE, nullable=True),
        sa.Column("held_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("resolved_at", INSTANT, nullable=True),
        sa.CheckConstraint("(state = 'held') = (resolved_at IS NULL)", name=op.f("ck_holds_resolved_when_not_held")),
        sa.CheckConstraint("outcome = 'ok' OR outcome = 'failed' OR outcome = 'unknown' OR outcome = 'cancelled'", name=op.f("ck_holds_outcome_known")),
        sa.CheckConstraint("plane = 'data' OR plane = 'decision'", name=op.f("ck_holds_plane_known")),
        sa.CheckConstraint("state = 'held' OR state = 'posted' OR state = 'voided' OR state = 'expired'", name=op.f("ck_holds_state_known")),
        sa.ForeignKeyConstraint(["call_id"], ["calls.id"], name=op.f("fk_holds_call_id_calls")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_holds_call_id"), "holds", ["call_id"], unique=False)
    op.create_index(
        "ix_holds_open",
        "holds",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("state = 'held'"),
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_table(
        "entries",
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("call_id", sa.Text(), nullable=True),
        sa.Column("hold_id", sa.Text(), nullable=True),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("upstream_model", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("labels", sa.Text(), server_default="[]", nullable=False),
        sa.Column("workflow", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=True),
        sa.Column("cost_nusd", WHOLE, nullable=True),
        sa.Column("estimate_nusd", WHOLE, nullable=True),
        sa.Column("shadow_cost_nusd", WHOLE, nullable=True),
        sa.Column("input", WHOLE, nullable=False),
        sa.Column("cache_read", WHOLE, nullable=False),
        sa.Column("cache_write_5m", WHOLE, nullable=False),
        sa.Column("cache_write_1h", WHOLE, nullable=False),
        sa.Column("output", WHOLE, nullable=False),
        sa.Column("reasoning", WHOLE, nullable=False),
        sa.Column("quality", sa.Text(), nullable=False),
        sa.Column("price_source", sa.Text(), nullable=True),
        sa.Column("price_version", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("admin", sa.Text(), nullable=True),
        sa.Column("held_at", INSTANT, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint(
            "kind <> 'adjust' OR (reason IS NOT NULL AND admin IS NOT NULL)", name=op.f("ck_entries_adjust_explained")
        ),
        sa.CheckConstraint("cost_nusd >= 0 OR kind = 'late' OR kind = 'adjust'", name=op.f("ck_entries_cost_counted")),
        sa.CheckConstraint("kind = 'post' OR kind = 'expire' OR kind = 'late' OR kind = 'adjust'", name=op.f("ck_entries_kind_known")),
        sa.CheckConstraint("quality = 'reported' OR quality = 'estimated' OR quality = 'assumed'", name=op.f("ck_entries_quality_known")),
        sa.CheckConstraint("abs(cost_nusd) < 9007199254740992", name=op.f("ck_entries_cost_exact")),
        sa.PrimaryKeyConstraint("journal", "seq", name=op.f("pk_entries")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_entries_held_at"), "entries", ["held_at"], unique=False)
    op.create_index("ix_entries_resolution", "entries", ["hold_id", "kind"], unique=True)
    op.create_table(
        "journals",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seq", WHOLE, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_journals")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "windows",
        sa.Column("limit_name", sa.Text(), nullable=False),
        sa.Column("start", INSTANT, nullable=False),
        sa.Column("end", INSTANT, nullable=False),
        sa.Column("opened_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("limit_name", "start", name=op.f("pk_windows")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "balances",
        sa.Column("limit_name", sa.Text(), nullable=False),
        sa.Column("bucket", INSTANT, nullable=False),
        sa.Column("posted", WHOLE, nullable=False),
        sa.Column("held", WHOLE, nullable=False),
        sa.CheckConstraint("held >= 0", name=op.f("ck_balances_held_counted")),
        sa.PrimaryKeyConstraint("limit_name", "bucket", name=op.f("pk_balances")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "estimates",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("answers", WHOLE, nullable=False),
        sa.Column("input_histogram", sa.Text(), nullable=False),
        sa.Column("output_histogram", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", "provider", name=op.f("pk_estimates")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cooldowns",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("failures", WHOLE, nullable=False),
        sa.Column("strikes", WHOLE, nullable=False),
        sa.Column("probe_hold", sa.Text(), nullable=True),
        sa.Column("probe_until", INSTANT, nullable=True),
        sa.CheckConstraint("(probe_hold IS NULL) = (probe_until IS NULL)", name=op.f("ck_cooldowns_probe_whole")),
        sa.CheckConstraint("source = 'said' OR source = 'assumed'", name=op.f("ck_cooldowns_source_known")),
        sa.CheckConstraint("failures >= 0", name=op.f("ck_cooldowns_failures_counted")),
        sa.PrimaryKeyConstraint("provider", "model", name=op.f("pk_cooldowns")),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    drop_triggers(op.get_bind())
    op.drop_table("cooldowns")
    op.drop_table("estimates")
    op.drop_table("balances")
    op.drop_table("windows")
    op.drop_table("journals")
    op.drop_table("entries")
    op.drop_table("holds")
    op.drop_table("calls")
