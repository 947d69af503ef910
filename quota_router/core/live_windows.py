"""
How long a window is that an upstream named, and when it began.

Law: a window whose length its name does not say has no beginning; nothing is guessed from its use.
Never: reads the clock. The windows of our own limits are `core/windows`.
"""

import re
from datetime import datetime, timedelta

from quota_router.core.readings import WINDOW_MAX, Said

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_NAMES = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_LENGTH = re.compile(r"([1-9][0-9]{0,7})([smhdw])")
_SHORT = tuple((unit, letter) for letter, unit in reversed(_UNITS.items()) if letter != "w")
"""From the longest to the shortest; a week is said as `7d`."""
_MONTHS = 12


def window_length(window: str) -> timedelta | None:
    """How long a window of that name is; `None`: its name does not say, it is a calendar month, or longer than any window."""
    found = _LENGTH.fullmatch(window)
    length = int(found[1]) * _UNITS[found[2]] if found else _NAMES.get(window)
    return length if length is not None and length <= WINDOW_MAX else None


def window_name(length: timedelta) -> str:
    """
    The short name of a window that is known by its length alone: `5h`, `7d`, `90m`.

    Args:
        length: positive, whole seconds.
    """
    unit, letter = next((unit, letter) for unit, letter in _SHORT if not length % unit)
    return f"{length // unit}{letter}"


def window_start(said: Said) -> datetime | None:
    """When the window began, aware UTC; `None` for a bucket, and where its length or its end is unknown."""
    end = said.resets_at
    if end is None or said.refills:
        return None
    if said.window == "month":
        return _month_before(end)
    length = window_length(said.window)
    return None if length is None else end - length


def next_month(now: datetime) -> datetime:
    """When the calendar month in UTC ends that *now* lies in: how vendors bound months unless they say otherwise."""
    return (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)


def next_week(now: datetime) -> datetime:
    """When the week in UTC ends that *now* lies in; weeks begin on Monday."""
    return next_day(now) + timedelta(days=6 - now.weekday())


def next_day(now: datetime) -> datetime:
    """When the day in UTC ends that *now* lies in."""
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _month_before(end: datetime) -> datetime:
    years, month = divmod(end.month - 2, _MONTHS)
    last_day = (end.replace(day=1) - timedelta(days=1)).day
    return end.replace(year=end.year + years, month=month + 1, day=min(end.day, last_day))
