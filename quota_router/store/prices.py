"""
The price book: which price applies to an attachment, and where it comes from.

Law: an unknown price is `None`, never 0; what is converted is never below the list, and exact where the list is.
Never: asks the network. genai-prices is read as its wheel carries it, and its updater thread is never started.

Decision 2026-11 -- what the list says beyond token buckets:
    * Fees of hosted tools (searches) are left out: a call that may cause them has no bound and is told apart before.
    * A price that depends on the time of day is taken at its dearest, so that a call across the boundary is not booked too low.
    * Audio, image and video **input** is taken at the text price, as usage does not tell it apart: booked too low for such calls
      where the vendor asks more (the small Gemini models). Where **output** has such a price, or anything else is charged
      (hours, pages, characters, citations), the price is unknown: the operator states it.
    * A model priced by its input alone (embeddings) charges nothing for output. One without any price is unknown, not free.
    Look again when usage has buckets for audio and images.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from quota_router.core.catalog import Attachment, Model, Provider
from quota_router.core.pricing import PriceTable, Rates

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, TieredPrices

PRICES_CACHED = 4_096
"""Look-ups remembered, one per attachment and day: more than any catalog has."""

_BUCKETS: dict[str, tuple[str, ...]] = {
    "input_pusd": ("input_mtok",),
    "output_pusd": ("output_mtok",),
    "cache_read_pusd": ("cache_read_mtok", "input_mtok"),
    "cache_write_5m_pusd": ("cache_write_5m_mtok", "cache_write_mtok", "input_mtok"),
    "cache_write_1h_pusd": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "reasoning_pusd": ("output_reasoning_mtok", "output_mtok"),
}
"""Which entry of the list prices each bucket: the first one there is."""
_PER_CALL = "requests_kcount"
_LEFT_OUT = frozenset(
    {
        "web_searches_kcount",
        "storage_searches_kcount",
        "input_audio_mtok",
        "input_image_mtok",
        "input_video_mtok",
        "cache_audio_read_mtok",
        "cache_image_read_mtok",
    }
)
_UNDERSTOOD = _LEFT_OUT | {_PER_CALL} | {key for keys in _BUCKETS.values() for key in keys}
_PUSD_PER_TOKEN = 10**6
"""of one USD per million tokens"""
_NUSD_PER_CALL = 10**6
"""of one USD per thousand calls"""


class PriceBook:
    """Finds the price of an attachment. What an upstream itself reports of a call goes before the list: the router sees to it."""

    def price_of(self, attachment: Attachment, model: Model, provider: Provider, now: datetime) -> PriceTable | None:
        """
        The price that applies: the attachment's own, the model's, or the list's.

        Args:
            attachment: whose upstream model is looked up.
            model: that it belongs to.
            provider: whose base URL, or else vendor, says whose list it is.
            now: aware UTC; its day says which of a model's prices is in force.

        Returns:
            `None`: unknown, which is not free.
        """
        if attachment.price is not None:
            return attachment.price
        if model.price is not None:
            return model.price
        return self.listed(provider.vendor, provider.base_url, attachment.upstream_model, now.date())

    def listed(self, vendor: str, base_url: str, upstream_model: str, on: date) -> PriceTable | None:
        """What genai-prices lists for that model on that day (UTC); `None`: it is not there, or not priced by tokens."""
        return _listed(vendor, base_url, upstream_model, on)


@lru_cache(maxsize=PRICES_CACHED)
def _listed(vendor: str, base_url: str, upstream_model: str, on: date) -> PriceTable | None:
    try:
        moments = _prices_on(on, _find(vendor, base_url, upstream_model))
    except (LookupError, ValueError):
        return None
    return _convert(moments) if all(_is_understood(prices) for prices in moments) else None


def _find(vendor: str, base_url: str, upstream_model: str) -> "ModelInfo":
    # Imported when the first price is asked: it takes a tenth of a second, which commands that price nothing do not pay.
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 -- see above

    snapshot = get_snapshot()
    try:  # Who is paid is at the other end of the URL; the vendor's name helps where a gateway stands between.
        provider = snapshot.find_provider(None, None, base_url)
    except LookupError:
        provider = snapshot.find_provider(None, vendor, None)
    return snapshot.find_provider_model(upstream_model, provider, None, None)[1]


def _prices_on(on: date, model: "ModelInfo") -> "list[Mapping[str, Decimal | TieredPrices]]":
    """Every set of prices that is in force at some time of that day (UTC)."""
    from genai_prices.types import TimeOfDateConstraint  # noqa: PLC0415 -- see `_find`

    times = {time(0)}
    for conditional in model.prices if isinstance(model.prices, list) else ():
        if isinstance(conditional.constraint, TimeOfDateConstraint):
            times |= {conditional.constraint.start_time, conditional.constraint.end_time}
    instants = [datetime.combine(on, at, tzinfo=at.tzinfo or UTC) for at in times]
    found = [vars(model.get_prices(instant)) for instant in instants]
    return [{key: price for key, price in prices.items() if price is not None} for prices in found]


def _is_understood(prices: "Mapping[str, Decimal | TieredPrices]") -> bool:
    return "input_mtok" in prices and prices.keys() <= _UNDERSTOOD


def _convert(moments: "list[Mapping[str, Decimal | TieredPrices]]") -> PriceTable:
    """Our table, each rate at the dearest of *moments*. A fraction of a pico-USD is rounded upward: the list has a few."""
    from genai_prices import __version__  # noqa: PLC0415 -- see `_find`

    listed = [price for prices in moments for price in prices.values()]
    # The list says "above that many tokens", we say "from that many on".
    starts = sorted({0} | {tier.start + 1 for price in listed if not isinstance(price, Decimal) for tier in price.tiers})

    def dearest(keys: tuple[str, ...], input_tokens: int) -> Decimal:
        return max(_usd(prices, keys, input_tokens) for prices in moments)

    return PriceTable(
        tiers=tuple(
            (start, Rates(**{name: ceil(dearest(keys, start) * _PUSD_PER_TOKEN) for name, keys in _BUCKETS.items()}))
            for start in starts
        ),
        per_call_nusd=max(ceil(dearest((_PER_CALL,), start) * _NUSD_PER_CALL) for start in starts),
        source="genai-prices",
        version=__version__,
    )


def _usd(prices: "Mapping[str, Decimal | TieredPrices]", keys: tuple[str, ...], input_tokens: int) -> Decimal:
    """What the list says for the first of *keys* that it has, at that size of input; 0 when it has none of them."""
    price = next((prices[key] for key in keys if key in prices), Decimal(0))
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.start), price.base)
