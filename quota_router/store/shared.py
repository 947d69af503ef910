"""
One of several daemons on a PostgreSQL ledger: each batch locks and reads what it touches.

Law: locks are taken before anything is judged, in one order for everybody: the catalog's epoch (shared), holds by id, limits by
name, cooldowns by rung. What was locked and read stays true until the commit.
Never: trusts memory for what another daemon may have changed; only the catalog (until its epoch moves), the journal's own head and
what was learned stay in it.

Decision 2026-11 -- the clock is the database's: daemons whose clocks differ still agree in which window an instant lies.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Row, and_, cast, extract, func, or_, select

from quota_router.core.calls import Plane
from quota_router.core.holds import HoldState
from quota_router.core.limits import Limit, subjects_of
from quota_router.errors import LedgerUnavailable
from quota_router.store.catalog import load_catalog
from quota_router.store.present import (
    History,
    labels_of,
    last_windows,
    new_state,
    read_accounts,
    read_adjustments,
    read_balances,
    read_booked,
    read_cooldowns,
    read_everything,
    read_holds,
    read_named_calls,
    read_windows,
    take_holds,
)
from quota_router.store.state import State
from quota_router.store.tables import EPOCH, MICROSECOND, epochs, holds, limits
from quota_router.store.tenure import Job, Sweeping, adjustments_of

CHANNEL = "quota_router"
"""Where edits of the catalog are announced."""
JOURNALS_MAX = 1_000
DUE_MAX = 1_000
"""Holds that expire in one transaction; the next sweep takes the rest."""
LOCK_SPACE = 0x7172
"""`qr`: the first half of our advisory locks' keys; the second is the journal's number."""


class Shared:
    """Holds a PostgreSQL ledger together with others. *clock* gives aware UTC; `None`: the server's."""

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock
        self._last_now = EPOCH

    def settle_in(self, conn: Connection) -> str:
        """Take the first journal that nobody holds; the lock is this connection's, and is gone with it."""
        for number in range(1, JOURNALS_MAX + 1):
            if conn.execute(select(func.pg_try_advisory_lock(LOCK_SPACE, number))).scalar_one():
                return _journal(number)
        raise LedgerUnavailable(f"{JOURNALS_MAX} daemons hold this ledger already.")

    def load(self, conn: Connection, journal: str) -> State:
        """Read what batches do not read for themselves."""
        _claim_epoch(conn)
        return new_state(conn, journal)

    def learn(self, conn: Connection, state: State, jobs: Sequence[Job[Any]]) -> datetime:
        """Lock and read what the jobs touch, and nothing else."""
        epoch, server_now = _claim_epoch(conn)
        now = max(self._clock() if self._clock else server_now, state.head.at, self._last_now)
        if epoch != state.catalog.epoch:
            state.take_catalog(load_catalog(conn))
        state.forget_present()
        if any(job.looks_at_everything for job in jobs):
            read_everything(conn, state, now)
        else:
            self._learn_parts(conn, state, jobs, now)
        # The clock was read before the locks were had: whoever held them may have booked at a later moment.
        now = self._last_now = max(now, state.latest)
        keys = [job.idempotency for job in jobs if job.idempotency is not None]
        if keys:
            read_named_calls(conn, state, keys)
        read_adjustments(conn, state, adjustments_of(jobs), now)
        return now

    def claim_catalog(self, conn: Connection) -> None:
        """Wait until no batch of anybody runs; whoever listens is told at the commit."""
        conn.execute(select(epochs.c.value).where(epochs.c.name == "catalog").with_for_update())
        conn.execute(select(func.pg_notify(CHANNEL, "catalog")))

    def _learn_parts(self, conn: Connection, state: State, jobs: Sequence[Job[Any]], now: datetime) -> None:
        hold_ids = {hold_id for job in jobs for hold_id in job.hold_ids}
        rows = list(read_holds(conn, hold_ids, locks=True)) if hold_ids else []
        sweeping = max((job.sweeps for job in jobs), default=Sweeping.NONE)
        if sweeping:
            state.orphaned = _unheld_journals(conn, state.journal)
            gone = {*state.orphaned, *([state.journal] if sweeping is Sweeping.OWN else [])}
            rows += [row for row in _due(conn, gone, now) if row.id not in hold_ids]
        touched = _limits_of(state, jobs, rows)
        history = _lock(conn, touched)
        state.opened = last_windows(history)
        take_holds(state, rows, history)
        read_booked(conn, state)
        read_balances(conn, state, touched, now)
        accounts = {account for job in jobs for account in job.accounts} | {row.account for row in rows}
        if accounts:
            read_accounts(conn, state, accounts)
        read_cooldowns(conn, state, locks=True)


def _claim_epoch(conn: Connection) -> tuple[int, datetime]:
    """Read the catalog's epoch, which cannot move until we have committed, and the server's clock."""
    clock_us = cast(extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)
    asked = select(epochs.c.value, clock_us).where(epochs.c.name == "catalog").with_for_update(read=True)
    epoch, at_us = conn.execute(asked).one()
    return epoch, EPOCH + at_us * MICROSECOND


def _journal(number: int) -> str:
    return "main" if number == 1 else f"main-{number}"


def _number(journal: str) -> int:
    _, _, number = journal.partition("-")
    return int(number or 1)


def _unheld_journals(conn: Connection, own: str) -> frozenset[str]:
    """Find journals with open holds that no daemon writes into any more. Their locks are ours until we commit."""
    found = conn.execute(select(holds.c.journal).where(holds.c.state == HoldState.HELD).distinct()).scalars()
    return frozenset(
        journal
        for journal in found
        if journal != own and conn.execute(select(func.pg_try_advisory_xact_lock(LOCK_SPACE, _number(journal)))).scalar_one()
    )


def _due(conn: Connection, gone: Iterable[str], now: datetime) -> Sequence[Row[Any]]:
    """Read the holds that a sweep may end: past their time, or relayed by a daemon that is gone; not those just being settled."""
    asked = select(holds).where(
        holds.c.state == HoldState.HELD,
        or_(holds.c.expires_at <= now, and_(holds.c.journal.in_(list(gone)), holds.c.plane == Plane.DATA)),
    )
    return conn.execute(asked.order_by(holds.c.id).limit(DUE_MAX).with_for_update(skip_locked=True)).all()


def _limits_of(state: State, jobs: Sequence[Job[Any]], rows: Sequence[Row[Any]]) -> tuple[Limit, ...]:
    """Every limit that the jobs, or the holds they speak of, may move."""
    subjects = {subject for job in jobs for subject in job.subjects}
    for row in rows:
        subjects.update(subjects_of(row.provider, row.account, row.model, row.caller, labels_of(row)))
    return state.catalog.limits_of(tuple(subjects))


def _lock(conn: Connection, touched: Sequence[Limit]) -> History:
    """Take the head row of each limit, and read the windows that were opened under it."""
    if not touched:
        return {}
    names = sorted({limit.name for limit in touched})
    heads = select(limits.c.name).where(limits.c.name.in_(names)).order_by(limits.c.name)
    conn.execute(heads.with_for_update(key_share=True))
    return read_windows(conn, names)
