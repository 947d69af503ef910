"""Our price tables against the list they are made from."""

import subprocess
import sys
import threading
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import ceil

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from quota_router.core.catalog import Attachment, Family, Model, Provider
from quota_router.core.pricing import PriceTable, Rates, cost_nusd
from quota_router.core.usage import Usage
from quota_router.store.prices import PriceBook

TODAY = date(2026, 11, 20)
NOON = datetime.combine(TODAY, time(12), tzinfo=UTC)
BOOK = PriceBook()
OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com"
OPENROUTER = "https://openrouter.ai/api/v1"

WELL_KNOWN = (
    (ANTHROPIC, "claude-sonnet-4-5"),
    (ANTHROPIC, "claude-sonnet-4-5-20250929"),
    (ANTHROPIC, "claude-sonnet-4-0"),
    (ANTHROPIC, "claude-opus-4-1"),
    (ANTHROPIC, "claude-haiku-4-5"),
    (ANTHROPIC, "claude-3-5-haiku-latest"),
    (OPENAI, "gpt-4o"),
    (OPENAI, "gpt-4o-mini"),
    (OPENAI, "gpt-4.1"),
    (OPENAI, "gpt-5"),
    (OPENAI, "gpt-5.4"),
    (OPENAI, "o3"),
    (OPENAI, "text-embedding-3-small"),
    ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-pro"),
    ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-2.5-flash"),
    ("https://api.x.ai/v1", "grok-4"),
    ("https://api.mistral.ai/v1", "mistral-large-latest"),
    ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile"),
    (OPENROUTER, "anthropic/claude-sonnet-4.5"),
    (OPENROUTER, "openai/gpt-4o"),
    ("https://api.perplexity.ai", "sonar"),
)

USAGES = (
    Usage(input=1),
    Usage(input=1_234, output=567),
    Usage(input=10, cache_read=50_000, cache_write_5m=2_000, cache_write_1h=300, output=4_321),
    Usage(input=200_000, output=1),
    Usage(input=1, cache_read=200_000, output=999),
    Usage(input=1_000, cache_read=400_000, cache_write_5m=70_000, cache_write_1h=9_000, output=64_000),
)
"""The fourth is the last of the first tier where the next begins above 200,000; the fifth the first of the second."""


def list_price_usd(model_price, usage):
    """What genai-prices itself computes, with the counts as it wants them: totals that include their parts."""
    return model_price.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write_5m + usage.cache_write_1h,
            cache_write_1h_tokens=usage.cache_write_1h,
            output_tokens=usage.output,
        )
    )["total_price"]


def list_entry(base_url, model, at=NOON):
    return genai_prices.calc_price(genai_prices.Usage(), model, provider_api_url=base_url, genai_request_timestamp=at).model_price


@pytest.mark.parametrize(("base_url", "model"), WELL_KNOWN)
def test_a_well_known_model_costs_what_the_list_says_to_the_nano_dollar(base_url, model):
    price = BOOK.listed("", base_url, model, TODAY)

    assert (price.source, price.version) == ("genai-prices", genai_prices.__version__)
    for usage in USAGES:
        listed_usd = list_price_usd(list_entry(base_url, model), usage)
        assert cost_nusd(usage, price) == ceil(listed_usd * 10**9)


def test_a_tier_begins_one_token_above_the_lists_threshold():
    price = BOOK.listed("anthropic", ANTHROPIC, "claude-sonnet-4-5", TODAY)

    assert [start for start, _ in price.tiers] == [0, 200_001]
    assert (price.tiers[0][1].input_pusd, price.tiers[1][1].input_pusd) == (3_000_000, 6_000_000)


def test_no_model_of_the_whole_list_is_priced_below_it():
    """What we cannot express is unknown; what we do express is never below the list, and above it by fractions only."""
    unknown = known = 0
    for provider in get_snapshot().providers:
        for model in provider.models:
            found = provider.find_model(model.id)
            price = BOOK.listed(provider.id, "", model.id, TODAY)
            if price is None:
                unknown += 1
                continue
            known += 1
            for usage in USAGES[1::2]:
                listed_usd = max(list_price_usd(found.get_prices(NOON.replace(hour=hour)), usage) for hour in (2, 12))
                excess_nusd = cost_nusd(usage, price) - listed_usd * 10**9
                assert 0 <= excess_nusd < 1 + Decimal(usage.total_tokens) / 1_000, model.id
    assert known > 6 * unknown


def test_a_price_that_depends_on_the_hour_is_taken_at_its_dearest():
    usage = Usage(input=1_000, cache_read=1_000, output=1_000)
    at_night, by_day = (
        list_price_usd(list_entry("https://api.deepseek.com", "deepseek-chat", NOON.replace(hour=hour)), usage) for hour in (20, 12)
    )
    price = BOOK.listed("deepseek", "https://api.deepseek.com", "deepseek-chat", TODAY)

    assert at_night < by_day
    assert cost_nusd(usage, price) == ceil(by_day * 10**9)


def test_the_day_decides_which_price_is_in_force():
    """The price of o3 fell to a fifth."""
    before, on_the_day = (BOOK.listed("openai", OPENAI, "o3", day) for day in (date(2025, 6, 9), date(2025, 6, 10)))

    assert before.tiers[0][1].input_pusd == 5 * on_the_day.tiers[0][1].input_pusd


def test_the_fee_of_a_call_is_part_of_the_price():
    price = BOOK.listed("perplexity", "https://api.perplexity.ai", "sonar", TODAY)

    assert price.per_call_nusd == 12_000_000
    assert cost_nusd(Usage(), price) == 12_000_000


@pytest.mark.parametrize(
    ("vendor", "base_url", "model"),
    [
        ("ollama", "http://127.0.0.1:11434/v1", "llama3"),
        ("openai", "https://api.openai.com/v1", "gpt-99"),
        ("openai", "https://api.groq.com/openai/v1", "gpt-4o"),
        ("openai", "https://api.openai.com/v1", "gpt-audio"),
        ("openai", "https://api.openai.com/v1", "whisper-1"),
        ("openrouter", OPENROUTER, "deepseek/deepseek-r1:free"),
        ("", "", ""),
    ],
)
def test_what_the_list_does_not_price_by_tokens_is_unknown(vendor, base_url, model):
    """Also the model of one vendor asked of another, and what is listed without any price."""
    assert BOOK.listed(vendor, base_url, model, TODAY) is None


def test_behind_a_gateway_the_vendor_says_whose_list_it_is():
    through_gateway = BOOK.listed("anthropic", "https://llm.example.com", "claude-sonnet-4-5", TODAY)

    assert through_gateway == BOOK.listed("", ANTHROPIC, "claude-sonnet-4-5", TODAY)


def test_the_attachments_price_goes_before_the_models_and_that_before_the_list():
    provider = Provider(name="p", family=Family.OPENAI, vendor="openai", account="p", base_url=OPENAI, credential_ref="none")
    of_attachment, of_model = (PriceTable(tiers=((0, Rates(input_pusd=n, output_pusd=n)),)) for n in (1, 2))

    def price_of(attachment_price, model_price):
        attachment = Attachment(
            model="m", provider="p", priority=0, position=0, upstream_model="gpt-4o-mini", price=attachment_price
        )
        model = Model(name="m", family=Family.OPENAI, attachments=(attachment,), price=model_price)
        return BOOK.price_of(attachment, model, provider, NOON)

    assert price_of(of_attachment, of_model) is of_attachment
    assert price_of(None, of_model) is of_model
    assert price_of(None, None).source == "genai-prices"


def test_the_list_is_imported_when_the_first_price_is_asked_and_never_updated():
    code = "import sys, quota_router.store.prices; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 -- our own interpreter

    BOOK.listed("openai", OPENAI, "gpt-4o", TODAY)
    assert not [thread for thread in threading.enumerate() if "prices" in thread.name.lower()]
    assert not get_snapshot().from_auto_update
