"""
Headers that both families share: when to come back, and which ones may pass.

Law: headers are copied from an allow list, never copied and stripped.
Never: sleeps on what it reads, nor shortens it: a stated wait is a cooldown, and its caller bounds it.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from quota_router.core.health import SAID_COOLDOWN_MAX_S

_MAX_DATE_CHARS = 64
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_CLEAN = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
"""No control character but the tab: nothing that could begin another header."""


def allowed(headers: Mapping[str, str], names: frozenset[str], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """
    The headers on the allow list, names in lower case; a value with a control character is left out.

    One that stands in several lines is one list (RFC 9110 section 5.3, read 2026-11-20).
    """
    kept: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if (lower in names or lower.startswith(prefixes)) and _CLEAN.fullmatch(value) is not None:
            kept[lower] = f"{kept[lower]}, {value}" if lower in kept else value
    return kept


def retry_after(headers: Mapping[str, str], now: datetime) -> datetime | None:
    """
    When the upstream asks us to come back.

    Milliseconds are believed before seconds. A wait that is negative, not a number, in the past, or longer than any vendor's
    window is no statement and is ignored. A date is taken relative to the answer's own `Date`, so that clocks may differ.

    Args:
        headers: of the answer; names in lower case, or a mapping that ignores case.
        now: aware UTC.

    Returns:
        aware UTC, never earlier than *now*; `None` if it does not say.

    Source: RFC 9110 section 10.2.3 (seconds or HTTP date); `retry-after-ms` and its order from the official OpenAI and
        Anthropic SDKs, `x-ms-retry-after-ms` from Azure; read 2026-11-20.
    """
    for name, per_second in (("retry-after-ms", 1000), ("x-ms-retry-after-ms", 1000), ("retry-after", 1)):
        value = headers.get(name, "").strip()
        if _NUMBER.fullmatch(value) and (until := after(float(value) / per_second, now)) is not None:
            return until
    at, sent = http_date(headers.get("retry-after")), http_date(headers.get("date"))
    return after((at - (sent or now)).total_seconds(), now) if at is not None else None


def after(wait_s: float, now: datetime) -> datetime | None:
    """*now* and *wait_s* more; `None` when the wait is absurd."""
    return now + timedelta(seconds=wait_s) if 0 <= wait_s <= SAID_COOLDOWN_MAX_S else None


def http_date(value: str | None) -> datetime | None:
    """The moment that an HTTP date names, aware; `None`: absent, or no date."""
    if value is None or len(value) > _MAX_DATE_CHARS:
        return None
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is not None else None
