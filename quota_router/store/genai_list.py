"""
The list of genai-prices: as its wheel carries it, or as a file of it says.

Law: an unknown price is `None`, never 0; what is converted is never below the list, and exact where the list is.
Never: asks the network. The package's updater thread is never started.

Decision 2026-11 -- what the list says beyond token buckets:
    * Fees of hosted tools (searches) are left out: a call that may cause them has no bound and is told apart before.
    * A price that depends on the time of day is taken at its dearest, so that a call across the boundary is not booked too low.
    * Audio, image and video **input** is taken at the text price, as usage does not tell it apart: booked too low for such calls
      where the vendor asks more (the small Gemini models). Where **output** has such a price, or anything else is charged
      (hours, pages, characters, citations), the price is unknown: the operator states it.
    * A model priced by its input alone (embeddings) charges nothing for output. One without any price is unknown, not free.
    Look again when usage has buckets for audio and images.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any

from quota_router.core.model_lists import Known
from quota_router.core.pricing import PriceTable, Rates

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, TieredPrices

GENAI_PRICES = "genai-prices"

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
_LARGEST_USD = 10**9
"""Per million tokens, or thousand calls: more would not fit the ledger's numbers."""
_PUSD_PER_TOKEN = 10**6
"""of one USD per million tokens"""
_NUSD_PER_CALL = 10**6
"""of one USD per thousand calls"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GenaiList:
    """One edition of the list."""

    snapshot: "DataSnapshot"
    version: str
    source: str = GENAI_PRICES

    def find(self, vendor: str, base_url: str, upstream_model: str, on: date) -> PriceTable | None:
        """The price in force on that day (UTC); `None`: the model is not there, or not priced by tokens."""
        try:
            moments = _prices_on(on, self._find(vendor, base_url, upstream_model))
        except (LookupError, ValueError, re.error):
            return None
        return self._priced(moments)

    def known(self, on: date) -> list[Known]:
        """Everything that it tells, at the prices of that day (UTC)."""
        return list(self._known(on))

    def _known(self, on: date) -> Iterator[Known]:
        for provider in self.snapshot.providers:
            for model in provider.models:
                price = self._priced(_prices_on(on, model))
                context = model.context_window
                yield Known(
                    provider=provider.id,
                    model=model.id,
                    price=price,
                    context_tokens=context,
                    source=self.source,
                    version=self.version,
                )

    def _find(self, vendor: str, base_url: str, upstream_model: str) -> "ModelInfo":
        try:  # Who is paid is at the other end of the URL; the vendor's name helps where a gateway stands between.
            provider = self.snapshot.find_provider(None, None, base_url)
        except LookupError:
            provider = self.snapshot.find_provider(None, vendor, None)
        return self.snapshot.find_provider_model(upstream_model, provider, None, None)[1]

    def _priced(self, moments: "list[Mapping[str, Decimal | TieredPrices]]") -> PriceTable | None:
        return _convert(moments, self.version) if all(_is_understood(prices) for prices in moments) else None


@lru_cache(maxsize=1)
def bundled() -> GenaiList:
    """The list that came with the package."""
    # Imported when the first price is asked: it takes a tenth of a second, which commands that price nothing do not pay.
    from genai_prices import __version__  # noqa: PLC0415 -- see above
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 -- likewise

    return GenaiList(snapshot=get_snapshot(), version=__version__)


def read_genai(document: Sequence[Any], version: str) -> GenaiList:
    """
    Read the list's own file (`data.json`).

    Raises:
        ValueError: it is no such list; the message is a sentence.
    """
    from genai_prices.data_snapshot import DataSnapshot  # noqa: PLC0415 -- see `bundled`

    # The package reads it by this function in its updater, which fetches too. Look again when it has a public one.
    from genai_prices.types import _providers_from_raw  # noqa: PLC0415 -- likewise

    try:
        providers = _providers_from_raw(list(document))
        for provider in providers:  # they are matched with URLs when a call is priced, where none may break
            re.compile(provider.api_pattern)
    except (ValueError, TypeError, LookupError, AttributeError, re.error) as exc:
        raise ValueError("This is no list of genai-prices, or one of a later format.") from exc
    return GenaiList(snapshot=DataSnapshot(providers=providers, from_auto_update=False), version=version)


def _prices_on(on: date, model: "ModelInfo") -> "list[Mapping[str, Decimal | TieredPrices]]":
    """Every set of prices that is in force at some time of that day (UTC)."""
    from genai_prices.types import TimeOfDateConstraint  # noqa: PLC0415 -- see `bundled`

    times = {time(0)}
    for conditional in model.prices if isinstance(model.prices, list) else ():
        if isinstance(conditional.constraint, TimeOfDateConstraint):
            times |= {conditional.constraint.start_time, conditional.constraint.end_time}
    instants = [datetime.combine(on, at, tzinfo=at.tzinfo or UTC) for at in times]
    found = [vars(model.get_prices(instant)) for instant in instants]
    return [{key: price for key, price in prices.items() if price is not None} for prices in found]


def _is_understood(prices: "Mapping[str, Decimal | TieredPrices]") -> bool:
    return "input_mtok" in prices and prices.keys() <= _UNDERSTOOD and all(map(_is_charge, prices.values()))


def _is_charge(price: "Decimal | TieredPrices") -> bool:
    """Whether it is an amount that somebody may ask; a fetched list may hold anything."""
    amounts = [price] if isinstance(price, Decimal) else [price.base, *(tier.price for tier in price.tiers)]
    return all(amount.is_finite() and 0 <= amount < _LARGEST_USD for amount in amounts)


def _convert(moments: "list[Mapping[str, Decimal | TieredPrices]]", version: str) -> PriceTable:
    """Our table, each rate at the dearest of *moments*. A fraction of a pico-USD is rounded upward: the list has a few."""
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
        source=GENAI_PRICES,
        version=version,
    )


def _usd(prices: "Mapping[str, Decimal | TieredPrices]", keys: tuple[str, ...], input_tokens: int) -> Decimal:
    """What the list says for the first of *keys* that it has, at that size of input; 0 when it has none of them."""
    price = next((prices[key] for key in keys if key in prices), Decimal(0))
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.start), price.base)
