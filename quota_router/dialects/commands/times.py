"""
When a tool says to come back, in the words in which tools say it.

Law: a time without a zone is of the zone that the tool was given; one without a date is the next that comes. A time that cannot be
read, is past or is absurdly far is `None`, never a guess.

    ...limit reached|1755615600                              epoch seconds
    resets 4:50am (Europe/Rome)                              claude: the next time it is that late there
    resets Oct 9, 5pm (Europe/Berlin), resets Mon 12:00am    claude: with a day
    Your limit will reset at 3pm (America/Bogota).           claude, older
    try again at 3:28 PM.                                    codex: the same day
    try again at Aug 8th, 2026 12:30 PM.                     codex: another day
    try again in 2 days 17 hours 14 minutes.                 codex, older
    regain access on 2026-04-01 at 00:00 UTC                 claude, of a spend limit

Source: openai/codex codex-rs/protocol/src/error.rs (`format_retry_timestamp`) and #3124; anthropics/claude-code #6119, #2490,
    #52575, #38035, and code.claude.com/docs/en/errors; read 2026-11-25.
"""

import re
from datetime import datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from quota_router.dialects.failures import instant
from quota_router.dialects.headers import after

JUST_PASSED = timedelta(minutes=10)
"""A time of day that was within this is the moment itself, not the same time tomorrow."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_NOON = 12

_EPOCH = re.compile(r"limit reached\s*\|\s*(\d{10,13})\b", re.IGNORECASE)
_REGAIN = re.compile(r"regain access on (\d{4}-\d{2}-\d{2})(?: at (\d{2}:\d{2}) utc)?", re.IGNORECASE)
_SPAN = re.compile(
    r"(?:try again|resets?|retry) in ((?:\d{1,5} ?(?:days?|hours?|minutes?|seconds?|[dhms])[ ,]*(?:and )?)+)", re.IGNORECASE
)
_PART = re.compile(r"(\d{1,5}) ?([dhms])")
_CLOCK = re.compile(
    r"(?:resets?|try again)(?: at| on)? "
    rf"(?:(?P<weekday>{'|'.join(_WEEKDAYS)})[a-z]*,? )?"
    rf"(?:(?P<month>{'|'.join(_MONTHS)})[a-z]* (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?:(?P<year>\d{{4}}),? )?)?"
    r"(?:at )?(?P<hour>\d{1,2})(?::(?P<minute>\d{2}))? ?(?P<half>[ap])m\b"
    r"(?: \((?P<zone>[^)]{1,64})\))?",
    re.IGNORECASE,
)
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def read_reset(words: str, now: datetime, zone: tzinfo) -> datetime | None:
    """
    When to come back.

    Args:
        words: the tool's sentence.
        now: aware UTC.
        zone: that of the tool's environment, for a time that names none.

    Returns:
        aware UTC, never earlier than *now*; `None` if it does not say.
    """
    if found := _EPOCH.search(words):
        return instant(int(found[1]), now)
    if found := _REGAIN.search(words):
        return instant(f"{found[1]}T{found[2] or '00:00'}:00Z", now)
    if found := _SPAN.search(words):
        return after(sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(found[1].lower())), now)
    if found := _CLOCK.search(words):
        try:
            return after((_moment(found, now, zone) - now).total_seconds(), now)
        except (ValueError, OverflowError, OSError, ZoneInfoNotFoundError):  # no such day, year or zone
            return None
    return None


def _moment(found: re.Match[str], now: datetime, zone: tzinfo) -> datetime:
    """The moment of a time of day, or of a day and a time."""
    here = now.astimezone(ZoneInfo(found["zone"]) if found["zone"] else zone)
    hour = int(found["hour"]) % _NOON + (_NOON if found["half"].lower() == "p" else 0)
    at = here.replace(hour=hour, minute=int(found["minute"] or 0), second=0, microsecond=0)
    if found["month"]:
        at = at.replace(
            year=int(found["year"] or here.year), month=_MONTHS.index(found["month"].lower()) + 1, day=int(found["day"])
        )
        # A day that is over is next year's, unless the year was said.
        return at if found["year"] or at >= here - timedelta(days=1) else at.replace(year=at.year + 1)
    period = timedelta(days=7 if found["weekday"] else 1)
    if found["weekday"]:
        at += timedelta(days=(_WEEKDAYS.index(found["weekday"].lower()) - here.weekday()) % 7)
    return at if at >= here - JUST_PASSED else at + period
