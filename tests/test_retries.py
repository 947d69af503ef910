"""
Trying a rung again within a call, over real sockets.

Law: one layer, before the first content byte, of what is alone in serving the call and only broke; each repeat is an attempt with a
hold of its own, and all calls together repeat within a budget.
"""

import asyncio
import json
from collections import Counter

import pytest
import pytest_asyncio
from between_kit import INPUT_NUSD, SAID, SERVER, model_toml, open_between

from quota_router.core import retries
from quota_router.core.health import BREAKER_FAILURES
from quota_router.simulator import Fault, FaultKind, Refusal, Reply

LONE = 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "FIRST_PAUSE_S", 0.002)
        server = f"{SERVER}retries_lone = {LONE}\nretries_member = 1\n"
        more = model_toml("chat-lone", "chat-1") + model_toml("messages-lone", "messages-1")
        async with open_between(tmp_path_factory.mktemp("retries"), server=server, more=more) as between:
            yield between


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing."""
    shared.forget()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")
deliveries = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

BREAKAGES = {
    "500": lambda times: Refusal(status=500, times=times),
    "503": lambda times: Refusal(status=503, times=times),
    "reset": lambda times: Fault(kind=FaultKind.RESET, times=times),
    "error in a stream": lambda times: Fault(kind=FaultKind.ERROR_IN_STREAM, times=times),
}


async def ask(between, model, *, stream=False, **how):
    path = "/v1/messages" if model.startswith("messages") else "/v1/chat/completions"
    asked = {"model": model, "messages": SAID, "max_tokens": 50, "stream": stream}
    return await between.send(path, json.dumps(asked), **how)


async def attempts_of(between, told):
    return [(attempt["provider"], attempt["outcome"]) for attempt in (await between.story(told))["attempts"]]


@deliveries
@pytest.mark.parametrize("model", ["chat-lone", "messages-lone"])
@pytest.mark.parametrize("times", range(1, LONE + 1))
async def test_row_1_6_a_lone_rung_that_breaks_is_tried_up_to_five_times_more(between, times, model, stream):
    provider = model.replace("lone", "1")
    between.script(provider, Refusal(status=500, times=times))
    told = await ask(between, model, stream=stream)
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, provider, str(times + 1))
    assert await attempts_of(between, told) == [(provider, "failed")] * times + [(provider, "ok")]
    assert (await ask(between, model, stream=stream)).ours("attempts") == "1", "it is well again"


@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_then_it_is_told_and_the_next_call_only_probes(between, breakage):
    """
    The row of failures has opened the breaker: from there on a call tries once.
    """
    between.script("chat-1", BREAKAGES[breakage](None))
    told = await ask(between, "chat-lone")
    assert told.status in {502, 503}
    story = await between.story(told)
    assert (len(story["attempts"]), len(between.seen("chat-1"))) == (LONE + 1, LONE + 1)
    assert all(attempt["outcome"] in {"failed", "unknown"} for attempt in story["attempts"])
    if breakage == "reset":
        assumed = [attempt["usage"]["input_tokens"] * INPUT_NUSD for attempt in story["attempts"]]
        assert story["cost_nusd"] == sum(assumed) > 0, "each repeat may have been charged"
    else:
        assert story["cost_nusd"] == 0
    for number in range(1, 4):
        assert (await ask(between, "chat-lone")).status == told.status
        assert len(between.seen("chat-1")) == LONE + 1 + number


@deliveries
async def test_a_pinned_rung_likewise_while_another_is_well(between, stream):
    between.script("chat-1", Refusal(status=503, times=LONE))
    told = await ask(between, "chat", stream=stream, x_quota_router_provider="chat-1")
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, "chat-1", str(LONE + 1))
    assert between.seen("chat-2") == []


async def test_no_rung_is_tried_again_while_another_is_usable(between):
    between.script("chat-1", Refusal(status=500))
    told = await ask(between, "chat")
    assert await attempts_of(between, told) == [("chat-1", "failed"), ("chat-2", "ok")]


async def test_row_1_6_where_several_were_tried_only_the_few_repeats_of_a_member_follow(between):
    """
    `retries_member` is 1 here.
    """
    for provider in ("chat-1", "chat-2"):
        between.script(provider, Refusal(status=500))
    told = await ask(between, "chat")
    assert (told.status, told.ours("attempts")) == (200, "3")
    for provider in ("chat-1", "chat-2"):
        between.script(provider, Refusal(status=500, times=None))
    assert len((await between.story(await ask(between, "chat")))["attempts"]) == 3


SAYS_NO = {
    "429": (Refusal(status=429), 429),
    "429 with a time": (Refusal(status=429, retry_after=1), 429),
    "503 with a time": (Refusal(status=503, retry_after=1), 503),
    "500 with a time": (Refusal(status=500, headers={"retry-after-ms": "700"}), 503),
    "401": (Refusal(status=401), 503),
    "402": (Refusal(status=402), 429),
    "400": (Refusal(status=400), 400),
}


@pytest.mark.parametrize("refusal", SAYS_NO)
async def test_what_the_upstream_said_is_told_at_once(between, refusal):
    step, status = SAYS_NO[refusal]
    between.script("chat-1", step)
    assert (await ask(between, "chat-lone")).status == status
    assert len(between.seen("chat-1")) == 1


@pytest.mark.parametrize("model", ["chat-lone", "messages-lone"])
async def test_nothing_is_repeated_after_the_first_word(between, model):
    provider = model.replace("lone", "1")
    between.script(provider, Fault(kind=FaultKind.CUT_STREAM, after_chunks=1, reply=Reply(text="one two three")))
    told = await ask(between, model, stream=True)
    assert (told.status, len(between.seen(provider))) == (200, 1)
    assert b"one" in told.body
    assert b"three" not in told.body


async def test_the_callers_own_time_ends_his_repeats(between, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_S", 60.0)
    between.script("chat-1", Refusal(status=500, times=None))
    told = await ask(between, "chat-lone", x_quota_router_timeout="0.2")
    assert (told.status, told.json["error"]["code"]) == (408, "deadline_passed")
    assert len(between.seen("chat-1")) <= 2


async def test_a_single_users_few_calls_may_all_repeat(between):
    """
    Three at once, whatever the budget is of so few.
    """
    between.script("chat-1", Refusal(status=500, times=BREAKER_FAILURES - 1))
    told = await asyncio.gather(*(ask(between, "chat-lone") for _ in range(retries.BUDGET_LEAST)))
    assert [answer.status for answer in told] == [200] * retries.BUDGET_LEAST


async def test_many_calls_repeat_within_a_budget(between, monkeypatch):
    """
    Of forty that break at once eight may try again while all are under way; the others are told.
    """
    calls = 40
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.2)
    between.script("chat-1", Refusal(status=500, times=calls))
    statuses = Counter(answer.status for answer in await asyncio.gather(*(ask(between, "chat-lone") for _ in range(calls))))
    assert len(between.seen("chat-1")) <= calls + retries.budget(calls) * LONE
    assert statuses[503] >= calls - retries.budget(calls) * LONE
