"""What an answer costs, to the nano-dollar."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.ids import RANDOM_BYTES, uuid7
from quota_router.core.pricing import (
    PriceTable,
    Rates,
    charged_usd_nusd,
    cost_nusd,
    format_usd,
    parse_usd_nusd,
    pusd_per_token,
    upper_bound_nusd,
)
from quota_router.core.usage import BUCKETS, Usage

SONNET = PriceTable(
    tiers=(
        (
            0,
            Rates(
                input_pusd=3_000_000,
                output_pusd=15_000_000,
                cache_read_pusd=300_000,
                cache_write_5m_pusd=3_750_000,
                cache_write_1h_pusd=6_000_000,
            ),
        ),
        (200_001, Rates(input_pusd=6_000_000, output_pusd=22_500_000)),
    )
)

tokens = st.integers(0, 1_000_000)
pusd = st.integers(0, 200_000_000)
rates = st.builds(
    Rates,
    input_pusd=pusd,
    output_pusd=pusd,
    cache_read_pusd=st.none() | pusd,
    cache_write_5m_pusd=st.none() | pusd,
    cache_write_1h_pusd=st.none() | pusd,
    reasoning_pusd=st.none() | pusd,
)
usages = st.builds(Usage, **dict.fromkeys(BUCKETS, tokens))


@st.composite
def prices(draw):
    starts = [0, *sorted(draw(st.sets(st.integers(1, 2_000_000), max_size=3)))]
    return PriceTable(tiers=tuple((start, draw(rates)) for start in starts), per_call_nusd=draw(st.integers(0, 50_000_000)))


def exact_nusd(usage, price):
    """The cost as a fraction, bucket by bucket, written as the price list reads."""
    of_tier = next(found for start, found in reversed(price.tiers) if usage.input_tokens >= start)
    fallback = dict.fromkeys(BUCKETS, of_tier.input_pusd) | {"reasoning": of_tier.output_pusd}
    own = {bucket: getattr(of_tier, f"{bucket}_pusd") for bucket in BUCKETS}
    per_token = {bucket: fallback[bucket] if own[bucket] is None else own[bucket] for bucket in BUCKETS}
    return price.per_call_nusd + sum(Fraction(getattr(usage, bucket) * per_token[bucket], 1000) for bucket in BUCKETS)


@given(usages, prices())
def test_a_cost_is_the_exact_one_rounded_up_once(usage, price):
    """Never below the exact cost, and less than one nano-dollar above it."""
    assert 0 <= cost_nusd(usage, price) - exact_nusd(usage, price) < 1


@given(usages, prices(), tokens, tokens)
def test_no_usage_within_its_bounds_costs_more_than_the_upper_bound(usage, price, more_input, more_output):
    bound_nusd = upper_bound_nusd(usage.input_tokens + more_input, usage.output_tokens + more_output, price)

    assert cost_nusd(usage, price) <= bound_nusd


@pytest.mark.parametrize(
    ("usage", "expected_nusd"),
    [
        (Usage(), 0),
        (Usage(input=1), 3_000),
        (Usage(input=10, cache_read=100, cache_write_5m=1_000, cache_write_1h=10_000, output=7), 63_915_000),
        (Usage(input=200_000), 600_000_000),
        (Usage(input=1, cache_read=200_000), 1_200_006_000),
        (Usage(input=200_001, output=1), 1_200_028_500),
        (Usage(output=2, reasoning=3), 75_000),
    ],
)
def test_the_size_of_the_whole_input_prices_every_token(usage, expected_nusd):
    """In the second tier nothing but input and output is priced: caches fall back to input, reasoning to output."""
    assert cost_nusd(usage, SONNET) == expected_nusd


def test_a_fraction_of_a_nano_dollar_is_rounded_up_at_the_end_only():
    """Three buckets of a third of a nano-dollar each are one nano-dollar, not three."""
    third = Rates(input_pusd=333, output_pusd=333, cache_read_pusd=334)

    assert cost_nusd(Usage(input=1, cache_read=1, output=1), PriceTable(tiers=((0, third),))) == 1
    assert cost_nusd(Usage(input=1), PriceTable(tiers=((0, third),), per_call_nusd=5)) == 6


@pytest.mark.parametrize(("upto", "expected"), [(0, 6_000_000), (200_000, 6_000_000), (200_001, 6_000_000)])
def test_the_dearest_input_is_over_buckets_and_reachable_tiers(upto, expected):
    assert SONNET.dearest_pusd(upto)[0] == expected


def test_a_tier_out_of_reach_does_not_raise_the_bound():
    steep = PriceTable(tiers=((0, Rates(input_pusd=1, output_pusd=2)), (100, Rates(input_pusd=50, output_pusd=9))))

    assert (steep.dearest_pusd(99)[0], steep.dearest_pusd(100)[0]) == (1, 50)
    assert upper_bound_nusd(99, 0, steep) == 1
    assert upper_bound_nusd(100, 0, steep) == 5


@given(st.integers(-(2**53), 2**53))
def test_an_amount_reads_back_as_it_was_written(nusd):
    text = format_usd(nusd)

    assert parse_usd_nusd(text) == nusd
    assert re.fullmatch(r"-?[0-9]+(\.[0-9]*[1-9])?", text)


@pytest.mark.parametrize(
    ("text", "nusd"),
    [("50", 50_000_000_000), ("0.00012345", 123_450), ("1.5e-5", 15_000), (3, 3_000_000_000), ("-0.5", -500_000_000)],
)
def test_an_amount_is_read_exactly(text, nusd):
    assert parse_usd_nusd(text) == nusd


@pytest.mark.parametrize("text", ["", "fifty", "NaN", "inf", "1e999999999", "9" * 6_000, "1e16", "0.0000000001", "1e-9999"])
def test_what_is_no_exact_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"is not an amount|at most nine decimals"):
        parse_usd_nusd(text)


def test_a_charge_of_somebody_else_is_rounded_up_and_never_negative():
    assert charged_usd_nusd("0.00492525") == 4_925_250
    assert charged_usd_nusd("0.0000000001") == 1
    assert charged_usd_nusd("0") == 0
    with pytest.raises(ValueError, match="not negative"):
        charged_usd_nusd("-0.01")


@pytest.mark.parametrize(
    ("per_million", "expected"),
    [("3.0", 3_000_000), (15, 15_000_000), (Decimal("0.0028"), 2_800), ("0.000001", 1), ("0", 0)],
)
def test_a_price_per_million_is_read_exactly(per_million, expected):
    assert pusd_per_token(per_million) == expected


@pytest.mark.parametrize("per_million", ["0.0000001", "-1", "three", "1e999999"])
def test_a_price_that_cannot_be_exact_is_refused(per_million):
    with pytest.raises(ValueError, match=r"at most six decimals|is not an amount"):
        pusd_per_token(per_million)


@given(st.integers(0, 2**48 - 1), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond(at_ms, random_bytes):
    text = uuid7(at_ms, random_bytes)
    parsed = UUID(text)

    assert (str(parsed), parsed.version, parsed.variant) == (text, 7, "specified in RFC 4122")
    assert parsed.int >> 80 == at_ms
    assert parsed.int & (2**62 - 1) == int.from_bytes(random_bytes, "big") & (2**62 - 1)


def test_an_id_equals_the_example_of_the_standard():
    """RFC 9562 appendix A.6, read 2026-11-20."""
    at_ms = int(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC).timestamp()) * 1000
    random_bytes = (0xCC3 << 62 | 0x18C4DC0C0C07398F).to_bytes(RANDOM_BYTES, "big")

    assert uuid7(at_ms, random_bytes) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
