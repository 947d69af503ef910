"""
The arithmetic of windows: which interval an instant counts in, and under which buckets it is booked.

Law: the windows of a limit tile time: each instant lies in exactly one, and a rolling window never counts too little.
Never: resets anything. A new window begins because the clock says so.

Decision 2026-11 -- a rolling window is counted in `ROLLING_BUCKETS` pieces, and a piece that lies only partly inside it counts
    whole: the sum may be high by one piece, never low, and a check reads some sixty rows whatever the traffic.
    Look again if somebody needs a rolling window exact to the call.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import assert_never
from zoneinfo import ZoneInfo

from msgspec import Struct

from quota_router.core.limits import Limit, Unit, Window, WindowKind, WindowRule, parse_window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The one bucket of limits without windows."""
ROLLING_BUCKETS = 60
"""Pieces of a rolling window: what leaves it leaves in steps of a sixtieth."""

_MONTHS = 12
_WINDOWS_CACHED = 4_096
"""Calendar windows remembered, one per rule and minute: a call asks for the same one several times."""


class Coverage(Struct, frozen=True, kw_only=True):
    """
    The window of a limit that holds an instant, in terms of stored buckets.

    A charge at that instant is booked into `bucket`; what counts then is the sum of all buckets from `first_bucket` to `bucket`.
    """

    start: datetime
    end: datetime | None
    """`None` for `forever` and for a rolling window"""
    bucket: datetime
    first_bucket: datetime
    opens: bool = False
    """a first-use window that is not open yet: it begins with the hold that is written now"""
    bucket_width: timedelta | None = None
    """rolling only; `None`: the window is one bucket"""


def coverage(limit: Limit, at: datetime, opened: Window | None) -> Coverage:
    """
    The window of *limit* that holds *at*.

    Args:
        limit: `concurrency` counts what is open now, so its window does not matter: it has one bucket.
        at: aware UTC.
        opened: first use only: the last window that was opened, `None` if none was. It is used only if it holds *at*.

    Raises:
        ValueError: the window cannot be read, which `parse_window` says before a limit is accepted.
    """
    rule = parse_window(limit.window, limit.anchor, limit.timezone)
    kind = WindowKind.FOREVER if limit.unit is Unit.CONCURRENCY else rule.kind
    match kind:
        case WindowKind.CALENDAR:
            return _whole(*_calendar_window(rule, at.replace(second=0, microsecond=0)))
        case WindowKind.FIXED:
            assert rule.origin is not None
            start = rule.origin + (at - rule.origin) // rule.duration * rule.duration
            return _whole(start, start + rule.duration)
        case WindowKind.ROLLING:
            first, last = _rolling_bucket(at - rule.duration, rule), _rolling_bucket(at, rule)
            return Coverage(start=first, end=None, bucket=last, first_bucket=first, bucket_width=_bucket_width(rule))
        case WindowKind.FIRST_USE:
            return _first_use(at, rule, opened)
        case WindowKind.FOREVER:
            return _whole(EPOCH, None)
        case _:
            assert_never(kind)


def next_relief(limit: Limit, covered: Coverage, oldest_bucket: datetime | None) -> datetime | None:
    """
    The soonest moment at which the headroom grows by itself.

    Args:
        limit: the limit that was asked for *covered*.
        covered: its window now.
        oldest_bucket: rolling only: the oldest counted bucket in which anything is booked; `None` if there is none.

    Returns:
        the window's end; for a rolling window the instant at which *oldest_bucket* leaves it. `None` for `forever`, for
        `concurrency` (an answer frees it, not the clock), for a window not yet opened, and when nothing is booked.
    """
    if covered.opens:
        return None
    if covered.end is not None or oldest_bucket is None or limit.unit is Unit.CONCURRENCY:
        return covered.end
    rule = parse_window(limit.window, limit.anchor, limit.timezone)
    if rule.kind is not WindowKind.ROLLING:
        return None
    return oldest_bucket + _bucket_width(rule) + rule.duration


def _whole(start: datetime, end: datetime | None) -> Coverage:
    """A window with one bucket, named by its start."""
    return Coverage(start=start, end=end, bucket=start, first_bucket=start)


def _first_use(at: datetime, rule: WindowRule, opened: Window | None) -> Coverage:
    if opened is not None and opened.end is not None and opened.start <= at < opened.end:
        return _whole(opened.start, opened.end)
    return Coverage(start=at, end=at + rule.duration, bucket=at, first_bucket=at, opens=True)


# --- rolling ----------------------------------------------------------------------------------------------------------


def _bucket_width(rule: WindowRule) -> timedelta:
    # Rounded up to the microsecond in which instants are stored, so that a bucket is never narrower than its piece.
    return -(-rule.duration // ROLLING_BUCKETS)


def _rolling_bucket(at: datetime, rule: WindowRule) -> datetime:
    width = _bucket_width(rule)
    return EPOCH + (at - EPOCH) // width * width


# --- calendar ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=_WINDOWS_CACHED)
def _calendar_window(rule: WindowRule, minute: datetime) -> tuple[datetime, datetime]:
    """
    The neighbouring boundaries with *minute* between them. A minute lies in one window: since 1972 zones shift by whole ones.

    Searching, not computing, is what survives daylight saving time: midnight may be missing, come twice, or, where a zone
    crossed the date line, belong to a day that never was.
    """
    near = _boundaries(rule, minute.astimezone(rule.zone))
    return max(edge for edge in near if edge <= minute), min(edge for edge in near if edge > minute)


def _boundaries(rule: WindowRule, local: datetime) -> list[datetime]:
    """Where the windows around *local* begin, in UTC: enough of them that no shift of the clock leaves their range."""
    midnight = datetime(local.year, local.month, local.day)  # noqa: DTZ001 -- a wall clock, the zone is put on last
    steps = range(-1, 3)
    match rule.calendar:
        case "hour":
            hour = midnight.replace(hour=local.hour)
            return [edge for step in range(-2, 4) for edge in _both_times(hour + timedelta(hours=step), rule.zone)]
        case "day":
            return [_in_utc(midnight + timedelta(days=step), rule.zone) for step in steps]
        case "week":
            monday = midnight - timedelta(days=(midnight.weekday() - rule.day) % 7)
            return [_in_utc(monday + timedelta(weeks=step), rule.zone) for step in steps]
        case "month":
            return [_in_utc(_billing_day(local, step, rule.day), rule.zone) for step in steps]
        case _:
            return [_in_utc(datetime(local.year + step, 1, 1), rule.zone) for step in steps]  # noqa: DTZ001 -- likewise


def _billing_day(local: datetime, months: int, day: int) -> datetime:
    """The billing day of the month that many months from *local*, or that month's last day when it is shorter."""
    years, month = divmod(local.month - 1 + months, _MONTHS)
    year = local.year + years
    return datetime(year, month + 1, min(day, monthrange(year, month + 1)[1]))  # noqa: DTZ001 -- a wall clock


def _in_utc(wall: datetime, zone: ZoneInfo) -> datetime:
    # PEP 495: a wall time that comes twice is read as the first, one that is skipped as the instant of the jump.
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _both_times(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """An hour that the clock repeats begins twice, and both times it is a window of its own."""
    first = _in_utc(wall, zone)
    return first, max(first, _in_utc(wall.replace(fold=1), zone))
