"""
Sessions over real sockets: a conversation stays where its prompt cache is warm, and new ones begin everywhere alike.

The upstream here is a vendor with three subscriptions: each has a window of tokens and keeps a prompt for five minutes, by the same
clock as the daemon; what it says of its cache and of its window is what it does.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from aiohttp import web
from between_kit import SAID, SERVER, Between, model_toml, open_between
from daemon_kit import AUTH, get, provider_toml
from ledger_kit import Clock

from quota_router.ladder import SESSION_HEADERS

WINDOW_TOKENS = 400_000
CACHE_LIFE = timedelta(minutes=5)
TURNS = 18
TURN_S = 60


@dataclass
class Subscription:
    """One account of the vendor."""

    used: int = 0
    resets_at: datetime | None = None
    warm: dict[str, tuple[datetime, int]] = field(default_factory=dict)
    failures: int = 0


@dataclass
class Served:
    """One call as the vendor saw it."""

    session: str
    account: str
    prompt: int
    cached: int


@dataclass
class Vendor:
    clock: Clock
    accounts: dict[str, Subscription] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)
    exhaustions: int = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        key, asked, now = request.headers["x-api-key"], json.loads(await request.read()), self.clock()
        account = self.accounts.setdefault(key, Subscription())
        if account.resets_at is None or account.resets_at <= now:
            account.used, account.resets_at = 0, now + timedelta(hours=5)
        if account.failures:
            account.failures -= 1
            return web.json_response({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, status=529)
        if account.used >= WINDOW_TOKENS:
            return web.json_response(
                {"type": "error", "error": {"type": "rate_limit_error", "message": "Usage limit"}},
                status=429,
                headers=self._told(account, now, "rejected"),
            )
        session, prompt = asked["metadata"]["user_id"], sum(len(turn["content"]) for turn in asked["messages"])
        since, tokens = account.warm.get(session, (now, 0))
        cached = tokens if now - since <= CACHE_LIFE else 0
        account.warm[session] = (now, prompt)
        account.used += prompt - cached + 10
        self.exhaustions += account.used >= WINDOW_TOKENS
        self.served.append(Served(session, key, prompt, cached))
        usage = {"input_tokens": prompt - cached, "cache_read_input_tokens": cached, "output_tokens": 10}
        body = {
            "id": "msg",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": [{"type": "text", "text": "ok"}],
            "stop_reason": "end_turn",
            "usage": usage,
        }
        return web.json_response(body, headers=self._told(account, now, "allowed"))

    def _told(self, account: Subscription, now: datetime, status: str) -> dict[str, str]:
        claim = "anthropic-ratelimit-unified-5h"
        return {
            "date": format_datetime(now, usegmt=True),
            f"{claim}-status": status,
            f"{claim}-utilization": f"{min(1.0, account.used / WINDOW_TOKENS):.2f}",
            f"{claim}-reset": str(round(account.resets_at.timestamp())),
        }

    def of(self, session: str) -> list[Served]:
        return [call for call in self.served if call.session == session]


@dataclass
class House:
    between: Between
    vendor: Vendor
    clock: Clock

    async def turn(self, session: str, number: int, *, tokens: int = 2_000, strategy: str = "least_used", **how: str):
        """One more turn of a conversation that grows by *tokens* each time."""
        messages = [{"role": "user", "content": "x" * tokens} for _ in range(number)]
        asked = {"model": strategy, "messages": messages, "max_tokens": 10, "metadata": {"user_id": session}}
        told = await self.between.send("/v1/messages", json.dumps(asked), **how)
        assert told.status == 200, told.body
        return told.ours("provider")


def named(session: int) -> str:
    """A session as Claude Code writes it."""
    return json.dumps({"device_id": "d", "session_id": f"{session:036}"})


STRATEGIES = ("priority", "round_robin", "least_used", "soonest_reset", "cheapest", "fastest", "random", "weighted")


@pytest.fixture
async def house(tmp_path):
    clock = Clock()
    vendor = Vendor(clock)
    runner = web.ServerRunner(web.Server(vendor.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url, names = f"http://127.0.0.1:{runner.addresses[0][1]}", ("a", "b", "c")
    more = "".join(provider_toml(name, url, vendor="anthropic") for name in names)
    more += "".join(model_toml(strategy, *names, strategy=strategy) for strategy in STRATEGIES)
    keys = {f"KEY_{name.upper()}": name for name in names}
    async with open_between(tmp_path, server=SERVER, rungs=3, strategy="round_robin", more=more, keys=keys, clock=clock) as between:
        yield House(between=between, vendor=vendor, clock=clock)
    await runner.cleanup()


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_session_of_eighteen_turns_changes_its_subscription_no_more_often_than_one_is_exhausted(house, strategy):
    """
    Others use up its home in the ninth turn. What it reads from a cache is what it could at best, but for that turn.
    """
    session = named(1)
    for number in range(1, TURNS + 1):
        at = await house.turn(session, number, strategy=strategy)
        await house.turn(named(1_000 + number), 1, strategy=strategy)
        if number == TURNS // 2:
            house.vendor.accounts[at].used = WINDOW_TOKENS - 1
            await house.turn(named(2_000), 1, strategy=strategy, x_quota_router_provider=at)
        house.clock.forward(seconds=TURN_S)
    calls = house.vendor.of(session)
    switches = sum(before.account != after.account for before, after in pairwise(calls))
    assert (len(calls), house.vendor.exhaustions) == (TURNS, 1)
    assert switches == 1 <= house.vendor.exhaustions
    ideal = sum(before.prompt for before, after in pairwise(calls) if before.account == after.account)
    assert sum(call.cached for call in calls) >= 0.95 * ideal > 0
    booked = (await get(house.between.daemon.url, "/api/v1/usage?group_by=model"))["groups"]
    assert [group["model"] for group in booked] == [strategy]


async def test_a_transient_error_makes_it_a_guest_and_it_comes_back(house):
    session = named(1)
    home = await house.turn(session, 1)
    for failures in (1, 2):
        house.vendor.accounts[home].failures = failures
        guest = await house.turn(session, 2)
        assert guest != home
        house.vendor.accounts[home].failures = 0
        house.clock.forward(seconds=30)
        assert await house.turn(session, 3) == home


@pytest.mark.parametrize("strategy", ["least_used", "round_robin", "random"])
async def test_while_its_home_is_out_it_is_a_guest_at_one_place(house, strategy):
    """
    Whatever else is called meanwhile. After five minutes that place is its home: its old cache is cold.
    """
    session = named(1)
    home = await house.turn(session, 1, strategy=strategy)
    house.vendor.accounts[home].used = WINDOW_TOKENS
    guests = []
    for number in range(2, 12):
        guests.append(await house.turn(session, number, strategy=strategy))
        await house.turn(named(100 + number), 1, strategy=strategy, tokens=9_000)
        house.clock.forward(seconds=40)
    assert len(set(guests)) == 1
    house.vendor.accounts[home].used = 0
    house.clock.forward(hours=5)
    for number in range(12, 15):
        assert await house.turn(session, number, strategy=strategy) == guests[0]


async def test_who_refuses_a_sessions_first_call_is_not_its_home(house):
    session = named(1)
    first = await house.turn(named(9), 1, strategy="priority")
    house.vendor.accounts[first].failures = 1
    served_by = await house.turn(session, 1, strategy="priority")
    house.clock.forward(seconds=60)
    assert [await house.turn(session, number, strategy="priority") for number in (2, 3)] == [served_by] * 2
    assert served_by != first


@pytest.mark.parametrize("strategy", ["least_used", "round_robin"])
@pytest.mark.parametrize("turns", [1, 2, 3, 4])
async def test_new_sessions_begin_everywhere_alike(house, strategy, turns):
    """
    However many turns the others have; none is starved by those that are at home somewhere.
    """
    homes = Counter()
    for session in range(30):
        at = [await house.turn(named(session), number, strategy=strategy, tokens=4_000) for number in range(1, turns + 1)]
        assert len(set(at)) == 1
        homes[at[0]] += 1
    assert sorted(homes) == ["a", "b", "c"]
    assert max(homes.values()) - min(homes.values()) <= 2


# --- how a session is named -----------------------------------------------------------------------------------------------

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
NAMES = {
    "our header": (CHAT, {}, {"x-quota-router-session": "s-1"}),
    **{name: (CHAT, {}, {name: "s-1"}) for name in SESSION_HEADERS},
    "prompt_cache_key": (CHAT, {"prompt_cache_key": "s-1"}, {}),
    "metadata.user_id of Claude Code": (MESSAGES, {"metadata": {"user_id": named(7)}}, {}),
    "metadata.user_id of before": (MESSAGES, {"metadata": {"user_id": "user_0a_account__session_0f8fad5b-d9cb-469f"}}, {}),
}


async def where(house, path, more, headers):
    asked = {"model": "chat" if path == CHAT else "messages", "messages": SAID, "max_tokens": 5, **more}
    async with house.between.http.post(house.between.daemon.url + path, json=asked, headers={**AUTH, **headers}) as answer:
        assert answer.status == 200
        return answer.headers["x-quota-router-provider"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_session_is_known_by_each_of_its_names(house, name):
    """
    Under `round_robin`, which heeds only what the caller names: the others take their turns meanwhile.
    """
    path, more, headers = NAMES[name]
    home = await where(house, path, more, headers)
    for _ in range(3):
        assert await where(house, path, more, headers) == home
    others = {await where(house, path, {}, {}) for _ in range(3)}
    assert len(others) == 3
    assert await where(house, path, more, headers) == home


@pytest.mark.parametrize(("field", "value"), [("user", "s-1"), ("metadata", {"user_id": "someone@example.com"})])
async def test_what_only_names_a_person_is_no_session(house, field, value):
    path = CHAT if field == "user" else MESSAGES
    assert len({await where(house, path, {field: value}, {}) for _ in range(3)}) == 3


async def test_without_a_name_a_long_prompts_beginning_is_the_session(house):
    """
    `least_used` heeds it; a short one begins anywhere.
    """

    async def at(first: str, turns: int) -> str:
        messages = [{"role": "user", "content": first}, *({"role": "user", "content": "more"} for _ in range(turns))]
        asked = {"model": "least_used", "messages": messages, "max_tokens": 5, "metadata": {"user_id": "someone"}}
        return (await house.between.send(MESSAGES, json.dumps(asked))).ours("provider")

    homes = {first: await at(first * 5_000, 0) for first in "xyz"}
    assert sorted(homes.values()) == ["a", "b", "c"]
    for turns in range(1, 4):
        for first, home in homes.items():
            assert await at(first * 5_000, turns) == home
    assert len({await at(first, 0) for first in ("x" * 50, "x" * 51, "x" * 52, "x" * 50)}) > 1


async def test_sessions_of_two_callers_are_two(house):
    """
    The same name, said by another, draws nobody to where the first is at home.
    """
    sessions = house.between.daemon.router.ladders.sessions
    await where(house, CHAT, {}, {"x-quota-router-session": "s-1"})
    assert [key.partition("\0")[2] for key in sessions._stays] == ["s-1"]
    assert all(key.startswith("admin\0") for key in sessions._stays)


async def test_each_subscription_is_asked_once_to_learn_when_its_window_ends(house):
    """
    Then the one whose window ends first has all calls that are at home nowhere.
    """
    asked = []
    for number in range(6):
        asked.append(await house.turn(named(number), 1, strategy="soonest_reset"))
        house.clock.forward(seconds=TURN_S)
    assert (sorted(asked[:3]), set(asked[3:])) == (["a", "b", "c"], {asked[0]})


async def test_a_decision_keeps_a_session_at_home_too(house):
    async def route(**more) -> str:
        asked = {"model": "round_robin", "input_tokens": 1, "max_output_tokens": 1, **more}
        async with house.between.http.post(f"{house.between.daemon.url}/api/v1/route", json=asked, headers=AUTH) as answer:
            assert answer.status == 201
            return (await answer.json())["provider"]

    home = await route(session="s")
    assert len({await route() for _ in range(3)}) == 3
    assert [await route(session="s") for _ in range(3)] == [home] * 3
