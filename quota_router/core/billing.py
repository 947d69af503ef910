"""
What one answer is booked at: which of several prices speaks, and what a subscription would have paid.

Law: an override of ours, then the cost the upstream itself reports, then the price book, then unknown; unknown is `None`, never 0.
Never: rounds by itself; `core/pricing` rounds once, upward.
"""

from msgspec import Struct

from quota_router.core.catalog import Billing
from quota_router.core.pricing import OVERRIDE_SOURCE, PriceTable, cost_nusd
from quota_router.core.usage import Quality, Usage

BYTES_PER_TOKEN = 3
"""For output that was seen but not counted by the upstream: English runs at 4 bytes a token, minified JSON at 2 (measured on the
o200k vocabulary, 2026-11-20)."""


class Bill(Struct, frozen=True, kw_only=True):
    """What is posted. `cost_nusd` is `None` when no price is known; `shadow_cost_nusd` only for a flat provider."""

    cost_nusd: int | None
    shadow_cost_nusd: int | None = None
    source: str | None = None
    """the price table's, `upstream`, or `caller`; `None`: no price"""
    version: str | None = None


def bill(usage: Usage, *, billing: Billing, price: PriceTable | None, reported_nusd: int | None = None) -> Bill:
    """
    Price one answer.

    Args:
        usage: what it used.
        billing: a flat provider posts 0 and keeps the list price as shadow.
        price: of the attachment, or `None` when nobody knows one.
        reported_nusd: the cost the upstream itself named, in nano-USD; `None`: it named none.
    """
    if price is not None and (price.source == OVERRIDE_SOURCE or reported_nusd is None):
        told = Bill(cost_nusd=cost_nusd(usage, price), source=price.source, version=price.version)
    elif reported_nusd is not None:
        told = Bill(cost_nusd=reported_nusd, source="upstream")
    else:
        told = Bill(cost_nusd=None)
    if billing is Billing.FLAT:
        return Bill(cost_nusd=0, shadow_cost_nusd=told.cost_nusd, source=told.source, version=told.version)
    return told


def count_what_passed(reported: Usage | None, *, input_tokens: int, output_bytes: int) -> Usage:
    """
    Estimate the usage of an answer that broke off.

    Args:
        reported: what the upstream had said until then, or `None`.
        input_tokens: our estimate of the input, used when the upstream said nothing.
        output_bytes: how much output was seen.
    """
    seen_tokens = -(-output_bytes // BYTES_PER_TOKEN)
    if reported is None:
        return Usage(input=input_tokens, output=seen_tokens, quality=Quality.ESTIMATED)
    return Usage(
        input=reported.input,
        cache_read=reported.cache_read,
        cache_write_5m=reported.cache_write_5m,
        cache_write_1h=reported.cache_write_1h,
        output=max(reported.output, seen_tokens),
        reasoning=reported.reasoning,
        quality=Quality.ESTIMATED,
    )
