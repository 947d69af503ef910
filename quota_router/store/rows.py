"""
Between rows and values: how the lane's state is read from its tables, and how a batch's rows are written back.

Law: reading what was written gives the same state; a balance is only ever the projection that `project` would give.
Never: decides; never commits, that is the lane's.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

import msgspec
from msgspec import Struct
from sqlalchemy import ClauseElement, Connection, Row, Select, Table, and_, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

from quota_router.core.calls import Plane
from quota_router.core.estimates import Estimate, Learned
from quota_router.core.health import Cooldown, CooldownSource, FailureKind
from quota_router.core.holds import Charge, EntryKind, Event, Hold, HoldState, Outcome, Settlement, charges_of
from quota_router.core.limits import Limit, Unit, Window, subjects_of
from quota_router.core.usage import BUCKETS, Quality, Usage
from quota_router.core.windows import coverage
from quota_router.store.catalog import load_catalog
from quota_router.store.state import Balance, Head, OpenHold, Resolved, State, Write
from quota_router.store.tables import (
    EPOCH,
    MICROSECOND,
    balances,
    calls,
    cooldowns,
    entries,
    estimates,
    holds,
    journals,
    windows,
)

GENESIS = Head(seq=0, hash=bytes(32), at=EPOCH)
"""The head of a journal that holds nothing yet."""


class Statement(Struct, frozen=True):
    """
    One kind of row's statement, compiled once.

    Decision 2026-11 -- the driver gets the compiled text and ready values: letting SQLAlchemy bind every row cost as much again as
        SQLite's own work. Look again if a driver needs more than whole numbers, text and bytes.
    """

    sql: str
    names: tuple[str, ...]
    is_positional: bool

    def values(self, row: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- a tuple or a mapping, as the driver asks
        """Lay one row out as the driver takes it, instants as microseconds."""
        laid = [(value - EPOCH) // MICROSECOND if type(value := row.get(name)) is datetime else value for name in self.names]
        return tuple(laid) if self.is_positional else dict(zip(self.names, laid, strict=True))


Statements = Mapping[Write, Statement]


def statements_for(dialect: Dialect) -> Statements:
    """Compile the statement of each kind of row, in the order in which they are written."""
    upsert = postgresql.insert if dialect.name == "postgresql" else sqlite.insert

    def merge(table: Table, *key: str) -> ClauseElement:
        statement = upsert(table)
        kept = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in key}
        return statement.on_conflict_do_update(index_elements=list(key), set_=kept)

    def change(table: Table, *columns: str) -> ClauseElement:
        return update(table).where(table.c.id == bindparam("_id")).values({name: bindparam(name) for name in columns})

    def compiled(statement: ClauseElement) -> Statement:
        text = cast("SQLCompiler", statement.compile(dialect=dialect))
        names = text.positiontup if text.positional else tuple(text.params)
        return Statement(sql=str(text), names=tuple(names or ()), is_positional=text.positional)

    resolved = ("state", "outcome", "failure", "status", "fingerprint", "latency_ms", "first_byte_ms", "resolved_at")
    ended = and_(cooldowns.c.provider == bindparam("_provider"), cooldowns.c.model == bindparam("_model"))
    statements: dict[Write, ClauseElement] = {
        Write.NEW_CALL: insert(calls),
        Write.NEW_HOLD: insert(holds),
        Write.RESOLVED_HOLD: change(holds, *resolved),
        Write.EXTENDED_HOLD: change(holds, "expires_at", "estimate"),
        Write.CORRECTED_HOLD: change(holds, "fingerprint"),
        Write.ENTRY: insert(entries),
        Write.REDECIDED_CALL: change(calls, "decision"),
        Write.ENDED_CALL: change(calls, "state", "status", "ended_at"),
        Write.WINDOW: insert(windows),
        Write.BALANCE: merge(balances, "limit_name", "bucket"),
        # What ended first: a rung may fail again in the same batch, and that cooldown stays.
        Write.ENDED_COOLDOWN: delete(cooldowns).where(ended),
        Write.COOLDOWN: merge(cooldowns, "provider", "model"),
        Write.LEARNED: merge(estimates, "model", "provider"),
        Write.HEAD: merge(journals, "name"),
    }
    return {kind: compiled(statement) for kind, statement in statements.items()}


def write_rows(conn: Connection, statements: Statements, writes: Mapping[Write, list[dict[str, Any]]]) -> None:
    """
    Write one batch, kind by kind, in the order of the statements: a call before its holds, a hold before its entry.

    The driver's own cursor is used, and its own errors come out.
    """
    cursor = conn.connection.cursor()
    for kind, statement in statements.items():
        rows = writes.get(kind)
        if rows:
            cursor.executemany(statement.sql, [statement.values(row) for row in rows])
    cursor.close()


def load_state(conn: Connection, journal: str, now: datetime) -> State:
    """Read the whole present: catalog, chain head, open holds, windows, balances that count, cooldowns, what was learned."""
    catalog = load_catalog(conn)
    head = conn.execute(select(journals).where(journals.c.name == journal)).one_or_none()
    state = State(
        journal=journal,
        head=Head(seq=head.seq, hash=head.hash, at=head.at) if head is not None else GENESIS,
        catalog=catalog,
    )
    open_holds = [_hold(row) for row in conn.execute(select(holds).where(holds.c.state == HoldState.HELD))]
    history = _window_history(conn)
    state.opened = {name: max(found, key=lambda window: window.start) for name, found in history.items()}
    for hold in open_holds:
        state.holds[hold.id] = OpenHold(hold=hold, charges=charges_of(hold, catalog, _windows_at(history, hold.held_at)))
    _load_balances(conn, state, max(now, state.head.at))
    for row in conn.execute(select(cooldowns)):
        state.cooldowns[row.provider, row.model] = Cooldown(
            provider=row.provider,
            model=row.model,
            until=row.until,
            source=CooldownSource(row.source),
            cause=FailureKind(row.cause),
            failures=row.failures,
        )
    for taught in conn.execute(select(estimates)).mappings():
        state.learned[taught["model"], taught["provider"]] = Learned.from_row({**taught})
    return state


def _load_balances(conn: Connection, state: State, now: datetime) -> None:
    """Read the buckets that a window still counts or an open hold stands in; older ones are read when a late word needs them."""
    charged = [charge for held in state.holds.values() for charge in held.charges]
    for limit in state.catalog.limits:
        counted_from = coverage(limit, now, state.opened.get(limit.name)).first_bucket
        oldest = min([counted_from, *(charge.bucket for charge in charged if charge.limit.name == limit.name)])
        asked = select(balances).where(balances.c.limit_name == limit.name, balances.c.bucket >= oldest)
        for row in conn.execute(asked):
            state.balances.setdefault(limit.name, {})[row.bucket] = Balance(posted=row.posted, held=row.held)


def read_asked(conn: Connection, state: State, hold_ids: Iterable[str], keys: Iterable[tuple[str, str]]) -> None:
    """Read what a batch asks for beyond the present: holds that are resolved already, and calls by idempotency key."""
    missing = [hold_id for hold_id in hold_ids if hold_id not in state.holds]
    if missing:
        history = _window_history(conn)
        for row in (conn.execute(select(holds).where(holds.c.id.in_(missing)))).all():
            hold = _hold(row)
            charges = charges_of(hold, state.catalog, _windows_at(history, hold.held_at))
            booked = conn.execute(select(entries).where(entries.c.hold_id == hold.id))
            state.resolved[hold.id] = Resolved(
                hold=hold,
                state=HoldState(row.state),
                fingerprint=row.fingerprint or "",
                charges=charges,
                booked={EntryKind(entry.kind): _booked_as(entry) for entry in booked},
            )
            _read_balances(conn, state, charges)
    asked = list(keys)
    if asked:
        found = conn.execute(select(calls).where(tuple_(calls.c.caller, calls.c.idempotency_key).in_(asked)))
        for row in found:
            state.known_keys[row.caller, row.idempotency_key] = {
                "id": row.id,
                "state": row.state,
                "fingerprint": row.fingerprint,
            }


def project(conn: Connection, limits: Iterable[Limit], now: datetime) -> None:
    """
    Write the balances of *limits* anew from entries and open holds.

    A limit made in mid-window starts with what was already spent in it.
    """
    history = _window_history(conn)
    catalog = load_catalog(conn)
    for limit in limits:
        conn.execute(delete(balances).where(balances.c.limit_name == limit.name))
        covered = coverage(limit, now, _windows_at(history, now).get(limit.name))
        found: dict[datetime, Balance] = {}
        since: Select[Any] = select(entries).where(entries.c.held_at >= covered.first_bucket)
        for row in conn.execute(since):
            if limit.subject not in subjects_of(row.provider, row.account, row.model, row.caller, _labels(row)):
                continue
            at = coverage(limit, row.held_at, _windows_at(history, row.held_at).get(limit.name))
            if not at.opens:
                found.setdefault(at.bucket, Balance()).posted += _counted(limit, row)
        for row in conn.execute(select(holds).where(holds.c.state == HoldState.HELD)).all():
            hold = _hold(row)
            for charge in charges_of(hold, catalog, _windows_at(history, hold.held_at)):
                if charge.limit.name == limit.name:
                    found.setdefault(charge.bucket, Balance()).held += charge.held
        rows = [
            {"limit_name": limit.name, "bucket": bucket, "posted": balance.posted, "held": balance.held}
            for bucket, balance in found.items()
        ]
        if rows:
            conn.execute(insert(balances), rows)


def _window_history(conn: Connection) -> dict[str, list[Window]]:
    history: dict[str, list[Window]] = {}
    for row in conn.execute(select(windows)):
        history.setdefault(row.limit_name, []).append(Window(start=row.start, end=row.end))
    return history


def _windows_at(history: Mapping[str, list[Window]], at: datetime) -> dict[str, Window]:
    """Pick the first-use window of each limit that holds *at*."""
    return {
        name: window
        for name, found in history.items()
        for window in found
        if window.start <= at and (window.end is None or at < window.end)
    }


def _read_balances(conn: Connection, state: State, charges: tuple[Charge, ...]) -> None:
    """Read balances that memory has let go of, before a late word moves them."""
    for charge in charges:
        known = state.balances.setdefault(charge.limit.name, {})
        if charge.bucket in known:
            continue
        asked = select(balances).where(balances.c.limit_name == charge.limit.name, balances.c.bucket == charge.bucket)
        row = conn.execute(asked).one_or_none()
        known[charge.bucket] = Balance(posted=row.posted, held=row.held) if row is not None else Balance()


def _counted(limit: Limit, row: Row[Any]) -> int:
    """What one entry counts in a limit's unit."""
    usage = _usage(row)
    match limit.unit:
        case Unit.USD:
            return int(row.cost_nusd or 0)
        case Unit.REQUESTS:
            return 1 if row.kind in {EntryKind.POST, EntryKind.EXPIRE} else 0
        case Unit.TOKENS:
            return usage.total_tokens
        case Unit.INPUT_TOKENS:
            return usage.input_tokens
        case Unit.OUTPUT_TOKENS:
            return usage.output_tokens
        case Unit.CONCURRENCY:
            return 0


def _hold(row: Row[Any]) -> Hold:
    return Hold(
        id=row.id,
        call_id=row.call_id,
        attempt=row.attempt,
        provider=row.provider,
        account=row.account,
        model=row.model,
        upstream_model=row.upstream_model,
        caller=row.caller,
        labels=_labels(row),
        workflow=row.workflow,
        stage=row.stage,
        plane=Plane(row.plane),
        estimate=Estimate.from_json(row.estimate),
        held_at=row.held_at,
        expires_at=row.expires_at,
    )


def _booked_as(row: Row[Any]) -> Settlement:
    event = Event.EXPIRE if row.kind == EntryKind.EXPIRE else Event.POST
    return Settlement(event=event, outcome=Outcome.OK, usage=_usage(row), cost_nusd=row.cost_nusd)


def _usage(row: Row[Any]) -> Usage:
    return Usage(**{bucket: getattr(row, bucket) for bucket in BUCKETS}, quality=Quality(row.quality))


def _labels(row: Row[Any]) -> tuple[str, ...]:
    return msgspec.json.decode(row.labels, type=tuple[str, ...])
