"""
What organisations have spent and may, as the vendors' administration tells.

Law: an amount is read only whole: an answer that has further pages is refused, not summed in part.
Never: takes a limit of one member, team or workspace for that of the account.

Source: upstreams.md B13 and B14 and the types of the official SDKs (openai 3.52.0, anthropic 2.11.0), read 2026-11-20. Spend is
told by the day, and some minutes late: it corrects, it does not gate.

Decision 2026-11 -- OpenAI's `enforcement.status` is not read as a refusal: its reference says only "currently enforcing", and its
    own example of a limit just set says so too. A limit that is reached is told by the 429. Look again when it is documented.
Decision 2026-11 -- of Anthropic's limits the organisation's own and the usage tier's cap the account, whichever is smaller;
    `/effective` tells of members of Claude Enterprise, and is read when it tells of exactly one.
"""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal

from quota_router.core.live_windows import next_day, next_month
from quota_router.core.readings import Said
from quota_router.dialects.vendors.answers import Node, UnreadablePoll, spent

_CENTS = 100
_PERIODS = {"daily": "day", "weekly": "week", "monthly": "month"}
_OF_THE_ACCOUNT = frozenset({"organization", "usage_tier"})


def read_openai_costs(body: Node, now: datetime) -> Iterator[Said]:
    """What the organisation has spent this month, in UTC."""
    total = Decimal(0)
    for result in _results(body):
        amount = result.get("amount")
        if amount is None:
            continue
        _check_currency(amount)
        total += amount["value"].as_number()
    yield spent("month", total, None, next_month(now), now)


def read_openai_spend_limit(body: Node, now: datetime) -> Iterator[Said]:
    """The organisation's hard limit for the month, in cents; 0 is how "no limit" is told."""
    threshold = body["threshold_amount"].as_number()
    _check_currency(body)
    if threshold > 0:
        yield spent("month", None, threshold, next_month(now), now, per_usd=_CENTS)


def read_anthropic_costs(body: Node, now: datetime) -> Iterator[Said]:
    """What the organisation has spent this month, in UTC; told in cents with a fraction. Priority Tier is not in it."""
    total = Decimal(0)
    for result in _results(body):
        _check_currency(result)
        total += result["amount"].as_number()
    yield spent("month", total, None, next_month(now), now, per_usd=_CENTS)


def read_anthropic_spend_limits(body: Node, now: datetime) -> Iterator[Said]:
    """The smallest limit of each period that caps the whole organisation, in cents."""
    _check_complete(body)
    smallest: dict[str, Decimal] = {}
    for row in body["data"].elements():
        amount, period = row.number("amount"), _PERIODS.get(row.text("period"))
        is_of_account = row["scope"].text("type") in _OF_THE_ACCOUNT and row.flag("is_enabled") is not False
        if amount is not None and period is not None and is_of_account:
            _check_currency(row)
            smallest[period] = min(amount, smallest.get(period, amount))
    for period, amount in smallest.items():
        yield spent(period, None, amount, _period_end(period, now), now, per_usd=_CENTS)


def read_anthropic_member_spend(body: Node, now: datetime) -> Iterator[Said]:
    """
    What one member may spend and has spent, in cents.

    A spend of 0 is also what is told while the spend is not available: it is not said.
    """
    _check_complete(body)
    rows = body["data"].elements()
    if len({repr(row["actor"].value) for row in rows}) > 1:
        raise UnreadablePoll("The answer tells of several members: name one with `user_id`.")
    for row in rows:
        period = _PERIODS.get(row.text("period"))
        if period is not None:
            _check_currency(row)
            used = row.number("period_to_date_spend") or None
            yield spent(period, used, row.number("amount"), _period_end(period, now), now, per_usd=_CENTS)


def _results(body: Node) -> Iterator[Node]:
    _check_complete(body)
    for bucket in body["data"].elements():
        yield from bucket.each("results")


def _check_complete(body: Node) -> None:
    if body.flag("has_more"):
        raise UnreadablePoll("The answer has further pages, so its sum is not known.")


def _check_currency(node: Node) -> None:
    if node.text("currency").upper() != "USD":
        raise UnreadablePoll("An amount is not in USD.")


def _period_end(period: str, now: datetime) -> datetime | None:
    """When a limit begins anew, in UTC; `None` for a week: on which day is not documented."""
    return {"day": next_day(now), "month": next_month(now)}.get(period)
