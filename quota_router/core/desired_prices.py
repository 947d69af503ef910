"""
The prices a file states, exactly.

Law: what is written is what is charged: more digits than a pico-USD per token has are refused, not rounded.
Never: fills in a price that is not stated; what is missing is the price book's or unknown.
"""

from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Any

from quota_router.core.naming import fail
from quota_router.core.pricing import PriceTable, Rates, pusd_per_token
from quota_router.errors import KeyPath

PRICES = {
    "cost_per_million_input": "input_pusd",
    "cost_per_million_output": "output_pusd",
    "cost_per_million_cache_read": "cache_read_pusd",
    "cost_per_million_cache_write_5m": "cache_write_5m_pusd",
    "cost_per_million_cache_write_1h": "cache_write_1h_pusd",
    "cost_per_million_reasoning": "reasoning_pusd",
}
"""Which rate each key of the file states."""
_VERSION_DIGITS = 12
"""Hex digits of a price's version: enough to tell the prices of one file apart."""
_LARGEST_PRICE_PUSD = 10**15
"""A billion USD per million tokens: more is a slip, and would not fit the ledger's numbers."""


def build_price(table: Mapping[str, Any], path: KeyPath) -> PriceTable | None:
    """The price that a block or an attachment states; `None`: it states none."""
    rates = {rate: _pusd(table[key], (*path, key)) for key, rate in PRICES.items() if key in table}
    if not rates:
        return None
    for key in ("cost_per_million_input", "cost_per_million_output"):
        if PRICES[key] not in rates:
            fail(path, f"{key} is missing beside the other prices: add it, even if it is 0.")
    numbers = ",".join(f"{rate}={pusd}" for rate, pusd in rates.items())
    version = sha256(numbers.encode()).hexdigest()[:_VERSION_DIGITS]
    return PriceTable(tiers=((0, Rates(**rates)),), version=version)


def _pusd(per_million: Decimal | int | str, path: KeyPath) -> int:
    try:
        pusd = pusd_per_token(per_million)
    except ValueError as exc:
        fail(path, str(exc))
    if pusd > _LARGEST_PRICE_PUSD:
        fail(path, "a price is in USD per million tokens, and this one is over a billion: check its digits.")
    return pusd
