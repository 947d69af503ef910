"""
Costs that somebody else reports in US dollars.

Law: a cost is read from the digits that came, never by way of a float, and rounded upward; what cannot be one is `None`, never 0.
"""

import re

import msgspec

from quota_router.core.pricing import NUSD_PER_USD, charged_usd_nusd

_COST = re.compile(r"[0-9]{1,7}(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,2})?")
_MAX_COST_NUSD = 1_000_000 * NUSD_PER_USD


class _Cost(msgspec.Struct):
    cost: msgspec.Raw = msgspec.Raw()


_COSTS = msgspec.json.Decoder(_Cost)


def read_cost(usage: msgspec.Raw) -> int | None:
    """
    `usage.cost`, which OpenRouter reports in USD and charges.

    Returns:
        nano-USD, as `cost_of`.
    """
    if b'"cost"' not in bytes(usage):
        return None
    try:
        return cost_of(bytes(_COSTS.decode(usage).cost).decode())
    except (ValueError, RecursionError):
        return None


def cost_of(digits: str) -> int | None:
    """
    An amount in USD, as JSON writes a number.

    Returns:
        nano-USD, rounded up; `None` when it is not a plain number, above a million or too small to be one.
    """
    if not _COST.fullmatch(digits):
        return None
    try:
        cost_nusd = charged_usd_nusd(digits)
    except ValueError:
        return None
    return cost_nusd if cost_nusd <= _MAX_COST_NUSD else None
