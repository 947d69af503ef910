"""
Balances worked out anew: entries and open holds, projected onto the windows of a limit.

Law: a balance is never anything but this projection; it is worked out from lines of money and open holds alone.
Never: reads a balance to make one, or projects windows that are over and in which no hold is open: nobody counts them.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, delete, exists, func, insert, literal, select, type_coerce

from quota_router.core.holds import EntryKind, HoldState, charges_of
from quota_router.core.limits import EVERYONE, Limit, Unit
from quota_router.core.windows import Coverage, coverage
from quota_router.store.catalog import load_catalog
from quota_router.store.labels import unfold_labels
from quota_router.store.present import History, hold_of, read_windows, windows_at
from quota_router.store.state import Balance
from quota_router.store.tables import EPOCH, MICROSECOND, Whole, balances, entries, holds

_ZERO = literal(0)


def project(conn: Connection, limits: Iterable[Limit], now: datetime) -> None:
    """
    Write the balances of *limits* anew.

    A limit made in mid-window starts with what was already spent in it.
    """
    history, catalog = read_windows(conn), load_catalog(conn)
    open_holds = [hold_of(row) for row in conn.execute(select(holds).where(holds.c.state == HoldState.HELD))]
    charges = [charge for hold in open_holds for charge in charges_of(hold, catalog, windows_at(history, hold.held_at))]
    for limit in limits:
        own = [charge for charge in charges if charge.limit.name == limit.name]
        found: dict[datetime, Balance] = {}
        for covered in _counted_windows(limit, {now, *(charge.bucket for charge in own)}, history):
            found |= _posted(conn, limit, covered)
        for charge in own:
            found.setdefault(charge.bucket, Balance()).held += charge.held
        conn.execute(delete(balances).where(balances.c.limit_name == limit.name))
        rows = [
            {"limit_name": limit.name, "bucket": bucket, "posted": balance.posted, "held": balance.held}
            for bucket, balance in found.items()
        ]
        if rows:
            conn.execute(insert(balances), rows)


def _counted_windows(limit: Limit, instants: Iterable[datetime], history: History) -> Collection[Coverage]:
    """The windows that hold these instants: that of now, and those of open holds, which judge a hold that grows."""
    own = {limit.name: history.get(limit.name, ())}
    found = {coverage(limit, at, windows_at(own, at).get(limit.name)) for at in instants}
    oldest = min(found, key=lambda covered: covered.first_bucket)
    # The pieces of rolling windows overlap: they are read once, from the oldest on.
    return found if oldest.bucket_width is None else [oldest]


def _posted(conn: Connection, limit: Limit, covered: Coverage) -> dict[datetime, Balance]:
    """Sum what entries of the limit's window count in it, by bucket."""
    if covered.opens or limit.unit is Unit.CONCURRENCY:
        return {}
    held_at = type_coerce(entries.c.held_at, Whole)
    bucket: ColumnElement[Any] = literal((covered.bucket - EPOCH) // MICROSECOND, Whole)
    if covered.bucket_width is not None:
        width = literal(covered.bucket_width // MICROSECOND, Whole)
        bucket = held_at // width * width
    asked = select(bucket.label("bucket"), func.sum(_counted(limit.unit)).label("posted"))
    asked = asked.where(_is_subject(limit.subject, conn.dialect.name), entries.c.held_at >= covered.first_bucket)
    if covered.end is not None:
        asked = asked.where(entries.c.held_at < covered.end)
    found = conn.execute(asked.group_by("bucket") if covered.bucket_width is not None else asked)
    return {EPOCH + row.bucket * MICROSECOND: Balance(posted=int(row.posted)) for row in found if row.posted}


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
