"""
What an answer costs.

Law: integers only; one rounding, upward, at the end of an attempt. An unknown price is `None`, never 0.
Never: looks a price up (that is the price book's), nor knows which limit will ask.
"""

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from quota_router.core.usage import Usage

NUSD_PER_USD = 10**9
PUSD_PER_NUSD = 1_000
OVERRIDE_SOURCE = "file"
"""Where the operator's own prices come from: they go before what an upstream reports."""
_PUSD_PER_MILLIONTH_USD = 10**6
"""One USD per million tokens is a million pico-USD per token."""

_LONGEST_NUMBER = 64
"""Characters of an amount: more is no amount of money, and would cost time to read."""
_LARGEST_EXPONENT = 15
"""Of ten, in an amount: less than 10^16 USD."""
_SMALLEST_EXPONENT = -40
"""Of ten, in an amount: below it nobody charges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """
    Pico-USD per token for each bucket. `None`: this vendor names no own price for the bucket.

    A missing cache or reasoning price falls back to the plain `input` or `output` price, which the vendor then charges.
    """

    input_pusd: int
    output_pusd: int
    cache_read_pusd: int | None = None
    cache_write_5m_pusd: int | None = None
    cache_write_1h_pusd: int | None = None
    reasoning_pusd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """
    Prices of one upstream model: rates by input size, plus a fee per call.

    `tiers`: (from how many input tokens on, rates), ascending, the first from 0; the tier of the whole input prices every token.
    """

    tiers: tuple[tuple[int, Rates], ...]
    per_call_nusd: int = 0
    source: str = OVERRIDE_SOURCE
    """`file`, `genai-prices` or `models.dev`"""
    version: str = ""
    _dearest: tuple[tuple[int, int, int], ...] = field(default=(), init=False, repr=False, compare=False)
    """(from how many input tokens on, dearest input price, dearest output price so far): asked twice for every call"""

    def __post_init__(self) -> None:
        dearest: list[tuple[int, int, int]] = []
        input_pusd = output_pusd = 0
        for start, rates in self.tiers:
            caches = (rates.cache_read_pusd, rates.cache_write_5m_pusd, rates.cache_write_1h_pusd)
            input_pusd = max(input_pusd, rates.input_pusd, *(pusd or 0 for pusd in caches))
            output_pusd = max(output_pusd, rates.output_pusd, rates.reasoning_pusd or 0)
            dearest.append((start, input_pusd, output_pusd))
        object.__setattr__(self, "_dearest", tuple(dearest))

    def dearest_pusd(self, upto_input_tokens: int) -> tuple[int, int]:
        """The dearest price of an input and of an output token, over all buckets and tiers that so many tokens can reach."""
        for start, input_pusd, output_pusd in reversed(self._dearest):
            if start <= upto_input_tokens:
                return input_pusd, output_pusd
        raise ValueError("A price table begins at 0 tokens.")


def cost_nusd(usage: Usage, price: PriceTable) -> int:
    """What *usage* costs. Not for differences: a tier has no meaning for half an answer."""
    rates = next(rates for start, rates in reversed(price.tiers) if start <= usage.input_tokens)
    cost_pusd = (
        usage.input * rates.input_pusd
        + usage.cache_read * _or(rates.cache_read_pusd, rates.input_pusd)
        + usage.cache_write_5m * _or(rates.cache_write_5m_pusd, rates.input_pusd)
        + usage.cache_write_1h * _or(rates.cache_write_1h_pusd, rates.input_pusd)
        + usage.output * rates.output_pusd
        + usage.reasoning * _or(rates.reasoning_pusd, rates.output_pusd)
    )
    return _ceil_nusd(cost_pusd) + price.per_call_nusd


def upper_bound_nusd(input_tokens: int, output_tokens: int, price: PriceTable) -> int:
    """
    What no answer within these token counts can exceed.

    Which bucket a token will fall into is not known before, nor the tier: each is taken at the dearest it can reach.
    """
    input_pusd, output_pusd = price.dearest_pusd(input_tokens)
    return _ceil_nusd(input_tokens * input_pusd + output_tokens * output_pusd) + price.per_call_nusd


def pusd_per_token(per_million: Decimal | int | str) -> int:
    """
    Pico-USD per token, from USD per million tokens.

    Raises:
        ValueError: negative, not a number, or finer than a pico-USD per token (more than six decimals).
    """
    pusd = _amount(per_million) * _PUSD_PER_MILLIONTH_USD
    if pusd < 0 or pusd.denominator != 1:
        raise ValueError(f"A price per million tokens has at most six decimals and is not negative, not {per_million}.")
    return pusd.numerator


def parse_usd_nusd(text: Decimal | int | str) -> int:
    """
    Nano-USD, from USD written as a decimal; an exponent is read, a sign too.

    Raises:
        ValueError: not a number, or finer than a nano-USD.
    """
    nusd = _amount(text) * NUSD_PER_USD
    if nusd.denominator != 1:
        raise ValueError(f"An amount in USD has at most nine decimals, not {text}.")
    return nusd.numerator


def charged_usd_nusd(text: Decimal | int | str) -> int:
    """
    Nano-USD, from what somebody else charged in USD: rounded upward, as all we book.

    Raises:
        ValueError: not a number, or negative.
    """
    usd = _amount(text)
    if usd < 0:
        raise ValueError(f"A charge is not negative, not {text}.")
    return -(-usd.numerator * NUSD_PER_USD // usd.denominator)


def format_usd(nusd: int) -> str:
    """USD as an exact decimal, without an exponent and without zeros at its end: `50`, `1.5`, `0.00012345`."""
    usd, rest = divmod(abs(nusd), NUSD_PER_USD)
    decimals = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if nusd < 0 else ''}{usd}{decimals}"


def _or(price_pusd: int | None, fallback_pusd: int) -> int:
    return fallback_pusd if price_pusd is None else price_pusd


def _ceil_nusd(cost_pusd: int) -> int:
    # The one rounding, upward: a fraction of a nano-dollar is booked as a whole one.
    return -(-cost_pusd // PUSD_PER_NUSD)


def _amount(text: Decimal | int | str) -> Fraction:
    try:
        number = Decimal(text) if len(str(text)) <= _LONGEST_NUMBER else None
    except InvalidOperation:
        number = None
    is_amount = number is not None and number.is_finite() and _SMALLEST_EXPONENT <= number.adjusted() <= _LARGEST_EXPONENT
    if number is None or not is_amount:
        raise ValueError(f"{str(text)[:_LONGEST_NUMBER]!r} is not an amount: write a decimal number such as '0.25'.")
    return Fraction(number)
