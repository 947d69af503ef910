"""
From a body to what is held for it: no answer can cost more, who sends no bound is told which field to send, and what is likely is
learned, kept, and grows with an answer that is longer.
"""

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from caller_kit import MAX_TOKENS, ask, asked, budget_toml, model_toml, open_http, post
from daemon_kit import get, open_here, provider_toml
from hypothesis import given, settings
from hypothesis import strategies as st
from laws_kit import check_laws, read_disk, us
from ledger_kit import PRICE, Clock, provider
from plane_kit import open_plane
from test_pricing import prices

from quota_router.attempts import BYTES_PER_TOKEN, Attempt
from quota_router.core.calls import Operation
from quota_router.core.catalog import Billing, Family, Model
from quota_router.core.estimates import ANSWERS_NEEDED, Estimate, estimate
from quota_router.core.limits import Amounts
from quota_router.core.pricing import cost_nusd
from quota_router.core.remedies import say_what_bounds
from quota_router.dialects import dialect_of
from quota_router.simulator import Account, Fault, FaultKind, Reply, Simulator, anthropic, openai
from quota_router.simulator.answers import Call
from quota_router.store.holding import Sweep

PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.RESPONSES: "/v1/responses",
    Operation.EMBEDDINGS: "/v1/embeddings",
    Operation.MESSAGES: "/v1/messages",
}
BARE = {family: Model(name="m", family=family, attachments=()) for family in Family}
SAID = [{"role": "user", "content": "hi"}]
TOOL_TOKENS = 804
"""The most that Anthropic publishes for what tools add to a prompt, and for one tool of its own (upstreams.md F)."""


def family_of(operation):
    return Family.ANTHROPIC if operation is Operation.MESSAGES else Family.OPENAI


def facts_of(operation, document):
    return dialect_of(family_of(operation)).read(operation, json.dumps(document).encode()).facts


# --- no answer costs more than its hold -----------------------------------------------------------------------------------

texts = st.text(max_size=60)
caps = st.integers(1, 3_000)
few = st.integers(1, 4)
own_tools = st.lists(st.builds(lambda name: {"type": "function", "function": {"name": name}}, texts), max_size=3)
client_tools = st.lists(
    st.builds(lambda name: {"name": name, "input_schema": {}}, texts) | st.just({"type": "bash_20250124", "name": "bash"}),
    max_size=3,
)


def bodies(needed, optional):
    return st.fixed_dictionaries({"model": st.just("m"), "stream": st.booleans(), **needed}, optional=optional)


messages = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": texts}), min_size=1, max_size=3)
BODIES = {
    Operation.CHAT: bodies(
        {"messages": messages}, {"max_tokens": caps, "max_completion_tokens": caps, "n": few, "tools": own_tools}
    ).filter(lambda body: "max_tokens" in body or "max_completion_tokens" in body),
    Operation.RESPONSES: bodies({"input": texts, "max_output_tokens": caps}, {"tools": own_tools}),
    Operation.COMPLETIONS: bodies(
        {"prompt": texts | st.lists(texts, min_size=1, max_size=3), "max_tokens": caps}, {"n": few, "best_of": few}
    ),
    Operation.MESSAGES: bodies({"messages": messages, "max_tokens": caps}, {"tools": client_tools}),
}


def most_of(operation, document, sent):
    """The most tokens that a vendor counts of a request and of all its answers, by the vendor's own rules."""
    tools = document.get("tools", [])
    own = sum("type" in tool and operation is Operation.MESSAGES for tool in tools)
    read = len(sent) + (TOOL_TOKENS * (1 + own) if tools else 0)
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens")
    answers = max(document.get("n", 1), document.get("best_of", 1))
    prompts = len(document["prompt"]) if isinstance(document.get("prompt"), list) else 1
    return read, min(document[name] for name in names if name in document) * answers * prompts


def parts(data, whole, count):
    """*whole*, or less, in so many parts."""
    left, found = data.draw(st.integers(0, whole) | st.just(whole)), []
    for _ in range(count):
        found.append(data.draw(st.integers(0, left)))
        left -= found[-1]
    return found


def usage_of(operation, stream, reply, read, written, sent):
    """What we read off the simulator's answer, as it would come over the wire."""
    room = anthropic if operation is Operation.MESSAGES else openai
    call = Call(
        path=PATHS[operation],
        number=1,
        created=0,
        model="m",
        is_stream=stream,
        include_usage=True,
        input_tokens=read,
        output_tokens=written,
        inputs=1,
        wants_base64=False,
    )
    answer, dialect = room.answer(call, reply), dialect_of(family_of(operation))
    if not stream:
        return dialect.read_answer(operation, answer.body).usage
    reader = dialect.reader(operation, dialect.read(operation, sent).facts)
    reader.feed(answer.body)
    reader.close()
    return reader.usage


@settings(max_examples=400)
@given(
    st.sampled_from(list(BODIES)).flatmap(lambda operation: st.tuples(st.just(operation), BODIES[operation])), prices(), st.data()
)
def test_no_answer_that_the_simulator_can_give_costs_more_than_was_held(asked, price, data):
    """
    Text, tools, several answers and prompts; any prices; any split into fresh, cached and cache-writing tokens; whole or streamed.
    """
    operation, document = asked
    sent = json.dumps(document).encode()
    parsed = dialect_of(family_of(operation)).read(operation, sent)
    held = estimate(parsed.facts, operation, BARE[family_of(operation)], Billing.METERED, price, None, body_bytes=len(sent)).upper
    assert held is not None, say_what_bounds(parsed.facts, operation, BARE[family_of(operation)])

    most_read, most_written = most_of(operation, document, sent)
    fresh, cached, five_minutes, one_hour = parts(data, most_read, 4)
    written = data.draw(st.integers(0, most_written) | st.just(most_written))
    reply = Reply(cached_tokens=cached, cache_write_5m=five_minutes, cache_write_1h=one_hour, reasoning_tokens=written // 3)
    # OpenAI counts what was cached inside its input, Anthropic beside it.
    told = fresh if operation is Operation.MESSAGES else fresh + cached + five_minutes + one_hour
    usage = usage_of(operation, document["stream"], reply, told, written, sent)

    assert (usage.input_tokens, usage.output_tokens) == (fresh + cached + five_minutes + one_hour, written)
    assert usage.input_tokens <= held.input_tokens
    assert usage.output_tokens <= held.output_tokens
    assert cost_nusd(usage, price) <= held.cost_nusd


# --- who sends no bound is told what to send ------------------------------------------------------------------------------

CAP_OF_MODEL = "or set `max_output_tokens` on the model 'm'."
REFERENCE = "Send the content itself instead of a reference to it, or set `context_tokens` on the model 'm'."
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]
UNBOUNDED = [
    (
        Operation.CHAT,
        {"messages": SAID},
        f"Send `max_completion_tokens` (or `max_tokens`), {CAP_OF_MODEL}",
        {"max_completion_tokens": 5},
    ),
    (Operation.CHAT, {"messages": SAID}, f"Send `max_completion_tokens` (or `max_tokens`), {CAP_OF_MODEL}", {"max_tokens": 5}),
    (Operation.CHAT, {"messages": IMAGE, "max_tokens": 5}, REFERENCE, {"messages": SAID}),
    (
        Operation.CHAT,
        {"messages": IMAGE},
        f"Send `max_completion_tokens` (or `max_tokens`), {CAP_OF_MODEL} {REFERENCE}",
        {"messages": SAID, "max_tokens": 5},
    ),
    (
        Operation.CHAT,
        {"messages": SAID, "max_tokens": 5, "web_search_options": {}, "service_tier": "priority"},
        "Leave out `web_search_options` and this `service_tier`: nobody knows what it may cost.",
        {"web_search_options": None, "service_tier": None},
    ),
    (
        Operation.CHAT,
        {"messages": SAID, "max_tokens": 5, "modalities": ["text", "audio"], "plugins": [{"id": "web"}]},
        "Leave out `modalities` other than text and `plugins`: nobody knows what it may cost.",
        {"modalities": ["text"], "plugins": None},
    ),
    (Operation.COMPLETIONS, {"prompt": "hi"}, f"Send `max_tokens`, {CAP_OF_MODEL}", {"max_tokens": 5}),
    (Operation.RESPONSES, {"input": "hi"}, f"Send `max_output_tokens`, {CAP_OF_MODEL}", {"max_output_tokens": 5}),
    (
        Operation.RESPONSES,
        {"input": "hi", "max_output_tokens": 5, "previous_response_id": "resp_1"},
        REFERENCE,
        {"previous_response_id": None},
    ),
    (
        Operation.RESPONSES,
        {"input": "hi", "max_output_tokens": 5, "tools": [{"type": "web_search"}]},
        "Leave out hosted tools in `tools`: nobody knows what it may cost.",
        {"tools": []},
    ),
    (Operation.MESSAGES, {"messages": SAID}, f"Send `max_tokens`, {CAP_OF_MODEL}", {"max_tokens": 5}),
    (
        Operation.MESSAGES,
        {"messages": SAID, "max_tokens": 5, "tools": [{"type": "web_search_20250305", "name": "web_search"}], "speed": "fast"},
        "Leave out server tools in `tools` and this `speed`: nobody knows what it may cost.",
        {"tools": [], "speed": "standard"},
    ),
    (
        Operation.MESSAGES,
        {"messages": SAID, "max_tokens": 5, "mcp_servers": [{"url": "https://example.com"}], "inference_geo": "us"},
        "Leave out this `inference_geo` and `mcp_servers`: nobody knows what it may cost.",
        {"mcp_servers": [], "inference_geo": "global"},
    ),
]


@pytest.mark.parametrize(("operation", "document", "sentence", "remedied"), UNBOUNDED)
def test_who_sends_no_bound_is_told_which_field_and_sent_so_the_call_has_one(operation, document, sentence, remedied):
    model = BARE[family_of(operation)]
    assert say_what_bounds(facts_of(operation, document), operation, model) == sentence
    assert say_what_bounds(facts_of(operation, {**document, **remedied}), operation, model) == ""


@pytest.mark.parametrize(("text", "is_bounded"), [(r"\u007f \u0026 \u003c", True), (r"\u0069mage", False), (r"a\u005fb", False)])
def test_only_an_escaped_letter_may_hide_a_reference(text, is_bounded):
    """
    A body with a control character that Python's own encoder escapes was refused as if it pointed somewhere.
    """
    sent = json.dumps({"model": "m", "messages": SAID, "max_tokens": 5}).replace("hi", text).encode()
    assert (dialect_of(Family.OPENAI).read(Operation.CHAT, sent).facts.input_tokens is not None) is is_bounded


@pytest.mark.parametrize("operation", PATHS)
def test_a_model_of_known_size_bounds_what_its_callers_leave_open(operation):
    sized = Model(name="m", family=family_of(operation), attachments=(), context_tokens=1_000, max_output_tokens=100)
    document = {"messages": IMAGE, "input": "hi", "prompt": "hi"}
    assert say_what_bounds(facts_of(operation, document), operation, sized) == ""


STRICT = """
[providers.openai]
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[providers.anthropic]
base_url = "http://127.0.0.1:9"
network = "loopback"
credential = "none"
family = "anthropic"
[[models]]
name = "m"
provider = "openai"
fallbacks = ["n"]
cost_per_million_input = "1"
cost_per_million_output = "2"
[[models]]
name = "n"
provider = "openai"
cost_per_million_input = "1"
cost_per_million_output = "2"
[[models]]
name = "claude"
provider = "anthropic"
cost_per_million_input = "1"
cost_per_million_output = "2"
[[budgets]]
name = "all"
subject = "everyone"
unit = "usd"
limit = "5"
window = "month"
enforcement = "strict"
"""
SPOKEN = {
    "/v1/chat/completions": ({"model": "n", "messages": SAID}, "Send `max_completion_tokens` (or `max_tokens`), {cap}"),
    "/v1/completions": ({"model": "n", "prompt": "hi"}, "Send `max_tokens`, {cap}"),
    "/v1/responses": ({"model": "n", "input": "hi"}, "Send `max_output_tokens`, {cap}"),
    "/v1/messages": ({"model": "claude", "messages": SAID}, "Send `max_tokens`, {cap}"),
    "/api/v1/route": (
        {"model": "n"},
        "Send `max_output_tokens`, {cap} Send `input_tokens`, or set `context_tokens` on the model 'n'.",
    ),
}


@pytest.mark.parametrize("path", SPOKEN)
async def test_a_strict_limit_refuses_a_call_without_a_bound_and_says_what_to_send(tmp_path, path):
    """
    In the error's own sentence, in the dialect of the path, and beside the rung.
    """
    body, sentence = SPOKEN[path]
    told_of = sentence.format(cap=f"or set `max_output_tokens` on the model {body['model']!r}.")
    async with open_plane(tmp_path, STRICT, Clock()) as plane:
        told = await plane.ask("POST", path, body)
        error = told.body.get("error", told.body)
        assert told.status == 400
        assert error.get("message", told.body.get("detail")).endswith(f"unbounded (all)). {told_of}")
        assert [(rung["reason"], rung["detail"]) for rung in error["rungs"]] == [("unbounded", {"limit": "all", "remedy": told_of})]
        assert (await plane.read("/api/v1/entries")).body["items"] == []


async def test_rungs_of_several_models_say_what_each_would_need(tmp_path):
    async with open_plane(tmp_path, STRICT, Clock()) as plane:
        told = await plane.ask("POST", "/api/v1/route", {"model": "m", "input_tokens": 5})
    cap = "Send `max_output_tokens`, or set `max_output_tokens` on the model"
    assert told.status == 400
    assert told.body["detail"].endswith(f"{cap} 'm'. {cap} 'n'.")


async def test_a_callers_own_cap_needs_a_bound_too(tmp_path):
    """
    Without one it was judged by what is likely, and a long answer went beyond what its caller would pay.
    """
    unlimited = STRICT.partition("[[budgets]]")[0]
    async with open_plane(tmp_path, unlimited, Clock()) as plane:
        asked = {"model": "n", "messages": SAID}
        told = await plane.ask("POST", "/v1/chat/completions", asked, x_quota_router_max_cost_usd="100")
        assert told.status == 400
        assert told.body["error"]["rungs"][0]["detail"]["limit"] == "max-cost"
        assert "Send `max_completion_tokens`" in told.body["error"]["message"]


# --- what is likely -------------------------------------------------------------------------------------------------------

LEARNING = (
    model_toml("learning", "openai")
    + model_toml("long", "openai")
    + budget_toml("learning", "model:learning", "usd", "1", enforcement="bounded")
    + budget_toml("long", "model:long", "output_tokens", "1600", enforcement="bounded")
    + budget_toml("strict", "model:long", "output_tokens", "100", enforcement="strict")
    + budget_toml("watched", "everyone", "output_tokens", "1", enforcement="advisory")
)
ANSWER = Reply(input_tokens=20, output_tokens=8, times=None)
SETTLED_S = 10
"""A caller who left is settled by then."""


@asynccontextmanager
async def house(folder):
    async with (
        Simulator([Account(key="openai")]) as sim,
        open_http() as http,
        open_here(folder, provider_toml("openai", sim.openai_base_url) + LEARNING, KEY_OPENAI="openai") as daemon,
    ):
        yield daemon, sim, http


def estimates(folder):
    """What was held for each call, in order: likely and at most, in (input, output) tokens."""
    told = [json.loads(row["estimate"]) for row in read_disk(folder).holds]
    return [[(e[which]["input_tokens"], e[which]["output_tokens"]) for which in ("likely", "upper")] for e in told]


async def test_what_is_likely_is_learned_from_twenty_answers_and_kept_over_a_restart(tmp_path, database):
    """
    Until then the bound is held; from the 21st call on the quantile, which is at most a quarter above what answers used.
    """
    most = (len(asked("learning")), MAX_TOKENS)
    async with house(tmp_path) as (daemon, sim, http):
        sim.script(None, ANSWER)
        for _ in range(ANSWERS_NEEDED + 1):
            assert (await ask(http, daemon.url, "openai", "learning")).status == 200
        assert await daemon.lane.run(Sweep()) == 0
    *before, after = estimates(tmp_path)
    assert before == [[most, most]] * ANSWERS_NEEDED
    (read, written), bound = after
    assert bound == most
    assert 20 <= read <= 20 * 5 / 4 + 2
    assert 8 <= written <= 8 * 5 / 4
    async with house(tmp_path) as (daemon, sim, http):
        sim.script(None, ANSWER)
        assert (await ask(http, daemon.url, "openai", "learning")).status == 200
    assert estimates(tmp_path)[-1] == after


async def test_a_long_answer_grows_its_hold_while_it_runs_and_counts_at_once(tmp_path, database):
    """
    3,000 bytes were seen, of an answer that was to have 50 tokens: it is held at half again as much, and the next call has no room.
    """
    async with house(tmp_path) as (daemon, sim, http):
        said = Reply(text="x" * 3_000, chunks=3)
        sim.script("openai", Fault(kind=FaultKind.HEARTBEATS, after_chunks=3, delay_s=0.02, reply=said))
        async with post(http, daemon.url, "openai", "long", stream=True) as stream:
            received = bytearray()
            async for piece in stream.content.iter_any():
                received += piece
                if received.count(b"x") >= 3_000:
                    break
            (before,) = estimates(tmp_path)
            assert before[0][1] == before[1][1] == MAX_TOKENS
            await daemon.router.renew_holds(1)
            (after,) = estimates(tmp_path)
            assert after == [(before[0][0], 1_500), before[1]]
            await daemon.router.renew_holds(1)
            assert estimates(tmp_path) == [after]
            limits = {limit["name"]: limit for limit in (await get(daemon.url, "/api/v1/limits"))["items"]}
            assert {name: limits[name]["held"] for name in ("long", "strict", "watched")} == {
                "long": 1_500,
                "strict": MAX_TOKENS,  # what was promised at most is what a strict limit holds; what is seen beyond is an overrun
                "watched": 1_500,
            }
            refused = await ask(http, daemon.url, "openai", "long", **{"x-quota-router-labels": "next"})
            assert refused.status == 200  # 50 more fit into 1,600
            refused = await ask(http, daemon.url, "openai", "long")
            assert (refused.status, refused.error["rungs"][0]["detail"]["limit"]) == (429, "strict")
        async with asyncio.timeout(SETTLED_S):
            await daemon.router.underway.wait_idle()
    found = read_disk(tmp_path)
    check_laws(found, us(datetime.now(UTC)))
    assert sorted(row["output"] for row in found.entries) == [12, 1_000]


@given(seen=st.integers(0, 4_000), likely=st.integers(0, 1_000), more=st.none() | st.integers(0, 2_000))
def test_an_estimate_grows_to_half_again_what_was_seen_within_what_is_possible(seen, likely, more):
    """
    What was seen is held, and half as much again: not more than an answer may have that keeps to what was asked.
    """
    most = None if more is None else amounts(likely + more)
    reader = SimpleNamespace(output_bytes=seen * BYTES_PER_TOKEN)
    held = Estimate(likely=amounts(likely), upper=most, is_priced=True)
    attempt = SimpleNamespace(
        reader=reader, hold=SimpleNamespace(estimate=held), candidate=SimpleNamespace(provider=provider("one"), price=PRICE)
    )
    grown = Attempt.grown(attempt)
    if seen <= likely:
        assert grown is None
        return
    output_tokens = grown.likely.output_tokens
    assert seen <= output_tokens <= seen * 3 // 2
    assert most is None or seen > most.output_tokens or output_tokens <= most.output_tokens
    assert (grown.upper, grown.likely.input_tokens) == (most, 7)
    assert grown.likely.cost_nusd == 7 * 1_000 + output_tokens * 2_000


def amounts(output_tokens):
    return Amounts(cost_nusd=7 * 1_000 + output_tokens * 2_000, requests=1, input_tokens=7, output_tokens=output_tokens)
