"""
What callers say of a call in headers of ours, over real sockets.

Law: what cannot be read is refused before anything is held or sent; a dry run tells what a call would meet and leaves no trace.
"""

import json

import pytest
import pytest_asyncio
from between_kit import ASKED, open_between
from daemon_kit import AUTH, get

from quota_router.simulator import Refusal

FIRST = {"chat": "chat-1", "responses": "chat-1", "messages": "messages-1"}
SECOND = {"chat": "chat-2", "responses": "chat-2", "messages": "messages-2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    async with open_between(tmp_path_factory.mktemp("asked")) as between:
        yield between


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing."""
    shared.forget()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")
dialects = pytest.mark.parametrize("dialect", ASKED)
deliveries = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


async def books(between):
    """All that is booked and held."""
    entries = (await get(between.daemon.url, "/api/v1/entries"))["items"]
    limits = (await get(between.daemon.url, "/api/v1/limits"))["items"]
    return entries, limits, dict((await between.daemon.lane.snapshot()).holds)


@deliveries
@dialects
@pytest.mark.parametrize("yes", ["1", "true", "YES"])
async def test_a_dry_run_tells_who_would_serve_and_leaves_no_trace(between, dialect, stream, yes):
    before = await books(between)
    told = await between.ask(dialect, stream=stream, x_quota_router_dry_run=yes)
    assert (told.status, told.headers["content-type"].partition(";")[0]) == (200, "application/json")
    shown = told.json
    assert (shown["outcome"], shown["provider"], shown["upstream_model"]) == ("chosen", FIRST[dialect], f"up-{FIRST[dialect]}")
    assert (shown["call_id"], shown["hold"]) == (None, None)
    assert [(rung["provider"], rung["status"]) for rung in shown["rungs"]] == [
        (FIRST[dialect], "chosen"),
        (SECOND[dialect], "eligible"),
    ]
    assert (between.sim.requests, await books(between)) == ([], before)


@dialects
async def test_it_shows_what_the_next_call_would_meet(between, dialect):
    """
    A cooldown, a pin, and when nobody is left the refusal itself.
    """
    between.script(FIRST[dialect], Refusal(status=429, retry_after=5_000))
    assert (await between.ask(dialect)).ours("provider") == SECOND[dialect]
    shown = (await between.ask(dialect, x_quota_router_dry_run="1")).json
    assert [(rung["provider"], rung["status"], rung["reason"]) for rung in shown["rungs"]] == [
        (FIRST[dialect], "skipped", "cooldown"),
        (SECOND[dialect], "chosen", None),
    ]
    pinned = await between.ask(dialect, x_quota_router_dry_run="1", x_quota_router_provider=FIRST[dialect])
    real = await between.ask(dialect, x_quota_router_provider=FIRST[dialect])
    assert (pinned.status, pinned.json["error"]["code"]) == (real.status, real.json["error"]["code"]) == (429, "insufficient_quota")
    assert 4_000 < int(pinned.headers["Retry-After"]) <= 5_000
    assert len(between.sim.requests) == 2


async def test_a_dry_run_takes_no_turn_and_no_key(between):
    """
    The same `Idempotency-Key` names the real call afterwards.
    """
    for _ in range(2):
        assert (await between.ask("chat", x_quota_router_dry_run="true", Idempotency_Key="once")).status == 200
    assert (await between.ask("chat", Idempotency_Key="once")).status == 200
    assert (await between.ask("chat", Idempotency_Key="once")).status == 409


@pytest.mark.parametrize("no", ["0", "false", "no", ""])
async def test_what_says_no_is_a_call_like_any_other(between, no):
    told = await between.ask("chat", x_quota_router_dry_run=no)
    assert (told.status, told.ours("provider")) == (200, "chat-1")


ODD = {
    "x-quota-router-maxwait": "10",
    "x-quota-router-dry-run": "perhaps",
    "x-quota-router-max-wait": "-1",
    "x-quota-router-timeout": "0",
    "x-quota-router-priority": "high",
    "x-quota-router-retry-count": "-1",
    "x-quota-router-max-cost-usd": "cheap",
    "x-quota-router-labels": ",".join(map(str, range(33))),
    "x-quota-router-session": "s" * 257,
    "x-quota-router-provider": "p" * 257,
}


@dialects
@pytest.mark.parametrize("name", ODD)
async def test_what_cannot_be_read_is_refused_by_its_name_before_anything_is_held(between, dialect, name):
    before = await books(between)
    path, asked = ASKED[dialect]
    async with between.http.post(between.daemon.url + path, json=asked, headers={**AUTH, name: ODD[name]}) as answer:
        error = json.loads(await answer.read())["error"]
        assert (answer.status, error["type"]) == (400, "invalid_request_error")
        assert f"`{name}`" in error["message"]
    assert (between.sim.requests, await books(between)) == ([], before)


async def test_a_misspelt_name_is_met_with_the_nearest(between):
    async with between.http.post(
        between.daemon.url + ASKED["chat"][0], json=ASKED["chat"][1], headers={**AUTH, "x-quota-router-max-cots-usd": "1"}
    ) as answer:
        assert "max-cost-usd" in json.loads(await answer.read())["error"]["message"]


async def test_all_of_them_at_once_reach_the_call_and_none_the_upstream(between):
    told = await between.ask(
        "chat",
        x_quota_router_labels="team-a, nightly",
        x_quota_router_priority="3",
        x_quota_router_task_id="t-1",
        x_quota_router_retry_count="2",
        x_quota_router_workflow="w",
        x_quota_router_stage="plan",
        x_quota_router_session="s",
        x_quota_router_timeout="30",
        x_quota_router_max_wait="0",
        x_quota_router_max_cost_usd="1.5",
    )
    assert told.status == 200
    story = await between.story(told)
    assert story["labels"] == ["team-a", "nightly"]
    (seen,) = between.sim.requests
    assert [name for name in seen.headers if "quota" in name.lower()] == []
