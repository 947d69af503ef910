"""
The official SDKs through a real daemon process, to a real upstream.

Law: the caller gets the vendor's answer as it was sent, and what is booked equals the price list to the nano-dollar.
"""

import asyncio
import inspect
import itertools
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio
from daemon_kit import AUTH, TOKEN, open_process, provider_toml

from quota_router.simulator import Refusal, Reply, Simulator

SLASHED = "deepseek/deepseek-chat"
PRICES = {
    "gpt": {"input": "1.25", "output": "10", "cache_read": "0.125", "cache_write_5m": "1.5625"},
    "claude": {"input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6"},
    SLASHED: {"input": "0.000333", "output": "0.001001", "cache_read": "0.000017", "reasoning": "0.002003"},
}
"""USD per million tokens. The last one makes fractions of a nano-dollar."""
FALLS_TO = {"cache_read": "input", "cache_write_5m": "input", "cache_write_1h": "input", "reasoning": "output"}


def model_toml(name: str, provider: str, upstream_model: str) -> str:
    prices = "".join(f'cost_per_million_{bucket} = "{price}"\n' for bucket, price in PRICES[name].items())
    attachment = f'attachments = [{{ provider = "{provider}", upstream_model = "{upstream_model}" }}]'
    return f'[[models]]\nname = "{name}"\n{attachment}\ncontext_tokens = 200_000\n{prices}\n'


def listed_nusd(model: str, tokens: dict[str, int]) -> int:
    """What the price list asks, worked out in exact fractions, a part of a nano-dollar as a whole one."""
    prices = PRICES[model]
    counts = tokens.items()
    per_million = sum((count * Fraction(prices.get(bucket) or prices[FALLS_TO[bucket]]) for bucket, count in counts), Fraction(0))
    nusd = per_million / 10**6 * 10**9
    return -(-nusd.numerator // nusd.denominator)


@dataclass(slots=True, kw_only=True)
class House:
    """The daemon's process, the upstream behind it, and the four clients."""

    url: str
    sim: Simulator
    http: aiohttp.ClientSession
    openai: tuple[openai.AsyncOpenAI, openai.OpenAI]
    anthropic: tuple[anthropic.AsyncAnthropic, anthropic.Anthropic]

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.url}/api/v1/{path}", headers=AUTH) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def booked(self, headers: Any) -> dict[str, Any]:
        """The one entry of the call that these headers answer."""
        (entry,) = (await self.get(f"entries?call_id={headers['x-quota-router-call']}"))["items"]
        return entry

    async def used(self, label: str) -> dict[str, Any]:
        groups = (await self.get("usage?group_by=label"))["groups"]
        (group,) = (group for group in groups if group["label"] == label)
        return group


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory, module_database):
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator())
        catalog = (
            provider_toml("one", sim.openai_base_url)
            + provider_toml("two", sim.anthropic_base_url, vendor="anthropic")
            + model_toml("gpt", "one", "gpt-5.2-2026-01-01")
            + model_toml("claude", "two", "claude-sonnet-4-5-20250929")
            + model_toml(SLASHED, "one", "deepseek-chat")
        )
        folder = tmp_path_factory.mktemp("sdks")
        daemon = await stack.enter_async_context(open_process(folder, catalog, KEY_ONE="sk-one", KEY_TWO="sk-two"))
        same = {"api_key": TOKEN, "max_retries": 0}
        yield House(
            url=daemon.url,
            sim=sim,
            http=await stack.enter_async_context(aiohttp.ClientSession()),
            openai=(
                await stack.enter_async_context(openai.AsyncOpenAI(base_url=f"{daemon.url}/v1", **same)),
                stack.enter_context(openai.OpenAI(base_url=f"{daemon.url}/v1", **same)),
            ),
            anthropic=(
                await stack.enter_async_context(anthropic.AsyncAnthropic(base_url=daemon.url, **same)),
                stack.enter_context(anthropic.Anthropic(base_url=daemon.url, **same)),
            ),
        )


pytestmark = pytest.mark.asyncio(loop_scope="module")
labels = (f"case-{number}" for number in itertools.count())


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """How one endpoint is asked through its SDK, and where its text stands."""

    vendor: str
    model: str
    ask: Callable[..., Any]
    text: Callable[[Any], str]
    delta: Callable[[Any], str | None]


SAID = [{"role": "user", "content": "hi"}]
CHAT = Operation(
    vendor="openai",
    model="gpt",
    ask=lambda sdk, **more: sdk.chat.completions.with_raw_response.create(messages=SAID, **more),
    text=lambda answer: answer.choices[0].message.content,
    delta=lambda event: event.choices[0].delta.content if event.choices else None,
)
OPERATIONS = {
    "chat": CHAT,
    "chat of a name with a slash": Operation(vendor="openai", model=SLASHED, ask=CHAT.ask, text=CHAT.text, delta=CHAT.delta),
    "completions": Operation(
        vendor="openai",
        model="gpt",
        ask=lambda sdk, **more: sdk.completions.with_raw_response.create(prompt="hi", **more),
        text=lambda answer: answer.choices[0].text,
        delta=lambda event: event.choices[0].text,
    ),
    "responses": Operation(
        vendor="openai",
        model="gpt",
        ask=lambda sdk, **more: sdk.responses.with_raw_response.create(input="hi", **more),
        text=lambda answer: answer.output_text,
        delta=lambda event: event.delta if event.type == "response.output_text.delta" else None,
    ),
    "messages": Operation(
        vendor="anthropic",
        model="claude",
        ask=lambda sdk, **more: sdk.messages.with_raw_response.create(messages=SAID, max_tokens=900, **more),
        text=lambda answer: answer.content[0].text,
        delta=lambda event: event.delta.text if event.type == "content_block_delta" else None,
    ),
}
TOLD = {
    "openai": Reply(
        text="Ça va, 東京?", input_tokens=1_001, cached_tokens=300, cache_write_5m=50, output_tokens=77, reasoning_tokens=20
    ),
    "anthropic": Reply(
        text="Ça va, 東京?", input_tokens=651, cached_tokens=300, cache_write_5m=50, cache_write_1h=7, output_tokens=77
    ),
}
"""OpenAI's input count includes the cache, Anthropic's does not; reasoning is inside the output of both."""
TOKENS = {
    "openai": {"input": 651, "cache_read": 300, "cache_write_5m": 50, "output": 77},
    "anthropic": {"input": 651, "cache_read": 300, "cache_write_5m": 50, "cache_write_1h": 7, "output": 77},
}


async def whole(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def check_books(house: House, headers: Any, label: str, model: str, tokens: dict[str, int]) -> dict[str, Any]:
    """Entries and `usage` say what the price list says; returns the entry."""
    entry, used = await house.booked(headers), await house.used(label)
    assert {name: count for name, count in entry["usage"].items() if count} == {f"{name}_tokens": n for name, n in tokens.items()}
    assert (entry["kind"], entry["quality"], entry["price_source"]) == ("post", "reported", "file")
    assert entry["cost_nusd"] == used["cost_nusd"] == listed_nusd(model, tokens)
    assert (used["calls"], used["attempts"], used["failures"], used["unpriced"]) == (1, 1, 0, 0)
    return entry


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_whole_answer_costs_the_list_price_in_header_entries_and_usage(house, name, is_sync):
    operation, label = OPERATIONS[name], next(labels)
    house.sim.script(None, TOLD[operation.vendor])
    sdk = getattr(house, operation.vendor)[is_sync]
    asked = {"model": operation.model, "extra_headers": {"x-quota-router-labels": label}}
    raw = await (asyncio.to_thread(operation.ask, sdk, **asked) if is_sync else operation.ask(sdk, **asked))
    answer = await whole(raw.parse())

    assert operation.text(answer) == "Ça va, 東京?"
    entry = await check_books(house, raw.headers, label, operation.model, TOKENS[operation.vendor])
    assert Decimal(raw.headers["x-quota-router-cost-usd"]) * 10**9 == entry["cost_nusd"]
    assert raw.headers["x-request-id"] == raw.headers["request-id"] == entry["call_id"]
    assert raw.headers["x-quota-router-provider"] == {"openai": "one", "anthropic": "two"}[operation.vendor]
    assert (raw.headers["x-quota-router-model"], raw.headers["x-quota-router-attempts"]) == (operation.model, "1")


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_stream_is_booked_at_the_list_price_before_it_ends(house, name, is_sync):
    """
    Whoever has the last byte finds the entry, without waiting.
    """
    operation, label = OPERATIONS[name], next(labels)
    house.sim.script(None, TOLD[operation.vendor])
    sdk = getattr(house, operation.vendor)[is_sync]
    asked = {"model": operation.model, "stream": True, "extra_headers": {"x-quota-router-labels": label}}
    if is_sync:
        raw = await asyncio.to_thread(operation.ask, sdk, **asked)
        events = await asyncio.to_thread(list, raw.parse())
    else:
        raw = await operation.ask(sdk, **asked)
        events = [event async for event in await whole(raw.parse())]
    entry = await house.booked(raw.headers)

    assert "".join(operation.delta(event) or "" for event in events) == "Ça va, 東京?"
    assert entry == await check_books(house, raw.headers, label, operation.model, TOKENS[operation.vendor])
    assert "x-quota-router-cost-usd" not in raw.headers


async def test_reasoning_that_is_counted_beside_the_output_is_charged_at_its_own_price(house):
    """
    And the sum is rounded once, upward: 100 * 0.333 + 10 * 1.001 + 5 * 2.003 is 53.325 nano-dollars.
    """
    counts = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "total_tokens": 115,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    house.sim.script(None, Reply(usage=counts))
    label = next(labels)
    raw = await CHAT.ask(house.openai[0], model=SLASHED, extra_headers={"x-quota-router-labels": label})
    tokens = {"input": 100, "output": 10, "reasoning": 5}
    assert (await check_books(house, raw.headers, label, SLASHED, tokens))["cost_nusd"] == 54
    assert raw.headers["x-quota-router-cost-usd"] == "0.000000054"


@pytest.mark.parametrize("is_asked", [True, False])
@pytest.mark.parametrize("name", ["chat", "completions"])
async def test_the_usage_chunk_reaches_only_who_asked_for_it_and_is_booked_for_all(house, name, is_asked):
    operation, label = OPERATIONS[name], next(labels)
    house.sim.script(None, TOLD["openai"])
    options = {"stream_options": {"include_usage": True}} if is_asked else {}
    asked = {"model": "gpt", "stream": True, "extra_headers": {"x-quota-router-labels": label}, **options}
    raw = await operation.ask(house.openai[0], **asked)
    usages = [event.usage.prompt_tokens async for event in raw.parse() if event.usage is not None]

    assert usages == ([1_001] if is_asked else [])
    assert house.sim.requests[-1].json()["stream_options"] == {"include_usage": True}
    await check_books(house, raw.headers, label, "gpt", TOKENS["openai"])


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_embeddings_charge_their_input(house, is_sync):
    label = next(labels)
    house.sim.script(None, Reply(input_tokens=9_999))
    asked = {"model": "gpt", "input": ["a", "b"], "extra_headers": {"x-quota-router-labels": label}}
    ask = house.openai[is_sync].embeddings.with_raw_response.create
    raw = await (asyncio.to_thread(ask, **asked) if is_sync else ask(**asked))
    assert [item.embedding for item in raw.parse().data] == [[0.25, -0.5, 0.75]] * 2
    entry = await check_books(house, raw.headers, label, "gpt", {"input": 9_999})
    assert Decimal(raw.headers["x-quota-router-cost-usd"]) * 10**9 == entry["cost_nusd"]


@pytest.mark.parametrize("is_sync", [False, True], ids=["async", "sync"])
async def test_counting_tokens_is_recorded_and_free(house, is_sync):
    label = next(labels)
    house.sim.script(None, Reply(input_tokens=4_321))
    asked = {"model": "claude", "messages": SAID, "extra_headers": {"x-quota-router-labels": label}}
    ask = house.anthropic[is_sync].messages.with_raw_response.count_tokens
    raw = await (asyncio.to_thread(ask, **asked) if is_sync else ask(**asked))
    assert (await whole(raw.parse())).input_tokens == 4_321
    await check_books(house, raw.headers, label, "claude", {})
    assert raw.headers["x-quota-router-cost-usd"] == "0"


async def test_streaming_responses_of_both_sdks_show_the_headers_before_the_body(house):
    asked = {"model": "gpt", "messages": SAID, "stream": True}
    async with house.openai[0].chat.completions.with_streaming_response.create(**asked) as raw:
        assert raw.headers["x-quota-router-provider"] == "one"
        lines = [line async for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    asked = {"model": "claude", "messages": SAID, "max_tokens": 9}
    async with house.anthropic[0].messages.with_streaming_response.create(**asked) as raw:
        assert raw.headers["x-quota-router-provider"] == "two"
        assert json.loads(await raw.read())["content"][0]["text"].startswith("The quick")
    async with house.anthropic[0].messages.stream(**asked) as stream:
        assert stream.response.headers["x-quota-router-provider"] == "two"
        assert (await stream.get_final_message()).usage.output_tokens == 9


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
async def test_models_are_listed_and_retrieved_in_each_sdks_shape(house, vendor):
    """
    Without asking any upstream.
    """
    asynchronous, synchronous = getattr(house, vendor)
    seen = len(house.sim.requests)
    listed = [model.id async for model in asynchronous.models.list()]
    assert set(listed) == PRICES.keys()
    assert [model.id for model in await asyncio.to_thread(lambda: list(synchronous.models.list()))] == listed
    for name in listed:
        assert (await asynchronous.models.retrieve(name)).id == name
        assert (await asyncio.to_thread(synchronous.models.retrieve, name)).id == name
    with pytest.raises({"openai": openai.NotFoundError, "anthropic": anthropic.NotFoundError}[vendor]):
        await asynchronous.models.retrieve("deepseek/nobody")
    assert len(house.sim.requests) == seen


@pytest.mark.parametrize("name", ["chat", "responses", "messages"])
async def test_each_refusal_is_the_error_class_its_sdk_has_for_it(house, name):
    operation = OPERATIONS[name]
    library = {"openai": openai, "anthropic": anthropic}[operation.vendor]
    sdk = getattr(house, operation.vendor)[0]
    with pytest.raises(library.NotFoundError, match="nobody"):
        await operation.ask(sdk, model="nobody")
    stranger = sdk.copy(api_key="wrong")
    with pytest.raises(library.AuthenticationError):
        await operation.ask(stranger, model=operation.model)
    house.sim.script(None, Refusal(status=422, message="No."))
    with pytest.raises(library.UnprocessableEntityError, match="No"):
        await operation.ask(sdk, model=operation.model)
    with pytest.raises(library.RateLimitError) as refused:
        await operation.ask(sdk, model=operation.model, extra_headers={"x-quota-router-max-cost-usd": "0"})
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert refused.value.response.headers["x-quota-router-skipped"].endswith("=over_budget")
