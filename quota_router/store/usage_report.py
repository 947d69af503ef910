"""
What was used, by whom, and what it cost: sums over entries and holds.

Law: cost and tokens are sums of entries, so that they equal spend; calls, attempts, failures and latencies come from the holds.
Both are read in one transaction and counted by `held_at`. Groups by label overlap, the total does not.
Never: sums or sorts by itself: the database does, on its own thread, and hands out one row per group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, Subquery, Table, case, cast, func, literal, select, true, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from quota_router.core.holds import Outcome
from quota_router.errors import InvalidRequest, did_you_mean
from quota_router.store.labels import unfold_labels
from quota_router.store.tables import EPOCH, MICROSECOND, Whole, entries, holds

GROUP_KEYS = ("provider", "account", "model", "caller", "label", "workflow", "stage", "rule", "day")
GROUPS_MAX = 10_000
"""More groups than that are refused, not cut: half an answer would read as a whole one."""

_FAILED = (Outcome.FAILED, Outcome.UNKNOWN)
"""An attempt that brought no answer. One that its caller cancelled is no failure."""
_DAY = timedelta(days=1)
_QUANTILES = {"latency_p50_ms": 50, "latency_p95_ms": 95}
"""In percent; nearest rank."""

Key = tuple[Any, ...]
Groups = dict[Key, dict[str, Any]]


async def read_usage(
    conn: AsyncConnection, group_by: Sequence[str], since: datetime | None, until: datetime | None, tz: ZoneInfo
) -> dict[str, Any]:
    """
    Sum what was held in `[since, until)`.

    Args:
        conn: a reading transaction.
        group_by: some of `GROUP_KEYS`; without any there are no groups, only the total.
        since: aware; `None`: from the first.
        until: aware; `None`: to the last.
        tz: whose calendar `day` follows.

    Raises:
        InvalidRequest: a key that is not known, or that stands twice; or more groups than `GROUPS_MAX`.
    """
    _refuse_unknown(group_by)
    within = _Within(since=since, until=until)
    days = _days_of(tz, *await _span(conn, within)) if "day" in group_by else _Days()
    groups = await _read(conn, tuple(group_by), within, days) if group_by else {}
    (total,) = (await _read(conn, (), within, days)).values()
    ordered = sorted(groups, key=lambda key: [(value is not None, value) for value in key])
    return {
        "groups": [{**_shown(group_by, key), **groups[key]} for key in ordered],
        "total": total,
    }


def _refuse_unknown(group_by: Sequence[str]) -> None:
    for key in group_by:
        if key not in GROUP_KEYS:
            raise InvalidRequest(f"`group_by` names a key that is not known: {did_you_mean(key, GROUP_KEYS)}", param="group_by")
    if len(set(group_by)) < len(group_by):
        raise InvalidRequest("`group_by` names a key twice.", param="group_by")


def _shown(group_by: Sequence[str], key: Key) -> dict[str, Any]:
    shown = dict(zip(group_by, key, strict=True))
    if "day" in shown:
        shown["day"] = (EPOCH + shown["day"] * _DAY).date().isoformat()
    return shown


# --- what is summed -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Within:
    """The half-open interval of `held_at` that is asked for."""

    since: datetime | None
    until: datetime | None

    def of(self, table: Table) -> list[ColumnElement[bool]]:
        """Which rows lie in it."""
        held_at = table.c.held_at
        return [
            *([held_at >= self.since] if self.since is not None else []),
            *([held_at < self.until] if self.until is not None else []),
        ]


async def _read(conn: AsyncConnection, keys: tuple[str, ...], within: _Within, days: "_Days") -> Groups:
    """Every group's numbers; without keys the one group of all."""
    attempts = _unfolded(holds, keys, within, days, conn.dialect.name)
    groups: Groups = {}
    for row in await conn.execute(_count_attempts(attempts, keys)):
        key, (calls, tried, failures) = tuple(row)[: len(keys)], tuple(row)[len(keys) :]
        groups[key] = {**_nothing(), "calls": calls, "attempts": tried, "failures": failures}
    for row in await conn.execute(_sum_entries(_unfolded(entries, keys, within, days, conn.dialect.name), keys)):
        key, sums = tuple(row)[: len(keys)], tuple(row)[len(keys) :]
        groups.setdefault(key, _nothing()).update(zip(_SUMMED, sums, strict=True))
    if len(groups) > GROUPS_MAX:
        raise InvalidRequest(f"That makes more than {GROUPS_MAX} groups: ask for fewer keys or a shorter time.", param="group_by")
    for row in await conn.execute(_rank_latencies(attempts, keys)):
        key, latencies = tuple(row)[: len(keys)], tuple(row)[len(keys) :]
        groups[key].update(zip(_QUANTILES, latencies, strict=True))
    return groups


_SUMMED = ("input_tokens", "output_tokens", "cost_nusd", "shadow_cost_nusd", "unpriced")
"""What `_sum_entries` sums, in its order."""


def _nothing() -> dict[str, Any]:
    counts = ("calls", "attempts", "failures", *_SUMMED)
    return {**dict.fromkeys(counts, 0), **dict.fromkeys(_QUANTILES)}


def _unfolded(table: Table, keys: tuple[str, ...], within: _Within, days: "_Days", database: str) -> Subquery:
    """The rows asked for, with one column per key; grouped by label, a row stands once for each of its labels."""
    source: Any = table
    columns: dict[str, ColumnElement[Any]] = dict(table.c)
    if "label" in keys:
        names, label = unfold_labels(table, database)
        source = table.outerjoin(names, true())
        columns = {**columns, "label": label}
    if "rule" in keys and table is entries:  # a line of money tells its hold, and the hold its rule
        source = source.outerjoin(holds, holds.c.id == entries.c.hold_id)
        columns = {**columns, "rule": holds.c.rule}
    if "day" in keys:
        columns = {**columns, "day": days.of(table)}
    numbers = [column for column in table.c if column.name not in keys]
    return select(*(columns[key].label(key) for key in keys), *numbers).select_from(source).where(*within.of(table)).subquery()


def _count_attempts(rows: Subquery, keys: tuple[str, ...]) -> Select[Any]:
    by = [rows.c[key] for key in keys]
    return _bounded(
        select(
            *by,
            func.count(rows.c.call_id.distinct()),
            func.count(),
            func.count(case((rows.c.outcome.in_(_FAILED), 1))),
        ).select_from(rows),
        by,
    )


def _sum_entries(rows: Subquery, keys: tuple[str, ...]) -> Select[Any]:
    by, c = [rows.c[key] for key in keys], rows.c
    summed = (
        c.input + c.cache_read + c.cache_write_5m + c.cache_write_1h,
        c.output + c.reasoning,
        c.cost_nusd,
        c.shadow_cost_nusd,
        # An entry without a price is one.
        case((c.cost_nusd.is_(None), 1), else_=0),
    )
    # A server sums whole numbers into decimals.
    return _bounded(select(*by, *(cast(func.coalesce(func.sum(column), 0), Whole) for column in summed)), by)


def _rank_latencies(rows: Subquery, keys: tuple[str, ...]) -> Select[Any]:
    """The smallest latency that is not below so many percent of its group's."""
    by, is_timed = [rows.c[key] for key in keys], rows.c.latency_ms.is_not(None)
    count = func.count().label("count")
    counted = select(*by, rows.c.latency_ms, count).where(is_timed).group_by(*by, rows.c.latency_ms).subquery()
    by = [counted.c[key] for key in keys]
    ranked = select(
        *by,
        counted.c.latency_ms,
        func.sum(counted.c.count).over(partition_by=by, order_by=counted.c.latency_ms).label("rank"),
        func.sum(counted.c.count).over(partition_by=by).label("whole"),
    ).subquery()
    by, c = [ranked.c[key] for key in keys], ranked.c
    reached = (case((c.rank * 100 >= c.whole * percent, c.latency_ms)) for percent in _QUANTILES.values())
    return _bounded(select(*by, *(func.min(latency_ms) for latency_ms in reached)), by)


def _bounded(statement: Select[Any], by: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return statement.group_by(*by).limit(GROUPS_MAX + 1)


# --- days of a zone -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Days:
    """
    A zone's days, as arithmetic that a database can do without knowing zones.

    Between two changes of its clock a zone is a fixed time ahead of UTC: that much is added, and whole days are counted.
    """

    changes: tuple[tuple[datetime, timedelta], ...] = ()
    """(until when, how far ahead), ascending"""
    ahead: timedelta = timedelta(0)
    """after the last change"""

    def of(self, table: Table) -> ColumnElement[Any]:
        """The day of `held_at`, counted from 1970-01-01."""
        last_us = literal(self.ahead // MICROSECOND, Whole)
        steps = [(table.c.held_at < until, literal(ahead // MICROSECOND, Whole)) for until, ahead in self.changes]
        ahead_us = case(*steps, else_=last_us) if steps else last_us
        return (type_coerce(table.c.held_at, Whole) + ahead_us) // (_DAY // MICROSECOND)


async def _span(conn: AsyncConnection, within: _Within) -> tuple[datetime, datetime]:
    """The first and the last moment at which anything was held."""
    found: list[datetime] = []
    for table in (holds, entries):
        row = (await conn.execute(select(func.min(table.c.held_at), func.max(table.c.held_at)).where(*within.of(table)))).one()
        found += [moment for moment in row if moment is not None]
    return min(found, default=EPOCH), max(found, default=EPOCH)


def _days_of(tz: ZoneInfo, first: datetime, last: datetime) -> _Days:
    """Find every change of the zone's clock between the two moments."""
    changes: list[tuple[datetime, timedelta]] = []
    at, ahead = first, _ahead(tz, first)
    while at < last:
        later = min(at + _DAY, last)
        if _ahead(tz, later) != ahead:
            later = _first_change(tz, at, later)
            changes.append((later, ahead))
            ahead = _ahead(tz, later)
        at = later
    return _Days(changes=tuple(changes), ahead=ahead)


def _first_change(tz: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first moment at which the zone is not as far ahead as at *before*; it lies in the day that ends with *after*."""
    ahead = _ahead(tz, before)
    while after - before > MICROSECOND:
        middle = before + (after - before) // 2
        before, after = (middle, after) if _ahead(tz, middle) == ahead else (before, middle)
    return after


def _ahead(tz: ZoneInfo, at: datetime) -> timedelta:
    ahead = at.astimezone(tz).utcoffset()
    assert ahead is not None
    return ahead
