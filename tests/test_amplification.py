"""
What failures cost the upstreams: calls there for calls here, over real sockets.

Law: falling back and repeating together add a fifth at most, however many callers there are at once.
"""

import asyncio
import json
from collections import Counter

import pytest
from between_kit import SAID, SERVER, open_between
from caller_kit import open_http
from daemon_kit import AUTH

from quota_router.core import retries
from quota_router.simulator import Fault, FaultKind, Refusal, Reply

CALLERS = 200
CALLS_EACH = 2
ONE_IN = 10
"""So many calls meet a failure."""
FAILURES = (
    lambda: Refusal(status=503),
    lambda: Refusal(status=500),
    lambda: Refusal(status=529),
    lambda: Fault(kind=FaultKind.RESET),
    lambda: Fault(kind=FaultKind.ERROR_IN_200),
    lambda: Fault(kind=FaultKind.CUT_BODY),
)
PLAIN = Reply(times=ONE_IN - 1)
MOST = 1.2


@pytest.fixture
async def between(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.01)
    server = SERVER.replace("_timeout_s = 0.4", "_timeout_s = 30") + "retries_lone = 5\nretries_member = 2\n"
    async with open_between(tmp_path, models={"chat": "openai"}, server=server) as between:
        yield between


def script(between, provider: str) -> None:
    """Every tenth call fails, each in another way."""
    for number in range(CALLERS * CALLS_EACH * 2 // ONE_IN):
        between.script(provider, PLAIN, FAILURES[number % len(FAILURES)]())


async def crowd(between, **headers: str) -> Counter[int]:
    """All callers at once, each with one call after the other; how they were answered."""
    body = json.dumps({"model": "chat", "messages": SAID, "max_tokens": 5})
    statuses: Counter[int] = Counter()

    async def caller(http) -> None:
        for _ in range(CALLS_EACH):
            async with http.post(f"{between.daemon.url}/v1/chat/completions", data=body, headers={**AUTH, **headers}) as answer:
                await answer.read()
                statuses[answer.status] += 1

    async with open_http() as http:
        await asyncio.gather(*(caller(http) for _ in range(CALLERS)))
    return statuses


async def test_two_rungs_of_which_each_fails_one_call_in_ten(between):
    """
    Almost nobody notices.
    """
    script(between, "chat-1")
    script(between, "chat-2")
    statuses = await crowd(between)
    calls = CALLERS * CALLS_EACH
    assert statuses.total() == calls
    assert statuses[200] >= 0.95 * calls
    assert len(between.sim.requests) <= MOST * calls


async def test_a_lone_rung_that_fails_one_call_in_ten(between):
    script(between, "chat-1")
    statuses = await crowd(between, **{"x-quota-router-provider": "chat-1"})
    assert statuses.total() == CALLERS * CALLS_EACH
    assert len(between.sim.requests) <= MOST * CALLERS * CALLS_EACH
    assert between.seen("chat-2") == []


async def test_a_lone_rung_that_is_down_for_everybody(between):
    """
    All fail; the repeats of all together stay within their budget.
    """
    between.script("chat-1", Refusal(status=503, times=None))
    statuses = await crowd(between, **{"x-quota-router-provider": "chat-1"})
    assert statuses == {503: CALLERS * CALLS_EACH}
    assert len(between.sim.requests) <= MOST * CALLERS * CALLS_EACH
