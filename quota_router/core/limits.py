"""
Limits, what is left of them, and how an operator writes their windows.

Law: a window that cannot be read is refused when it is written, never when a call needs it.
Never: reads balances (they are passed in) or the clock; the arithmetic of windows is `core/windows`.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Self, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from quota_router.core.words import ManagedBy

EVERYONE = "everyone"
"""The subject of a limit that every call counts in."""
MAX_DURATION = timedelta(days=3_660)
"""The longest `<n>(s|m|h|d)` window; whoever wants more means `forever`."""
_RULES_CACHED = 4_096
"""How many parsed windows are remembered: more than any catalog has."""

_CALENDAR_NAMES = ("hour", "day", "week", "month", "year")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_BILLING_DAYS = tuple(str(day) for day in range(1, 32))
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_DURATION_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


class Unit(StrEnum):
    """What a limit counts."""

    USD = "usd"
    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CONCURRENCY = "concurrency"


class Kind(StrEnum):
    """`QUOTA`: the provider sets it on us. `BUDGET`: we set it."""

    QUOTA = "quota"
    BUDGET = "budget"


class Enforcement(StrEnum):
    """`STRICT` holds the upper bound, `BOUNDED` the likely amount, `ADVISORY` never refuses."""

    STRICT = "strict"
    BOUNDED = "bounded"
    ADVISORY = "advisory"


class WindowKind(StrEnum):
    """Where the windows of a limit begin and end."""

    CALENDAR = "calendar"
    """hours, days, weeks, months or years of a time zone"""
    FIXED = "fixed"
    """one duration after the other, counted from an instant"""
    ROLLING = "rolling"
    """the last duration before now"""
    FIRST_USE = "first_use"
    """a duration that begins with the first hold"""
    FOREVER = "forever"
    """one window without end"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A cap on a unit over a window for a subject."""

    name: str
    kind: Kind
    subject: str
    unit: Unit
    limit: int
    """in the unit; for usd in nano-USD"""
    window: str
    """`hour|day|week|month|year|forever` or `<n>(s|m|h|d)`"""
    anchor: str | None = None
    """`None`: calendar for names, rolling for durations; `rolling`, `first_use`, an RFC 3339 instant, a weekday, `1`-`31`"""
    timezone: str = "UTC"
    enforcement: Enforcement = Enforcement.BOUNDED
    managed_by: ManagedBy = field(default=ManagedBy.FILE, compare=False)
    """who may edit it; two limits that count the same are the same limit"""
    version: int = field(default=1, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """`[start, end)`; `end` is `None` for `forever` and for a rolling window, which has no end of its own."""

    start: datetime
    end: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """The window of a limit, read once. Fields that its kind does not use are empty."""

    kind: WindowKind
    zone: ZoneInfo
    calendar: str = ""
    """`hour`, `day`, `week`, `month` or `year`"""
    day: int = 1
    """`week`: 0 is Monday; `month`: the billing day, clamped in short months"""
    duration: timedelta = timedelta(0)
    origin: datetime | None = None
    """`FIXED`: where the counting begins, aware UTC"""


class Amounts(Struct, frozen=True, kw_only=True):
    """What a call asks of, or took from, every unit at once."""

    cost_nusd: int
    requests: int
    input_tokens: int
    output_tokens: int

    def plus(self, other: Self, times: int = 1) -> Self:
        """The sum with *other* taken so many times; -1 takes it away."""
        return type(self)(
            cost_nusd=self.cost_nusd + times * other.cost_nusd,
            requests=self.requests + times * other.requests,
            input_tokens=self.input_tokens + times * other.input_tokens,
            output_tokens=self.output_tokens + times * other.output_tokens,
        )

    def of(self, unit: Unit) -> int:
        """The amount that a limit in *unit* counts; an open attempt takes one place of `concurrency`."""
        match unit:
            case Unit.USD:
                return self.cost_nusd
            case Unit.REQUESTS | Unit.CONCURRENCY:
                return self.requests
            case Unit.TOKENS:
                return self.input_tokens + self.output_tokens
            case Unit.INPUT_TOKENS:
                return self.input_tokens
            case Unit.OUTPUT_TOKENS:
                return self.output_tokens
            case _:
                assert_never(unit)


NOTHING = Amounts(cost_nusd=0, requests=0, input_tokens=0, output_tokens=0)


class Gauge(Struct, frozen=True, kw_only=True):
    """A limit and what its window has taken so far, in the limit's unit."""

    limit: Limit
    posted: int
    held: int
    bucket: datetime
    """where a charge of this moment is booked"""
    window_start: datetime
    window_end: datetime | None
    relief_at: datetime | None
    """the soonest moment at which the headroom can grow by itself; `None`: no such moment is known"""
    opens: bool = False
    """a first-use window that begins with the hold that is written now"""

    @property
    def remaining(self) -> int:
        """What is left; 0 when an overrun took more than there was."""
        return max(0, self.limit.limit - self.posted - self.held)

    def fits(self, amount: int) -> bool:
        """Whether *amount* still fits. Who asks for nothing fits even into a limit that was overrun."""
        return amount == 0 or self.posted + self.held + amount <= self.limit.limit


def subjects_of(provider: str, account: str, model: str, caller: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Every subject that a limit on this attempt may be set on, in the order in which limits are judged."""
    return rung_subjects(provider, account, model) + caller_subjects(caller, labels)


def rung_subjects(provider: str, account: str, model: str) -> tuple[str, ...]:
    """The subjects that an attempt on this rung has whoever calls."""
    return (EVERYONE, f"provider:{provider}", f"account:{account}", f"attachment:{model}/{provider}", f"model:{model}")


def caller_subjects(caller: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """The subjects that an attempt has on every rung."""
    return (f"caller:{caller}", *[f"label:{label}" for label in labels])


@lru_cache(maxsize=_RULES_CACHED)
def parse_window(window: str, anchor: str | None, timezone: str) -> WindowRule:
    """
    Read the window of a limit.

    Args:
        window: `hour|day|week|month|year|forever` or `<n>(s|m|h|d)`.
        anchor: see `Limit.anchor`.
        timezone: an IANA name; calendar windows follow it through daylight saving time.

    Raises:
        ValueError: the message is a sentence that says what is allowed.
    """
    zone = _parse_zone(timezone)
    if window == "forever":
        if anchor is not None:
            raise ValueError(f"window 'forever' takes no anchor, not {anchor!r}.")
        return WindowRule(kind=WindowKind.FOREVER, zone=zone)
    if window in _CALENDAR_NAMES:
        return WindowRule(kind=WindowKind.CALENDAR, zone=zone, calendar=window, day=_parse_day(window, anchor))
    duration = _parse_duration(window)
    if anchor is None or anchor == "rolling":
        return WindowRule(kind=WindowKind.ROLLING, zone=zone, duration=duration)
    if anchor == "first_use":
        return WindowRule(kind=WindowKind.FIRST_USE, zone=zone, duration=duration)
    return WindowRule(kind=WindowKind.FIXED, zone=zone, duration=duration, origin=_parse_origin(window, anchor))


def _parse_zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:  # a folder of zones is an OSError
        raise ValueError(f"timezone {timezone!r} is not known: write an IANA name such as Europe/Berlin.") from exc


def _parse_day(window: str, anchor: str | None) -> int:
    if window == "week":
        if anchor is None:
            return 0
        if anchor.lower() in _WEEKDAYS:
            return _WEEKDAYS.index(anchor.lower())
        raise ValueError(f"window 'week' takes a weekday such as 'monday' as its anchor, not {anchor!r}.")
    if window == "month":
        if anchor is None:
            return 1
        if anchor in _BILLING_DAYS:
            return int(anchor)
        raise ValueError(f"window 'month' takes a day from 1 to 31 as its anchor, not {anchor!r}.")
    if anchor is not None:
        raise ValueError(f"window {window!r} takes no anchor, not {anchor!r}: write a duration such as '24h' to anchor it.")
    return 1


def _parse_duration(window: str) -> timedelta:
    found = _DURATION.fullmatch(window)
    if found is None:
        raise ValueError(
            f"window {window!r} is not known: write hour, day, week, month, year, forever, "
            "or a number with s, m, h or d, such as '5h'."
        )
    count, unit = int(found[1]), _DURATION_UNITS[found[2]]
    if not 0 < count <= MAX_DURATION // unit:
        raise ValueError(f"window {window!r} must be longer than nothing and at most {MAX_DURATION.days} days.")
    return count * unit


def _parse_origin(window: str, anchor: str) -> datetime:
    try:
        origin = datetime.fromisoformat(anchor)
    except ValueError as exc:
        raise ValueError(
            f"window {window!r} takes 'rolling', 'first_use' or an instant such as '2026-01-31T00:00:00Z' "
            f"as its anchor, not {anchor!r}."
        ) from exc
    if origin.tzinfo is None:
        raise ValueError(f"anchor {anchor!r} has no offset: write an instant such as '2026-01-31T00:00:00Z'.")
    return origin.astimezone(UTC)
