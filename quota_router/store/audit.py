"""
Verifying a ledger: one pass over everything that was booked.

Law: whatever is not as it was written is found and named: a byte, a row, an order, a tail, a trigger, a balance. What is found is a
finding, never an error: a damaged ledger is told about to its end, as far as it can be read.
Never: writes, mends, or keeps more in memory than `BALANCES_AT_ONCE` balances and one batch of entries.

Decision 2026-11 -- where there are more balances than that, the entries are read once more for each further part. A rolling window
    of a minute makes a row a second, a year of them would not fit. Look again if rows of windows long over are deleted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, exists, func, or_, select, type_coerce
from sqlalchemy.exc import DBAPIError

from quota_router.core.catalog import Catalog
from quota_router.core.holds import EntryKind, HoldState
from quota_router.core.limits import Unit
from quota_router.store.catalog import load_catalog
from quota_router.store.chain import Chains, read_heads
from quota_router.store.migrate import find_problems, is_at_head
from quota_router.store.present import hold_of, read_windows
from quota_router.store.shapes import show_stored
from quota_router.store.streaming import count_entries, stream_entries
from quota_router.store.tables import Whole, balances, entries, holds
from quota_router.store.tally import Counter, Tally
from quota_router.store.verdict import Kind, Verdict

BALANCES_AT_ONCE = 200_000
ORPHANS_NAMED = 100
"""Holds without their entry, of which each is named."""
_UNREADABLE = (ValueError, TypeError, KeyError, OverflowError, msgspec.MsgspecError)
"""What values raise that nobody of ours wrote."""

Progress = Callable[[int, int], None]
"""Told (entries read, entries to be read)."""


def verify(
    conn: Connection,
    now: datetime,
    marks: Mapping[str, Mapping[int, bytes]] | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """
    Read the whole ledger.

    Args:
        conn: a reading transaction; it shows one moment, however long this takes.
        now: which windows count.
        marks: hashes that were kept elsewhere, by journal and seq.
        progress: told after each batch.

    Raises:
        SchemaNewer: a newer program wrote it.
        SQLAlchemyError: a server that is gone. A file that cannot be read is a finding.
    """
    verdict = Verdict()
    try:
        _read(conn, now, marks or {}, progress, verdict)
    except DBAPIError as exc:
        if conn.dialect.name != "sqlite":
            raise
        if "decode" in str(exc.orig) and _let_through_what_is_no_text(conn):
            return verify(conn, now, marks, progress)
        verdict.add(Kind.FILE, f"The file cannot be read to its end: {exc.orig}.")
    return verdict


def _read(
    conn: Connection, now: datetime, marks: Mapping[str, Mapping[int, bytes]], progress: Progress | None, verdict: Verdict
) -> None:
    for text in find_problems(conn):
        verdict.add(Kind.SCHEMA, text)
    if not is_at_head(conn):
        return
    if conn.dialect.name == "sqlite":
        _judge_file(conn, verdict)
    tally, chains = _open_tally(conn, now, verdict), Chains(read_heads(conn), marks)
    booked, seen = _Booked(conn, progress), set[tuple[str, int]]()
    for number, part in enumerate(_balances_in_parts(conn)):
        is_first = number == 0
        tally.want(((row.limit_name, row.bucket) for row in part), is_first=is_first)
        for entry in booked.read():
            if is_first:
                chains.take(entry)
            tally.take(entry)
        if is_first:
            verdict.walks = chains.end()
            _tell_breaks(verdict)
            _judge_holds(conn, verdict)
        for row in part:
            _compare(row, tally, seen, verdict)
    _compare_missing(tally, seen, verdict)
    verdict.limits = len(tally.counters)


class _Booked:
    """Reads all entries, as often as it takes, and says how far it is."""

    def __init__(self, conn: Connection, progress: Progress | None) -> None:
        rows = conn.execute(select(func.count()).select_from(balances)).scalar_one()
        self._conn, self._progress = conn, progress
        self._total, self._done = count_entries(conn) * max(1, -(-rows // BALANCES_AT_ONCE)), 0

    def read(self) -> Iterator[Row[Any]]:
        for batch in stream_entries(self._conn):
            yield from batch
            self._done += len(batch)
            if self._progress is not None:
                self._progress(self._done, max(self._total, self._done))


def _tell_breaks(verdict: Verdict) -> None:
    for walk in verdict.walks:
        for found in walk.breaks:
            verdict.add(Kind.HEAD if found.is_mark else Kind.CHAIN, found.text, journal=walk.journal, seq=found.seq)
        verdict.found += walk.broken - len(walk.breaks)


def _judge_file(conn: Connection, verdict: Verdict) -> None:
    for (text,) in conn.exec_driver_sql("PRAGMA integrity_check(20)"):
        if text != "ok":
            verdict.add(Kind.FILE, f"SQLite finds the file damaged: {text}.")


def _judge_holds(conn: Connection, verdict: Verdict) -> None:
    """Find holds whose entry is gone: they tell of a tail that was cut off with the head of its journal."""
    ends = (EntryKind.POST, EntryKind.EXPIRE)
    has_entry = exists(select(entries.c.seq).where(entries.c.hold_id == holds.c.id, entries.c.kind.in_(ends)))
    is_booked = or_(holds.c.state == HoldState.POSTED, holds.c.state == HoldState.EXPIRED)
    lost = select(holds.c.id, holds.c.state).where(is_booked, ~has_entry)
    for row in conn.execute(lost.order_by(holds.c.id).limit(ORPHANS_NAMED)):
        verdict.add(Kind.HOLD, f"Hold {row.id} is {row.state}, and its entry is missing.", hold_id=row.id)


def _let_through_what_is_no_text(conn: Connection) -> bool:
    """Read such bytes as text that cannot be hashed. Returns whether they were refused until now."""
    driver = conn.connection.driver_connection
    assert driver is not None
    if driver.text_factory is not str:
        return False
    driver.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return True


# --- balances -----------------------------------------------------------------------------------------------------------


def _open_tally(conn: Connection, now: datetime, verdict: Verdict) -> Tally:
    """Learn what there is to count, and count the open holds. Where the catalog cannot be read, there is nothing."""
    try:
        tally = Tally(load_catalog(conn), read_windows(conn), now)
    except _UNREADABLE as exc:
        verdict.add(Kind.SCHEMA, f"The catalog cannot be read, so balances are not compared: {exc}.")
        return Tally(Catalog(), {}, now)
    ids = select(holds.c.id).where(holds.c.state == HoldState.HELD).order_by(holds.c.id)
    for hold_id in conn.execute(ids).scalars().all():
        try:
            tally.hold(hold_of(conn.execute(select(holds).where(holds.c.id == hold_id)).one()))
        except _UNREADABLE as exc:
            verdict.add(Kind.HOLD, f"Hold {hold_id} cannot be read, so what it holds is not counted: {exc}.", hold_id=hold_id)
    return tally


def _balances_in_parts(conn: Connection) -> Iterator[Sequence[Row[Any]]]:
    """Read the balances, `BALANCES_AT_ONCE` at a time; at least one part, which may be empty."""
    name, bucket = balances.c.limit_name, type_coerce(balances.c.bucket, Whole)
    columns = (name, bucket.label("bucket"), balances.c.posted, balances.c.held)
    asked = select(*columns).order_by(name, balances.c.bucket).limit(BALANCES_AT_ONCE)
    part = conn.execute(asked).all()
    yield part
    while len(part) == BALANCES_AT_ONCE:
        last = part[-1]
        is_behind = or_(name > last.limit_name, and_(name == last.limit_name, bucket > last.bucket))
        part = conn.execute(asked.where(is_behind)).all()
        if part:
            yield part


def _compare(row: Row[Any], tally: Tally, seen: set[tuple[str, int]], verdict: Verdict) -> None:
    """Compare one balance. Those of limits that are disabled or gone count for nobody and are left alone."""
    counter = tally.counters.get(row.limit_name)
    if counter is None:
        return
    verdict.balances += 1
    if row.bucket in counter.held or row.bucket >= counter.current_from:
        seen.add((row.limit_name, row.bucket))
    _judge(counter, row.bucket, row.posted, row.held, verdict)


def _compare_missing(tally: Tally, seen: set[tuple[str, int]], verdict: Verdict) -> None:
    """Find what should stand in a balance that is not there."""
    for name, counter in tally.counters.items():
        current = {bucket for bucket in counter.posted if bucket >= counter.current_from}
        for bucket in sorted(current | set(counter.held)):
            if (name, bucket) not in seen:
                _judge(counter, bucket, None, None, verdict)


def _judge(counter: Counter, bucket: int, posted: int | None, held: int | None, verdict: Verdict) -> None:
    """Compare what was found with what was counted; `None`: there is no row, which is nothing."""
    at, unit = show_stored(bucket), counter.limit.unit
    shown_unit = "nano-USD" if unit is Unit.USD else unit.value
    is_posted_counted = posted is not None or bucket >= counter.current_from
    for what, found, expected in (
        ("posted", posted, counter.posted.get(bucket, 0) if is_posted_counted else 0),
        ("held", held, counter.held.get(bucket, 0)),
    ):
        if (found or 0) != expected:
            name = counter.limit.name
            text = f"Limit {name!r}, bucket {at}: {found or 0} {shown_unit} are {what}, it should be {expected}."
            numbers = {"limit": name, "bucket": at, "unit": unit.value, "what": what, "expected": expected, "found": found or 0}
            verdict.add(Kind.BALANCE, text, **numbers)
