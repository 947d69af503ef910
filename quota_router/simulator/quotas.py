"""
What an account has used, how it is told, and when it is refused.

Law: checking and counting happen in one step without suspending, so that a quota of n admits exactly n requests.
Never: reads the clock; `now` is an argument.
"""

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from quota_router.simulator.answers import Dialect, to_json
from quota_router.simulator.script import Account, Refusal


class Meter:
    """One account's use: in its window, and of its credit since the beginning."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.reset()

    def reset(self) -> None:
        """As if it had never been used."""
        self.window_start: datetime | None = None
        self.requests = 0
        self.tokens = 0
        self.spent_usd = Decimal(0)

    def admit(self, now: datetime) -> Refusal | None:
        """
        Count a request, or say why not.

        Returns:
            `None` when it is admitted; a refused request counts nothing.
        """
        account = self.account
        full = [unit for unit, limit, used in self._quotas(now) if used >= limit]
        if full:
            return Refusal(
                status=429,
                message=f"Rate limit reached: {full[0]} per {account.window_s} s.",
                retry_after=math.ceil(self._resets_in_s(now)),
            )
        if account.credit_usd is not None and self.spent_usd >= Decimal(account.credit_usd):
            return Refusal(status=402)
        if not self._is_window_open(now):
            self.window_start, self.requests, self.tokens = now, 0, 0
        self.requests += 1
        return None

    def book(self, tokens: int, cost_usd: str | None) -> None:
        """Count what an answer used."""
        self.tokens += tokens
        self.spent_usd += Decimal(cost_usd or 0)

    def headers(self, dialect: Dialect, now: datetime) -> dict[str, str]:
        """The rate-limit headers; none for a quota that the account does not have."""
        told: dict[str, str] = {}
        resets_in_s = self._resets_in_s(now)
        resets_at = (now + timedelta(seconds=math.ceil(resets_in_s))).strftime("%Y-%m-%dT%H:%M:%SZ")
        for unit, limit, used in self._quotas(now):
            told |= dialect.quota_headers(unit, limit, max(0, limit - used), resets_in_s, resets_at)
        return told

    def key_usage(self) -> bytes:
        """
        The account's credit as OpenRouter tells it.

        Source: `GET /api/v1/key`, `upstreams.md` B3, read 2026-11-20.
        """
        credit_usd = self.account.credit_usd
        spent = _number(self.spent_usd)
        limit = None if credit_usd is None else _number(Decimal(credit_usd))
        left = None if credit_usd is None else _number(max(Decimal(0), Decimal(credit_usd) - self.spent_usd))
        data = {
            "label": self.account.key,
            "limit": limit,
            "limit_remaining": left,
            "limit_reset": None,
            "include_byok_in_limit": False,
            "usage": spent,
            "usage_daily": spent,
            "usage_weekly": spent,
            "usage_monthly": spent,
            "is_free_tier": False,
            "is_management_key": False,
            "expires_at": None,
            "rate_limit": {"requests": -1, "interval": "10s"},
        }
        return to_json({"data": data})

    def subscription_usage(self, now: datetime) -> bytes:
        """
        The account's window as Anthropic tells it to a subscriber: percent used, here of the fuller quota.

        Source: `GET /api/oauth/usage`, `upstreams.md` B1, read 2026-11-20.
        """
        shares = [100 * used / limit for _, limit, used in self._quotas(now) if limit]
        percent = round(max(shares, default=0.0), 2)
        resets_at = (now + timedelta(seconds=self._resets_in_s(now))).isoformat()
        session = {"kind": "session", "group": "session", "percent": percent, "resets_at": resets_at, "scope": None}
        told: dict[str, Any] = {
            "five_hour": {"utilization": percent, "resets_at": resets_at} if shares else None,
            "seven_day": None,
            "seven_day_opus": None,
            "seven_day_sonnet": None,
            "limits": [{**session, "is_active": True}] if shares else [],
            "extra_usage": {
                "is_enabled": False,
                "monthly_limit": None,
                "used_credits": None,
                "utilization": None,
                "currency": None,
            },
        }
        return to_json(told)

    def _is_window_open(self, now: datetime) -> bool:
        return self.window_start is not None and now < self.window_start + timedelta(seconds=self.account.window_s)

    def _quotas(self, now: datetime) -> list[tuple[str, int, int]]:
        """Unit, limit and use of each quota that the account has."""
        requests, tokens = (self.requests, self.tokens) if self._is_window_open(now) else (0, 0)
        quotas = (("requests", self.account.requests, requests), ("tokens", self.account.tokens, tokens))
        return [(unit, limit, used) for unit, limit, used in quotas if limit is not None]

    def _resets_in_s(self, now: datetime) -> float:
        """Until the open window ends, or one would that opened now."""
        start = self.window_start if self.window_start is not None and self._is_window_open(now) else now
        return (start - now).total_seconds() + self.account.window_s


def _number(amount: Decimal) -> msgspec.Raw:
    """A decimal as a JSON number, digit by digit."""
    return msgspec.Raw(f"{amount:f}")
