"""
What prepaid accounts and gateways tell of their money.

Law: a balance in a currency other than the dollar is no amount here: it says only whether anything is left. Nothing is converted.
Never: guesses a currency. Where the vendor names none, the name of the poller says which site it is of.

Source: upstreams.md B3 to B6, B10, B15 (OpenRouter's SDK 1.3.84, DeepSeek's and Moonshot's API references, LiteLLM 1.109.1), read
2026-11-20; SiliconFlow's fields are unverified.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from quota_router.core.live_windows import next_day, next_month, next_week
from quota_router.core.readings import ReadingUnit, Said, Status
from quota_router.dialects.vendors.answers import Node, UnreadablePoll, balance, spent

CREDITS_WINDOW = "credits"
_USD, _CNY = "USD", "CNY"
_INTERVALS = {"daily": "day", "weekly": "week", "monthly": "month"}
_RESETS = {"day": next_day, "week": next_week, "month": next_month}
"""OpenRouter's windows are of the calendar in UTC, weeks from Monday to Sunday."""
_FREE_MODELS = "*:free"
_SILICONFLOW_OK = 20_000


def read_openrouter_key(body: Node, now: datetime) -> Iterator[Said]:
    """
    The key's own limit, the budgets above it, and the daily count of free models.

    `usage` is all-time while `limit_remaining` is of the window: what is used of it is their difference.
    """
    data = body["data"]
    limit, remaining = data.number("limit"), data.number("limit_remaining")
    if limit is not None:
        window = _INTERVALS.get(data.text("limit_reset"), "key")
        resets_at = _RESETS[window](now) if window in _RESETS else None
        used = None if remaining is None else max(Decimal(0), limit - remaining)
        yield spent(window, used, limit, resets_at, now)
    for budget in data.each("budgets"):
        cap, used = budget.number("limit_usd"), budget.number("spend_usd")
        if cap is not None:
            interval = _INTERVALS.get(budget.text("reset_interval"), "total")
            yield spent(f"{budget.text('scope') or 'budget'}:{interval}", used, cap, budget.moment("resets_at"), now)
    free = data.get("free_model_daily_requests")
    if free is not None:
        yield Said(
            window="day",
            unit=ReadingUnit.REQUESTS,
            model=_FREE_MODELS,
            used=free.count("used"),
            limit=free.count("limit"),
            resets_at=next_day(now),
            observed_at=now,
        )


def read_openrouter_credits(body: Node, now: datetime) -> Iterator[Said]:
    """What was bought and what was used of it, in all time; it may lag a minute."""
    data = body["data"]
    yield spent(CREDITS_WINDOW, data["total_usage"].as_number(), data["total_credits"].as_number(), None, now)


def read_deepseek(body: Node, now: datetime) -> Iterator[Said]:
    """One balance for each currency. With money in several, no one number says what is left."""
    is_available = body.flag("is_available")
    if is_available is None:
        raise UnreadablePoll("The answer has no `is_available`.")
    balances = [(entry.text("currency"), entry["total_balance"].as_number()) for entry in body.each("balance_infos")]
    funded = [entry for entry in balances if entry[1] != 0] or balances[:1]
    if len(funded) == 1 and is_available:
        yield from _balance(*funded[0], now)
    else:
        yield _state(now, is_usable=is_available)


def read_moonshot(body: Node, now: datetime) -> Iterator[Said]:
    """The balance of platform.moonshot.ai, in dollars."""
    yield from _moonshot(body, now, _USD)


def read_moonshot_cn(body: Node, now: datetime) -> Iterator[Said]:
    """The balance of platform.moonshot.cn, in yuan."""
    yield from _moonshot(body, now, _CNY)


def read_siliconflow(body: Node, now: datetime) -> Iterator[Said]:
    """The balance at siliconflow.com, in dollars."""
    yield from _siliconflow(body, now, _USD)


def read_siliconflow_cn(body: Node, now: datetime) -> Iterator[Said]:
    """The balance at siliconflow.cn, in yuan."""
    yield from _siliconflow(body, now, _CNY)


def read_litellm_key(body: Node, now: datetime) -> Iterator[Said]:
    """What the key of a LiteLLM proxy has spent, and may; without a budget only what it has spent."""
    info = body["info"]
    yield spent("budget", info["spend"].as_number(), info.number("max_budget"), info.moment("budget_reset_at"), now)


def _moonshot(body: Node, now: datetime, currency: str) -> Iterator[Said]:
    code = body.count("code")
    if code != 0:
        raise UnreadablePoll(f"The vendor answers with code {code}.")
    yield from _balance(currency, body["data"]["available_balance"].as_number(), now)


def _siliconflow(body: Node, now: datetime, currency: str) -> Iterator[Said]:
    code = body.count("code")
    if code not in {None, _SILICONFLOW_OK}:
        raise UnreadablePoll(f"The vendor answers with code {code}.")
    yield from _balance(currency, body["data"]["totalBalance"].as_number(), now)


def _balance(currency: str, left: Decimal, now: datetime) -> Iterator[Said]:
    if currency.upper() == _USD:
        yield balance(CREDITS_WINDOW, left, now)
    else:
        yield _state(now, is_usable=left > 0)


def _state(now: datetime, *, is_usable: bool) -> Said:
    """Whether anything is left, and no more than that."""
    status = Status.ALLOWED if is_usable else Status.REJECTED
    return Said(window=CREDITS_WINDOW, unit=ReadingUnit.USD, status=status, observed_at=now)
