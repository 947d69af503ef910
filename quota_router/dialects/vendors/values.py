"""
The values in which vendors write quotas into headers, and the answer they came in.

Law: a value is read in the encoding of its family and never guessed; what does not fit it is "not said". Nothing raises.
Never: rounds headroom up: what is left is rounded down, what is used is rounded up.

Four encodings of a reset (upstreams.md A.0, read 2026-11-20): a duration as Go writes it (`6m0s`), bare seconds, RFC 3339, and
epoch seconds, which one gateway sends in milliseconds.

Decision 2026-11 -- an absolute reset is moved by the difference between our clock and the answer's `Date` when that is more than
    `SKEW_MIN` (fault F29). Smaller ones are latency and whole seconds: moving by them would make every answer's reset another.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from msgspec import Struct

from quota_router.core.readings import PPM, WINDOW_MAX, Status
from quota_router.dialects.headers import http_date

SKEW_MIN = timedelta(seconds=5)
SKEW_MAX = timedelta(days=1)
"""A `Date` further off than this is no clock's."""
NUSD_PER_USD = 10**9
"""Amounts are nano-USD (design 5)."""

_DIGITS_MAX = 18
"""More digits before the point are no quota."""
_EXPONENT_MIN = -40
_WHOLE = re.compile(r"([0-9]{1,15})(?:\.[0-9]{1,20})?")
_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,2})?")
_SECONDS = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,20})?")
_EPOCH = re.compile(r"[0-9]{9,14}(?:\.[0-9]{1,9})?")
_PIECE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|µs|ns|h|m|s|d)")
_DURATION = re.compile(rf"(?:{_PIECE.pattern})+")
_PIECE_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_MS_FROM = 10_000_000_000
"""An epoch at or above this is in milliseconds."""
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""No quota resets outside of these."""
_STATUSES = {
    "allowed": Status.ALLOWED,
    "allowed_warning": Status.WARNING,
    "rejected": Status.REJECTED,
}


_sent = lru_cache(maxsize=64)(http_date)
"""The answers of one second carry one `Date`, and an answer may hold several resets."""


class Told(Struct, frozen=True, kw_only=True):
    """The headers of one answer, and what is known of the call it answers."""

    headers: Mapping[str, str]
    """names in lower case"""
    now: datetime
    """when they arrived, aware UTC"""
    model: str
    """the upstream model that was called; empty: unknown"""

    def ours(self, at: datetime | None) -> datetime | None:
        """A moment by the vendor's clock, by ours."""
        sent = _sent(self.headers.get("date")) if at is not None else None
        if at is None or sent is None or not SKEW_MIN < abs(self.now - sent) <= SKEW_MAX:
            return at
        return at + (self.now - sent)


# --- numbers ----------------------------------------------------------------------------------------------------------


def whole(value: str | None) -> int | None:
    """A count, rounded down. `None`: absent, negative (some vendors say -1 for "unknown"), or no number."""
    found = _WHOLE.fullmatch(value.strip()) if value is not None else None
    return int(found[1]) if found is not None else None


def decimal(value: str | None) -> Decimal | None:
    """A number that is not negative, exactly. `None`: absent, or no such number."""
    text = value.strip() if value is not None else ""
    return Decimal(text) if _DECIMAL.fullmatch(text) is not None else None


def share_ppm(value: Decimal | None, per: int = 1) -> int | None:
    """
    The used part of a whole, in parts per million, rounded up.

    Args:
        value: `None`: not said.
        per: what stands for the whole: 1 for fractions, 100 for percent.
    """
    return None if value is None or not is_sane(value) else ceil(Fraction(value) * PPM / per)


def nusd(value: Decimal | None, *, is_cap: bool, per_usd: int = 1) -> int | None:
    """
    An amount of money in nano-USD. A cap is rounded down and a use up.

    Args:
        value: `None`: not said.
        is_cap: whether it is what may be used, not what was.
        per_usd: how many of the vendor's units are a dollar: 100 for cents.
    """
    if value is None or not is_sane(value):
        return None
    amount = Fraction(value) * NUSD_PER_USD / per_usd
    return floor(amount) if is_cap else ceil(amount)


def is_sane(value: Decimal) -> bool:
    """Whether a number is of a size that arithmetic with it stays small."""
    _, digits, exponent = value.as_tuple()
    return isinstance(exponent, int) and exponent >= _EXPONENT_MIN and len(digits) + exponent <= _DIGITS_MAX


def status(value: str | None) -> Status | None:
    """Anthropic's word on a window; `None`: absent, or a word we do not know."""
    return _STATUSES.get(value.strip().lower()) if value is not None else None


# --- resets -----------------------------------------------------------------------------------------------------------


def go_duration(value: str, told: Told) -> datetime | None:
    """`6m0s`, `7.66s`, `12ms`, `1d2h`: from now. OpenAI, Groq."""
    text = value.strip()
    if _DURATION.fullmatch(text) is None:
        return None
    return _from_now(sum(float(piece[1]) * _PIECE_S[piece[2]] for piece in _PIECE.finditer(text)), told.now)


def seconds(value: str, told: Told) -> datetime | None:
    """`26.5`: from now. Azure, Cerebras, Mistral, Together, the IETF drafts."""
    text = value.strip()
    return _from_now(float(text), told.now) if _SECONDS.fullmatch(text) is not None else None


def rfc3339(value: str, told: Told) -> datetime | None:
    """An instant, by the vendor's clock. Anthropic's buckets."""
    return told.ours(instant(value))


def epoch(value: str, told: Told) -> datetime | None:
    """Seconds, or milliseconds, since 1970, by the vendor's clock. Anthropic's subscriptions, Codex, OpenRouter."""
    text = value.strip()
    return told.ours(from_epoch(float(text))) if _EPOCH.fullmatch(text) is not None else None


def any_reset(value: str, told: Told) -> datetime | None:
    """For gateways of which nothing is known: the four encodings do not overlap, epochs being larger than any wait."""
    return epoch(value, told) or seconds(value, told) or go_duration(value, told) or rfc3339(value, told)


def instant(value: str) -> datetime | None:
    """An RFC 3339 instant as aware UTC; one without offset is UTC. `None`: none, or of a year that is nobody's."""
    try:
        at = datetime.fromisoformat(value.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at if _FIRST <= at < _LAST else None


def from_epoch(number: float) -> datetime | None:
    """A moment in seconds or milliseconds since 1970; `None` when it is nobody's."""
    epoch_s = number / 1000 if number >= _MS_FROM else number
    return datetime.fromtimestamp(epoch_s, UTC) if 0 <= epoch_s < _LAST.timestamp() else None


def _from_now(wait_s: float, now: datetime) -> datetime | None:
    return now + timedelta(seconds=wait_s) if wait_s <= WINDOW_MAX.total_seconds() else None
