"""
Balances worked out anew: entries and open holds, projected onto the windows of a limit.

Law: a balance is never anything but this projection; it is worked out from lines of money and open holds alone. A row is whole or
not there: what counts in its bucket, and all of it.
Never: reads a balance to make one.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, exists, func, insert, literal, select, type_coerce

from quota_router.core.holds import EntryKind, HoldState, charges_of
from quota_router.core.limits import EVERYONE, Limit, Unit, Window
from quota_router.core.windows import Coverage, coverage
from quota_router.store.catalog import load_catalog
from quota_router.store.labels import unfold_labels
from quota_router.store.present import hold_of, read_windows, windows_at
from quota_router.store.state import Balance
from quota_router.store.tables import EPOCH, MICROSECOND, Whole, balances, entries, holds

_ZERO = literal(0)


def project(conn: Connection, limits: Iterable[Limit], now: datetime, *, keeps_past: bool = False) -> None:
    """
    Write the balances of *limits* anew.

    A limit made in mid-window starts with what was already spent in it.

    Args:
        conn: in its write transaction.
        limits: as they stand in the catalog.
        now: which windows count.
        keeps_past: rows of windows that are over are worked out anew as well. Else they go, but for those in which a hold is
            still open and which judge it: a limit that was edited may have other windows than before.
    """
    history, catalog = read_windows(conn), load_catalog(conn)
    open_holds = [hold_of(row) for row in conn.execute(select(holds).where(holds.c.state == HoldState.HELD))]
    charges = [charge for hold in open_holds for charge in charges_of(hold, catalog, windows_at(history, hold.held_at))]
    for limit in limits:
        windows = history.get(limit.name, ())
        held: dict[datetime, int] = {}
        for charge in charges:
            if charge.limit.name == limit.name:
                held[charge.bucket] = held.get(charge.bucket, 0) + charge.held
        kept = _read_buckets(conn, limit) if keeps_past else ()
        found = _posted(conn, limit, coverage(limit, now, windows[-1] if windows else None), held)
        found |= _posted_before(conn, limit, {*held, *kept} - set(found), windows)
        for bucket, amount in held.items():
            found.setdefault(bucket, Balance()).held = amount
        conn.execute(delete(balances).where(balances.c.limit_name == limit.name))
        rows = [
            {"limit_name": limit.name, "bucket": bucket, "posted": balance.posted, "held": balance.held}
            for bucket, balance in found.items()
        ]
        if rows:
            conn.execute(insert(balances), rows)


def _read_buckets(conn: Connection, limit: Limit) -> Sequence[datetime]:
    return conn.execute(select(balances.c.bucket).where(balances.c.limit_name == limit.name)).scalars().all()


def _posted(conn: Connection, limit: Limit, covered: Coverage, held: Collection[datetime]) -> dict[datetime, Balance]:
    """
    Sum what entries of the limit's window count in it, by bucket.

    The pieces of a rolling window are read from the oldest window on in which a hold is open: it judges that hold, should it grow.
    """
    if covered.opens:
        return {}
    if covered.bucket_width is not None:
        since = [coverage(limit, bucket, None).first_bucket for bucket in held]
        return _sum_buckets(conn, limit, min([covered.first_bucket, *since]), None, covered.bucket_width)
    posted = _sum(conn, limit, covered.start, covered.end)
    return {covered.bucket: Balance(posted=posted)} if posted else {}


def _posted_before(
    conn: Connection, limit: Limit, buckets: Collection[datetime], windows: Sequence[Window]
) -> dict[datetime, Balance]:
    """Sum what counts in these *buckets*, each whole; those that begin no window of the limit as it is now are left out."""
    found: dict[datetime, Balance] = {}
    if not buckets:
        return found
    width = coverage(limit, min(buckets), None).bucket_width
    if width is not None:
        summed = _sum_buckets(conn, limit, min(buckets), max(buckets) + width, width)
        return {bucket: summed.get(bucket, Balance()) for bucket in buckets if (bucket - EPOCH) % width == timedelta(0)}
    for bucket in buckets:
        window = _window_from(limit, bucket, windows)
        if window is not None:
            found[bucket] = Balance(posted=_sum(conn, limit, window.start, window.end))
    return found


def _window_from(limit: Limit, start: datetime, windows: Sequence[Window]) -> Window | None:
    """Find the window of *limit* that begins at *start*; first-use ones are those that were opened."""
    covered = coverage(limit, start, None)
    if not covered.opens:
        return Window(start=start, end=covered.end) if covered.bucket == start else None
    place = bisect_left(windows, start, key=lambda window: window.start)
    if place == len(windows) or windows[place].start != start:
        return None
    # Two daemons may have opened one each at the same moment: an instant counts in the one that began last.
    ends = [windows[place].end, *(window.start for window in windows[place + 1 : place + 2])]
    return Window(start=start, end=min(end for end in ends if end is not None))


def _sum(conn: Connection, limit: Limit, start: datetime, end: datetime | None) -> int:
    """Sum what entries count in `[start, end)`."""
    if limit.unit is Unit.CONCURRENCY:
        return 0
    asked = select(func.coalesce(func.sum(_counted(limit.unit)), 0))
    return int(conn.execute(asked.where(*_is_within(conn, limit, start, end))).scalar_one())


def _sum_buckets(
    conn: Connection, limit: Limit, start: datetime, end: datetime | None, width: timedelta
) -> dict[datetime, Balance]:
    """Sum what entries count in `[start, end)`, in pieces of *width*; those that come to nothing are left out."""
    width_us = literal(width // MICROSECOND, Whole)
    bucket = type_coerce(entries.c.held_at, Whole) // width_us * width_us
    asked = select(bucket.label("bucket"), func.sum(_counted(limit.unit)).label("posted")).group_by("bucket")
    found = conn.execute(asked.where(*_is_within(conn, limit, start, end)))
    return {EPOCH + row.bucket * MICROSECOND: Balance(posted=int(row.posted)) for row in found if row.posted}


def _is_within(conn: Connection, limit: Limit, start: datetime, end: datetime | None) -> list[ColumnElement[bool]]:
    within = [_is_subject(limit.subject, conn.dialect.name), entries.c.held_at >= start]
    return within if end is None else [*within, entries.c.held_at < end]


def _counted(unit: Unit) -> ColumnElement[Any]:
    """What one entry counts in a unit."""
    c = entries.c
    input_tokens, output_tokens = c.input + c.cache_read + c.cache_write_5m + c.cache_write_1h, c.output + c.reasoning
    match unit:
        case Unit.USD:
            return func.coalesce(c.cost_nusd, 0)
        case Unit.REQUESTS:
            return case((c.kind.in_([EntryKind.POST, EntryKind.EXPIRE]), 1), else_=0)
        case Unit.TOKENS:
            return input_tokens + output_tokens
        case Unit.INPUT_TOKENS:
            return input_tokens
        case Unit.OUTPUT_TOKENS:
            return output_tokens
        case Unit.CONCURRENCY:
            return _ZERO


def _is_subject(subject: str, database: str) -> ColumnElement[bool]:
    """Whether a limit on *subject* counts an entry."""
    c, (kind, _, name) = entries.c, subject.partition(":")
    match kind:
        case "label":
            names, value = unfold_labels(entries, database)
            return exists(select(literal(1)).select_from(names).where(value == name))
        case "attachment":
            model, _, provider = name.rpartition("/")
            return (c.model == model) & (c.provider == provider)
        case _ if subject == EVERYONE:
            return literal(1) == literal(1)
        case _:
            return c[kind] == name
