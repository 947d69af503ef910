"""
The rows that a batch writes, and the statement of each kind, compiled once.

Law: a row's fields are its statement's parameters, by name and in order; its values are what a driver takes as they are: text,
whole numbers, bytes, `None`. Instants are microseconds since 1970.
Never: decides; begins or commits a transaction, that is the writer's.

Decision 2026-11 -- the driver gets compiled text and tuples: letting SQLAlchemy bind every row cost as much again as SQLite's own
    work. Look again if a driver needs more than whole numbers, text and bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import astuple
from msgspec.structs import fields as fields_of
from sqlalchemy import ClauseElement, Connection, Table, and_, bindparam, delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from quota_router.store.tables import balances, calls, cooldowns, entries, estimates, holds, journals, readings, totals, windows


class NewCall(Struct, frozen=True, kw_only=True):
    """A call, told once: what became of it stands in its holds."""

    id: str
    caller: str
    idempotency_key: str | None
    fingerprint: str | None
    plane: str
    operation: str
    model: str | None
    labels: str
    workflow: str | None
    stage: str | None
    decision: str
    at: int


class Redecided(Struct, frozen=True, kw_only=True):
    """The decision behind a later attempt; it tells of every rung again."""

    decision: str
    of_call: str


class NewHold(Struct, frozen=True, kw_only=True):
    """A hold that is held."""

    id: str
    call_id: str
    journal: str
    attempt: int
    provider: str
    account: str
    model: str
    upstream_model: str
    caller: str
    labels: str
    workflow: str | None
    stage: str | None
    rule: str | None
    router: str | None
    plane: str
    state: str
    estimate: str
    held_at: int
    expires_at: int


class ResolvedHold(Struct, frozen=True, kw_only=True):
    """How a hold left `held`."""

    state: str
    outcome: str
    failure: str | None
    status: int | None
    fingerprint: str | None
    latency_ms: int | None
    first_byte_ms: int | None
    resolved_at: int
    of_hold: str


class ExtendedHold(Struct, frozen=True, kw_only=True):
    """An open hold that got more time, or another estimate."""

    estimate: str
    expires_at: int
    of_hold: str


class CorrectedHold(Struct, frozen=True, kw_only=True):
    """An expired hold of which word came after all."""

    fingerprint: str | None
    of_hold: str


class Entry(Struct, frozen=True, kw_only=True, array_like=True):
    """One line of money, all but its hash, which is worked out from this."""

    journal: str
    seq: int
    kind: str
    call_id: str | None
    hold_id: str | None
    provider: str
    account: str
    model: str
    upstream_model: str
    caller: str
    labels: str
    workflow: str | None
    stage: str | None
    cost_nusd: int | None
    estimate_nusd: int | None
    shadow_cost_nusd: int | None
    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    quality: str
    price_source: str | None
    price_version: str | None
    reason: str | None
    admin: str | None
    held_at: int
    at: int


class OpenedWindow(Struct, frozen=True, kw_only=True):
    """A first-use window, and the hold that opened it."""

    limit_name: str
    start: int
    end: int
    opened_by: str


class MovedBalance(Struct, frozen=True, kw_only=True):
    """What one bucket of one limit has taken now."""

    limit_name: str
    bucket: int
    posted: int
    held: int


class MovedTotal(Struct, frozen=True, kw_only=True):
    """What an account's totals grew by in this batch."""

    account: str
    posted_nusd: int
    posted_requests: int
    posted_input_tokens: int
    posted_output_tokens: int
    held_nusd: int
    held_requests: int
    held_input_tokens: int
    held_output_tokens: int


class SetReading(Struct, frozen=True, kw_only=True):
    """What is known of one window of an upstream."""

    account: str
    window: str
    model: str
    unit: str
    seen: str
    calibration: str | None
    growth: str | None


class EndedCooldown(Struct, frozen=True, kw_only=True):
    """A cooldown to be forgotten."""

    of_provider: str
    of_model: str


class SetCooldown(Struct, frozen=True, kw_only=True):
    """A cooldown that stands now."""

    provider: str
    model: str
    until: int
    source: str
    cause: str
    failures: int
    strikes: int
    probe_hold: str | None
    probe_until: int | None


class Taught(Struct, frozen=True, kw_only=True):
    """What the answers of one attachment have used."""

    model: str
    provider: str
    answers: int
    input_histogram: str
    output_histogram: str


class JournalHead(Struct, frozen=True, kw_only=True):
    """The end of a journal's chain."""

    name: str
    seq: int
    hash: bytes
    at: int


Batch = Mapping[type[Struct], Sequence[tuple[Any, ...]]]
"""What a batch writes: the values of each row, by its kind."""


class Statement(Struct, frozen=True):
    """One kind of row's statement, and the names of its parameters in order."""

    sql: str
    names: tuple[str, ...]


Statements = Mapping[type[Struct], Statement]


def statements_for(dialect: Dialect) -> Statements:
    """Compile the statement of each kind of row, in the order in which they are written: a call before its holds."""
    upsert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

    def new(table: Table, kind: type[Struct], *more: str) -> ClauseElement:
        names = (*(field.name for field in fields_of(kind)), *more)
        return insert(table).values({name: bindparam(name) for name in names})

    def merge(table: Table, *key: str) -> ClauseElement:
        statement = upsert(table)
        kept = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in key}
        return statement.on_conflict_do_update(index_elements=list(key), set_=kept)

    def grow(table: Table, *key: str) -> ClauseElement:
        statement = upsert(table)
        grown = {column.name: column + statement.excluded[column.name] for column in table.columns if column.name not in key}
        return statement.on_conflict_do_update(index_elements=list(key), set_=grown)

    def change(table: Table, kind: type[Struct]) -> ClauseElement:
        *names, of = (field.name for field in fields_of(kind))
        return update(table).where(table.c.id == bindparam(of)).values({name: bindparam(name) for name in names})

    ended = and_(cooldowns.c.provider == bindparam("of_provider"), cooldowns.c.model == bindparam("of_model"))
    statements: dict[type[Struct], ClauseElement] = {
        NewCall: new(calls, NewCall),
        NewHold: new(holds, NewHold),
        ResolvedHold: change(holds, ResolvedHold),
        ExtendedHold: change(holds, ExtendedHold),
        CorrectedHold: change(holds, CorrectedHold),
        Entry: new(entries, Entry, "hash"),
        Redecided: change(calls, Redecided),
        OpenedWindow: new(windows, OpenedWindow),
        MovedBalance: merge(balances, "limit_name", "bucket"),
        MovedTotal: grow(totals, "account"),
        # What ended first: a rung may fail again in the same batch, and that cooldown stays.
        EndedCooldown: delete(cooldowns).where(ended),
        SetCooldown: merge(cooldowns, "provider", "model"),
        SetReading: merge(readings, "account", "window", "model", "unit"),
        Taught: merge(estimates, "model", "provider"),
        JournalHead: merge(journals, "name"),
    }
    return {kind: _compile(statement, dialect) for kind, statement in statements.items()}


def write_rows(conn: Connection, statements: Statements, batch: Batch) -> None:
    """Write one batch through the driver's own cursor; its own errors come out."""
    cursor = conn.connection.cursor()
    for kind, statement in statements.items():
        rows = batch.get(kind)
        if rows:
            cursor.executemany(statement.sql, rows)
    cursor.close()


def values_of(row: Struct) -> tuple[Any, ...]:
    """A row's values, in the order of its fields."""
    return astuple(row)


def _compile(statement: ClauseElement, dialect: Dialect) -> Statement:
    text = cast("SQLCompiler", statement.compile(dialect=dialect))
    assert text.positional, "the engine is made with a paramstyle of places, not names"
    return Statement(sql=str(text), names=tuple(text.positiontup or ()))
