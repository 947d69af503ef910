"""
How the present is read from the tables: the lane's state at start, what a batch asks for beyond it, and balances projected anew.

Law: reading what was written gives the same state; a balance is only ever the projection that `project` would give.
Never: decides or writes a row of the ledger; balances alone are written here, by `project`.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, delete, insert, select, tuple_

from quota_router.core.calls import Plane
from quota_router.core.estimates import Estimate, Learned
from quota_router.core.health import Cooldown, CooldownSource, FailureKind
from quota_router.core.holds import Charge, EntryKind, Event, Hold, HoldState, Outcome, Settlement, charges_of, state_of_call
from quota_router.core.limits import Limit, Unit, Window, subjects_of
from quota_router.core.usage import BUCKETS, Quality, Usage
from quota_router.core.windows import coverage
from quota_router.store.catalog import load_catalog
from quota_router.store.state import Balance, Head, KnownCall, OpenHold, Resolved, State
from quota_router.store.tables import EPOCH, balances, calls, cooldowns, entries, estimates, holds, journals, windows

GENESIS = Head(seq=0, hash=bytes(32), at=EPOCH)
"""The head of a journal that holds nothing yet."""


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
        state.known_keys.update(_calls_named(conn, asked))


def _calls_named(conn: Connection, keys: list[tuple[str, str]]) -> dict[tuple[str, str], KnownCall]:
    """Find the calls that idempotency keys name, and how each is doing."""
    found = conn.execute(select(calls).where(tuple_(calls.c.caller, calls.c.idempotency_key).in_(keys))).all()
    attempts = select(holds.c.call_id, holds.c.outcome).where(holds.c.call_id.in_([row.id for row in found]))
    last = {row.call_id: row.outcome for row in conn.execute(attempts.order_by(holds.c.attempt))}
    return {
        (row.caller, row.idempotency_key): KnownCall(
            id=row.id,
            state=state_of_call(_outcome(last.get(row.id)), was_held=row.id in last),
            fingerprint=row.fingerprint,
        )
        for row in found
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


def _outcome(text: str | None) -> Outcome | None:
    return None if text is None else Outcome(text)


def _booked_as(row: Row[Any]) -> Settlement:
    event = Event.EXPIRE if row.kind == EntryKind.EXPIRE else Event.POST
    return Settlement(event=event, outcome=Outcome.OK, usage=_usage(row), cost_nusd=row.cost_nusd)


def _usage(row: Row[Any]) -> Usage:
    return Usage(**{bucket: getattr(row, bucket) for bucket in BUCKETS}, quality=Quality(row.quality))


def _labels(row: Row[Any]) -> tuple[str, ...]:
    return msgspec.json.decode(row.labels, type=tuple[str, ...])
