"""
Alone on a SQLite file: the lock file keeps every other process out, so memory may hold the present.

Law: what memory holds is what the file holds; only holds that are resolved, calls behind idempotency keys, and what adjustments ask
for are read per batch.
Never: works on a file that is not the one that was opened: a ledger that was moved or replaced under us takes no writes.

Decision 2026-11 -- the state is reloaded whole after every failed batch. It costs one read of what is open and changes no meaning.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from quota_router.store.ledger_file import LedgerFile
from quota_router.store.present import (
    new_state,
    read_adjustments,
    read_booked,
    read_everything,
    read_holds,
    read_missing_balances,
    read_named_calls,
    read_windows,
    take_holds,
)
from quota_router.store.state import State
from quota_router.store.tables import EPOCH
from quota_router.store.tenure import Job, adjustments_of

JOURNAL = "main"
"""A SQLite ledger has one writer, hence one journal."""


class Sole:
    """Holds a SQLite ledger, as the one process that writes it. *file* is there and locked."""

    def __init__(self, file: LedgerFile, clock: Callable[[], datetime]) -> None:
        self._file = file
        self._clock = clock
        self._last_now = EPOCH

    def settle_in(self, conn: Connection) -> str:  # noqa: ARG002 -- a tenure's shape
        """There is one journal."""
        return JOURNAL

    def load(self, conn: Connection, journal: str) -> State:
        """Read the whole present."""
        self._file.refuse_another()
        state = new_state(conn, journal)
        read_everything(conn, state, max(self._clock(), state.head.at))
        self._last_now = max(self._last_now, state.latest)
        return state

    def learn(self, conn: Connection, state: State, jobs: Sequence[Job[Any]]) -> datetime:
        """Read what memory does not hold."""
        self._file.refuse_another()
        hold_ids = [hold_id for job in jobs for hold_id in job.hold_ids if hold_id not in state.holds]
        if hold_ids:
            rows = read_holds(conn, hold_ids)
            if rows:
                history = read_windows(conn)
                take_holds(state, rows, history)
                read_booked(conn, state)
                read_missing_balances(conn, state)
        keys = [job.idempotency for job in jobs if job.idempotency is not None]
        if keys:
            read_named_calls(conn, state, keys)
        now = self._last_now = max(self._clock(), self._last_now)
        read_adjustments(conn, state, adjustments_of(jobs), now)
        return now

    def claim_catalog(self, conn: Connection) -> None:
        """A write transaction keeps everybody away as it is."""
