"""
The present, as the tables tell it: what a state is made of, read whole or in the parts that a batch asks for.

Law: reading what was written gives the same state.
Never: decides, writes, or chooses what to read: the tenure does.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, or_, select, tuple_

from quota_router.core.adjustments import Adjustment, Place
from quota_router.core.calls import Plane
from quota_router.core.estimates import Estimate, Learned
from quota_router.core.health import Cooldown, CooldownSource, FailureKind, Probe
from quota_router.core.holds import Charge, EntryKind, Event, Hold, HoldState, Outcome, Settlement, charges_of, state_of_call
from quota_router.core.limits import Amounts, Limit, Window
from quota_router.core.usage import BUCKETS, Quality, Usage
from quota_router.core.windows import coverage
from quota_router.store.catalog import load_catalog
from quota_router.store.lines import STORED, line_of
from quota_router.store.state import Adjusted, Balance, Head, KnownCall, OpenHold, Resolved, State, Total, counted_from
from quota_router.store.tables import (
    EPOCH,
    balances,
    calls,
    cooldowns,
    entries,
    estimates,
    holds,
    journals,
    readings,
    totals,
    windows,
)

GENESIS = Head(seq=0, hash=bytes(32), at=EPOCH)
"""The head of a journal that holds nothing yet."""

History = Mapping[str, Sequence[Window]]
"""Every first-use window that was opened, by limit, the last one last."""
LIMITS_ASKED = 100
"""Limits whose balances are read in one statement."""


def new_state(conn: Connection, journal: str) -> State:
    """Read what seldom changes: the catalog, the chain's head, what was learned."""
    head = conn.execute(select(journals).where(journals.c.name == journal)).one_or_none()
    learned = conn.execute(select(estimates)).mappings()
    return State(
        journal=journal,
        head=Head(seq=head.seq, hash=head.hash, at=head.at) if head is not None else GENESIS,
        catalog=load_catalog(conn),
        learned={(row["model"], row["provider"]): Learned.from_row({**row}) for row in learned},
    )


def read_everything(conn: Connection, state: State, now: datetime) -> None:
    """Read every cooldown, window and open hold, and the balances that count."""
    read_cooldowns(conn, state)
    read_accounts(conn, state)
    history = read_windows(conn)
    state.opened = last_windows(history)
    take_holds(state, conn.execute(select(holds).where(holds.c.state == HoldState.HELD)), history)
    read_balances(conn, state, state.catalog.limits, now)


def read_cooldowns(conn: Connection, state: State, *, locks: bool = False) -> None:
    """Read every cooldown: there are at most as many as rungs. *locks*: nobody else changes them until we have committed."""
    asked = select(cooldowns).order_by(cooldowns.c.provider, cooldowns.c.model)
    found = [cooldown_of(row) for row in conn.execute(asked.with_for_update() if locks else asked)]
    state.cooldowns = {(cooldown.provider, cooldown.model): cooldown for cooldown in found}


def cooldown_of(row: Row[Any]) -> Cooldown:
    """Take a cooldown from its row."""
    return Cooldown(
        provider=row.provider,
        model=row.model,
        until=row.until,
        source=CooldownSource(row.source),
        cause=FailureKind(row.cause),
        failures=row.failures,
        strikes=row.strikes,
        probe=Probe(hold_id=row.probe_hold, until=row.probe_until) if row.probe_hold is not None else None,
    )


def read_accounts(conn: Connection, state: State, accounts: Iterable[str] | None = None) -> None:
    """Read totals and readings of these accounts; `None`: of all."""
    of_totals, of_readings = select(totals), select(readings)
    if accounts is not None:
        names = list(accounts)
        of_totals = of_totals.where(totals.c.account.in_(names))
        of_readings = of_readings.where(readings.c.account.in_(names))
    for row in conn.execute(of_totals):
        state.totals[row.account] = Total(
            posted=Amounts(
                cost_nusd=row.posted_nusd,
                requests=row.posted_requests,
                input_tokens=row.posted_input_tokens,
                output_tokens=row.posted_output_tokens,
            ),
            held=Amounts(
                cost_nusd=row.held_nusd,
                requests=row.held_requests,
                input_tokens=row.held_input_tokens,
                output_tokens=row.held_output_tokens,
            ),
        )
    for row in conn.execute(of_readings):
        state.readings.put((row.account, row.window, row.model, row.unit), row.seen, row.calibration, row.growth)


def read_windows(conn: Connection, limit_names: Iterable[str] | None = None) -> History:
    """Read the first-use windows of these limits; `None`: of all."""
    asked = select(windows).order_by(windows.c.limit_name, windows.c.start)
    if limit_names is not None:
        asked = asked.where(windows.c.limit_name.in_(list(limit_names)))
    history: dict[str, list[Window]] = {}
    for row in conn.execute(asked):
        history.setdefault(row.limit_name, []).append(Window(start=row.start, end=row.end))
    return history


def last_windows(history: History) -> dict[str, Window]:
    """The window of each limit that was opened last."""
    return {name: found[-1] for name, found in history.items()}


def read_balances(conn: Connection, state: State, limits: Iterable[Limit], now: datetime) -> None:
    """Read the buckets of *limits* that a window still counts or a hold of the state stands in."""
    charged = [charge for known in state.holds.values() for charge in known.charges] + _charges_of_resolved(state)
    first_of = counted_from(charged)
    for limit in limits:
        first = coverage(limit, now, state.opened.get(limit.name)).first_bucket
        first_of[limit.name] = min(first_of.get(limit.name, first), first)
    names_asked = list(first_of)
    for start in range(0, len(names_asked), LIMITS_ASKED):
        names = names_asked[start : start + LIMITS_ASKED]
        asked = or_(*((balances.c.limit_name == name) & (balances.c.bucket >= first_of[name]) for name in names))
        for row in conn.execute(select(balances).where(asked)):
            state.balances.setdefault(row.limit_name, {})[row.bucket] = Balance(posted=row.posted, held=row.held)


def read_holds(conn: Connection, hold_ids: Iterable[str], *, locks: bool = False) -> Sequence[Row[Any]]:
    """Read the rows of holds. *locks*: as for cooldowns."""
    asked = select(holds).where(holds.c.id.in_(list(hold_ids))).order_by(holds.c.id)
    return conn.execute(asked.with_for_update() if locks else asked).all()


def take_holds(state: State, rows: Iterable[Row[Any]], history: History) -> None:
    """Bring holds into the state: open ones as such, the others for this batch, without what was booked for them."""
    for row in rows:
        hold = hold_of(row)
        charges = charges_of(hold, state.catalog, windows_at(history, hold.held_at))
        if row.state == HoldState.HELD:
            state.holds[hold.id] = OpenHold(hold=hold, charges=charges)
        else:
            fingerprint = row.fingerprint or ""
            state.resolved[hold.id] = Resolved(
                hold=hold, state=HoldState(row.state), fingerprint=fingerprint, charges=charges, booked={}
            )


def read_booked(conn: Connection, state: State) -> None:
    """Read what was booked for the resolved holds of the state."""
    if not state.resolved:
        return
    asked = select(entries).where(entries.c.hold_id.in_(list(state.resolved)))
    for row in conn.execute(asked):
        event = Event.EXPIRE if row.kind == EntryKind.EXPIRE else Event.POST
        booked = Settlement(event=event, outcome=Outcome.OK, usage=usage_of(row), cost_nusd=row.cost_nusd)
        state.resolved[row.hold_id].booked[EntryKind(row.kind)] = booked


def read_missing_balances(conn: Connection, state: State) -> None:
    """Read balances that memory has let go of, before a late word moves them. One whose row is not there stays away."""
    for charge in _charges_of_resolved(state):
        known = state.balances.setdefault(charge.limit.name, {})
        if charge.bucket in known:
            continue
        asked = select(balances).where(balances.c.limit_name == charge.limit.name, balances.c.bucket == charge.bucket)
        row = conn.execute(asked).one_or_none()
        if row is not None:
            known[charge.bucket] = Balance(posted=row.posted, held=row.held)


def read_adjustments(conn: Connection, state: State, adjustments: Iterable[Adjustment], now: datetime) -> None:
    """Read what was booked under the id of each, and the balances of the moment in which it counts."""
    for said in adjustments:
        at = said.held_at or now
        limits = state.catalog.limits_of(_subjects_of(state, said))
        then = windows_at(read_windows(conn, [limit.name for limit in limits]), at) if limits else {}
        row = conn.execute(select(*STORED).where(entries.c.hold_id == said.id)).one_or_none()
        state.adjusted[said.id] = Adjusted(line=line_of(row) if row is not None else None, windows=then)
        for limit in limits:
            bucket = coverage(limit, at, then.get(limit.name)).bucket
            known = state.balances.setdefault(limit.name, {})
            asked = select(balances).where(balances.c.limit_name == limit.name, balances.c.bucket == bucket)
            found = conn.execute(asked).one_or_none() if bucket not in known else None
            if found is not None:
                known[bucket] = Balance(posted=found.posted, held=found.held)


def _subjects_of(state: State, said: Adjustment) -> tuple[str, ...]:
    if isinstance(said.of, Place):
        return said.of.subjects
    known = state.holds.get(said.of) or state.resolved.get(said.of)
    return known.hold.subjects if known is not None else ()


def read_named_calls(conn: Connection, state: State, keys: Sequence[tuple[str, str]]) -> None:
    """Find the calls that idempotency keys name, and how each is doing."""
    found = conn.execute(select(calls).where(tuple_(calls.c.caller, calls.c.idempotency_key).in_(keys))).all()
    attempts = select(holds.c.call_id, holds.c.outcome).where(holds.c.call_id.in_([row.id for row in found]))
    last = {row.call_id: row.outcome for row in conn.execute(attempts.order_by(holds.c.attempt))}
    for row in found:
        outcome = last.get(row.id)
        state.known_keys[row.caller, row.idempotency_key] = KnownCall(
            id=row.id,
            state=state_of_call(None if outcome is None else Outcome(outcome), was_held=row.id in last),
            fingerprint=row.fingerprint,
        )


def windows_at(history: History, at: datetime) -> dict[str, Window]:
    """Pick the first-use window of each limit that holds *at*."""
    return {
        name: window
        for name, found in history.items()
        for window in found
        if window.start <= at and (window.end is None or at < window.end)
    }


def hold_of(row: Row[Any]) -> Hold:
    """A row of `holds`."""
    return Hold(
        id=row.id,
        call_id=row.call_id,
        journal=row.journal,
        attempt=row.attempt,
        provider=row.provider,
        account=row.account,
        model=row.model,
        upstream_model=row.upstream_model,
        caller=row.caller,
        labels=labels_of(row),
        workflow=row.workflow,
        stage=row.stage,
        rule=row.rule,
        router=row.router,
        plane=Plane(row.plane),
        estimate=Estimate.from_json(row.estimate),
        held_at=row.held_at,
        expires_at=row.expires_at,
    )


def usage_of(row: Row[Any]) -> Usage:
    """The token buckets of a row of `entries`."""
    return Usage(**{bucket: getattr(row, bucket) for bucket in BUCKETS}, quality=Quality(row.quality))


def labels_of(row: Row[Any]) -> tuple[str, ...]:
    """The labels of any row that has them."""
    return msgspec.json.decode(row.labels, type=tuple[str, ...])


def _charges_of_resolved(state: State) -> list[Charge]:
    return [charge for resolved in state.resolved.values() for charge in resolved.charges]
