"""
What coding plans tell of their windows: z.ai, MiniMax, Kimi.

Law: a window is named by its length. A status inside a 200 counts: these vendors say "no" there.
Never: takes a count of tools, images or videos for one of the calls.

Source: upstreams.md B7 to B9 (observed by public clients), read 2026-11-20.

Decision 2026-11 -- Kimi's counts have no unit in any document, so their share is read and not their number.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal

from quota_router.core.live_windows import window_name
from quota_router.core.readings import WINDOW_MAX, ReadingUnit, Said
from quota_router.dialects.vendors.answers import Node, UnreadablePoll, percent

_WHOLE = Decimal(100)
_ZAI_OK = 200
_ZAI_UNITS = {1: timedelta(days=1), 3: timedelta(hours=1), 5: timedelta(minutes=1), 6: timedelta(weeks=1)}
_ZAI_SHARES = frozenset({"TOKENS_LIMIT", "CREDIT_LIMIT"})
_ZAI_TOOLS = "TIME_LIMIT"
_MINIMAX_TEXT = "general"
_MINIMAX_ACTIVE = 1
_KIMI_UNITS = {
    "TIME_UNIT_SECOND": timedelta(seconds=1),
    "TIME_UNIT_MINUTE": timedelta(minutes=1),
    "TIME_UNIT_HOUR": timedelta(hours=1),
    "TIME_UNIT_DAY": timedelta(days=1),
}


def read_zai(body: Node, now: datetime) -> Iterator[Said]:
    """The plan's windows; one that is not counted in tokens or credits is of tools, and binds no call."""
    code = body.count("code")
    if code not in {None, _ZAI_OK} or body.flag("success") is False:
        raise UnreadablePoll(f"The vendor answers with code {code}.")
    for limit in body["data"]["limits"].elements():
        kind, resets_at = limit.text("type"), limit.moment("nextResetTime")
        if kind in _ZAI_SHARES:
            unit = _ZAI_UNITS.get(limit.count("unit") or 0)
            yield percent(_named(unit, limit.count("number"), "plan"), limit["percentage"].as_number(), resets_at, now)
        elif kind == _ZAI_TOOLS:
            yield percent("tools", limit["percentage"].as_number(), resets_at, now, is_extra=True)


def read_minimax(body: Node, now: datetime) -> Iterator[Said]:
    """
    The plan's interval and its week.

    `*_usage_count` is what remains, whatever it is called, and is only used where no percentage is told.
    """
    code = body["base_resp"].count("status_code")
    if code != 0:
        raise UnreadablePoll(f"The vendor answers with code {code}.")
    for entry in body["model_remains"].elements():
        name = entry.text("model_name").lower()
        model = "" if name in {_MINIMAX_TEXT, ""} else name
        start, end = entry.moment("start_time"), entry.moment("end_time")
        length = end - start if start is not None and end is not None else None
        left = entry.number("current_interval_remaining_percent")
        if left is None:
            left = _left_percent(entry.number("current_interval_usage_count"), entry.number("current_interval_total_count"))
        if left is not None:
            yield percent(_named(length, 1, "interval"), _WHOLE - left, end, now, model=model)
        weekly = entry.number("current_weekly_remaining_percent")
        if weekly is not None and entry.count("current_weekly_status") == _MINIMAX_ACTIVE:
            yield percent("7d", _WHOLE - weekly, entry.moment("weekly_end_time"), now, model=model)


def read_kimi(body: Node, now: datetime) -> Iterator[Said]:
    """The plan as a whole, and its windows."""
    yield _kimi("plan", body["usage"], now)
    for limit in body.each("limits"):
        window = limit["window"]
        yield _kimi(_named(_KIMI_UNITS.get(window.text("timeUnit")), window.count("duration"), "window"), limit["detail"], now)


def _kimi(window: str, detail: Node, now: datetime) -> Said:
    limit, used, remaining = detail["limit"].as_number(), detail.number("used"), detail.number("remaining")
    if used is None and remaining is not None:
        used = limit - remaining
    if limit <= 0 or used is None:
        return Said(window=window, unit=ReadingUnit.SHARE, observed_at=now)
    return percent(window, used * 100 / limit, detail.moment("resetTime"), now)


def _left_percent(left: Decimal | None, total: Decimal | None) -> Decimal | None:
    return left * 100 / total if left is not None and total else None


def _named(unit: timedelta | None, number: int | None, otherwise: str) -> str:
    """The name of a window of so many units; *otherwise* where that is no length."""
    if unit is None or number is None or not 0 < number <= WINDOW_MAX // timedelta(seconds=1):
        return otherwise
    length = unit * number
    is_plain = timedelta(0) < length <= WINDOW_MAX and not length % timedelta(seconds=1)
    return window_name(length) if is_plain else otherwise
