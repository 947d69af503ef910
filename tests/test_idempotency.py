"""
A caller's key names one call: while it runs, after it has ended however it did, after a restart, and on either plane.

Law: nothing is sent or held twice under one key. On the data plane the second is told which call was the first and how it is doing;
on the decision plane it is given the first one's answer. A call that was refused has no claim to its key.
"""

import asyncio
import hashlib
import json
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from caller_kit import PATHS, ask, asked, budget_toml, model_toml, open_http, post
from daemon_kit import AUTH, open_here, provider_toml, write_config
from laws_kit import read_disk
from ledger_kit import ForgetCooldowns

from quota_router.simulator import Account, Fault, FaultKind, Refusal, Reply, Simulator

TOKENS = {"ci": "qr-ci", "other": "qr-other"}
VENDORS = ("openai", "anthropic")
SMALL = {"model": "openai", "input_tokens": 100, "max_output_tokens": 10}
SPENT = {"usage": {"input_tokens": 50, "output_tokens": 5}}
SERVER = 'durability = "process"\ndrain_s = 0.1\nsettle_wait_s = 0.1\n'
SETTLED_S = 10
"""A caller who left is settled by then."""

pytestmark = pytest.mark.usefixtures("database")
dialects = pytest.mark.parametrize("dialect", VENDORS)


def catalog_of(sim, cap=100):
    urls = {"openai": sim.openai_base_url, "anthropic": sim.anthropic_base_url}
    callers = "".join(
        f'[[callers]]\nname = "{name}"\ntoken_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        for name, token in TOKENS.items()
    )
    providers = "".join(provider_toml(name, urls[name], vendor=name) + model_toml(name, name) for name in VENDORS)
    return providers + callers + budget_toml("calls", "everyone", "requests", str(cap))


class House:
    """A daemon that may be restarted, a caller, and the upstream, which stays."""

    def __init__(self, folder, sim, http, daemon):
        self.folder, self.sim, self.http, self.daemon = folder, sim, http, daemon

    async def ask(self, dialect, key="k", caller="ci", **how):
        token = {"Authorization": f"Bearer {TOKENS[caller]}"}
        return await ask(self.http, self.daemon.url, dialect, dialect, **{"Idempotency-Key": key, **token, **how})

    async def say(self, path, body=None, *, key=None, caller="ci"):
        headers = {"Authorization": f"Bearer {TOKENS[caller]}", **({"Idempotency-Key": key} if key else {})}
        async with self.http.post(self.daemon.url + path, data=json.dumps(body) if body else b"", headers=headers) as answer:
            return answer.status, json.loads(await answer.read()), answer.headers

    async def route(self, key="k", **how):
        status, body, _ = await self.say("/api/v1/route", {**SMALL}, key=key, **how)
        assert status == 201, body
        return body


@asynccontextmanager
async def lives(folder):
    """Lives of one house: each has a daemon of its own, on the same ledger."""
    async with Simulator([Account(key=name) for name in VENDORS]) as sim, open_http() as http:

        @asynccontextmanager
        async def live():
            keys = {f"KEY_{name.upper()}": name for name in VENDORS}
            async with open_here(folder, catalog_of(sim), server=SERVER, **keys) as daemon:
                yield House(folder, sim, http, daemon)

        yield live


@pytest.fixture
async def life(tmp_path):
    async with lives(tmp_path) as live:
        yield live


def assert_names(told, first, state, dialect):
    """The second call is told of the first, in the dialect of the path, and not to try again."""
    assert (told.status, told.error["call_id"], told.error["state"]) == (409, first, state)
    assert f"call {first}" in told.error["message"]
    assert told.headers["x-should-retry"] == "false"
    assert "Retry-After" not in told.headers
    assert (json.loads(told.body).get("type") == "error") is (dialect == "anthropic")
    assert told.call_id != first


# --- the data plane -----------------------------------------------------------------------------------------------------


@dialects
async def test_a_key_names_its_call_while_it_runs_after_it_ended_and_after_a_restart(life, dialect):
    async with life() as house:
        house.sim.script(dialect, Fault(kind=FaultKind.HEARTBEATS, after_chunks=1, delay_s=0.02))
        running = await post(
            house.http, house.daemon.url, dialect, dialect, stream=True, Idempotency_Key="k", Authorization=f"Bearer {TOKENS['ci']}"
        )
        first = running.headers["x-quota-router-call"]
        assert_names(await house.ask(dialect, stream=True), first, "running", dialect)
        running.close()
        async with asyncio.timeout(SETTLED_S):
            await house.daemon.router.underway.wait_idle()
        assert_names(await house.ask(dialect, stream=True), first, "failed", dialect)
        done = await house.ask(dialect, key="done")
        assert done.status == 200
        assert_names(await house.ask(dialect, key="done"), done.call_id, "done", dialect)
        refused = await house.ask(dialect, key="done", stream=True)
        assert "with another request" in refused.error["message"]
        assert house.sim.counters["requests"] == 2
    async with life() as house:
        assert_names(await house.ask(dialect, stream=True), first, "failed", dialect)
        assert_names(await house.ask(dialect, key="done"), done.call_id, "done", dialect)
        assert "with another request" in (await house.ask(dialect, key="done", stream=True)).error["message"]
        assert house.sim.counters["requests"] == 2


async def test_what_died_with_its_daemon_is_told_to_be_unknown(life, tmp_path):
    """
    Whether the upstream answered, nobody knows: it is not asked a second time in the caller's name.
    """
    async with life() as house:
        house.sim.script("openai", Fault(kind=FaultKind.HEARTBEATS, after_chunks=1, delay_s=0.02))
        running = await post(
            house.http,
            house.daemon.url,
            "openai",
            "openai",
            stream=True,
            Idempotency_Key="k",
            Authorization=f"Bearer {TOKENS['ci']}",
        )
        first = running.headers["x-quota-router-call"]
        # As a death leaves it: nothing is said to the ledger any more.
        house.daemon.lane.settle = lambda _: asyncio.get_running_loop().create_future()
        running.close()
    async with life() as house:
        assert_names(await house.ask("openai", stream=True), first, "unknown", "openai")


@dialects
async def test_the_callers_own_mistake_keeps_its_key_and_a_refusal_of_ours_does_not(life, tmp_path, dialect):
    async with life() as house:
        house.sim.script(dialect, Refusal(status=422, code="invalid_value"))
        mistaken = await house.ask(dialect, key="mistake")
        assert mistaken.status == 422
        assert_names(await house.ask(dialect, key="mistake"), mistaken.call_id, "failed", dialect)
        for cap, status in ((0, 429), (0, 429), (100, 200), (100, 409)):
            write_config(tmp_path, catalog_of(house.sim, cap))
            await house.daemon.services.reload(False, False, "admin")
            told = await house.ask(dialect, key="refused")
            assert told.status == status, told
        unknown = await ask(house.http, house.daemon.url, dialect, "nobody", **{"Idempotency-Key": "gone", **AUTH})
        assert unknown.status == 404
        assert (await house.ask(dialect, key="gone")).status == 200


@dialects
async def test_fifty_calls_at_once_under_one_key_reach_the_upstream_once(life, dialect):
    async with life() as house:
        house.sim.script(None, Reply(first_byte_delay_s=0.1, times=None))
        told = await asyncio.gather(*(house.ask(dialect, stream=n % 2 == 0) for n in range(50)))
        assert Counter(answer.status for answer in told) == {200: 1, 409: 49}
        (served,) = (answer.call_id for answer in told if answer.status == 200)
        assert {answer.error["call_id"] for answer in told if answer.status == 409} == {served}
        assert house.sim.counters["requests"] == 1


async def test_a_key_is_the_callers_own_on_both_planes(life):
    async with life() as house:
        mine, others = await house.ask("openai"), await house.ask("openai", caller="other")
        assert (mine.status, others.status) == (200, 200)
        assert (await house.ask("openai", caller="other")).error["call_id"] == others.call_id
        assert (await house.route("r"))["call_id"] != (await house.route("r", caller="other"))["call_id"]


async def test_a_path_is_a_part_of_what_was_asked(life):
    """
    The same bytes at another path are another request; so is a decision under the key of a call, and the other way round.
    """
    async with life() as house:
        assert (await house.ask("openai")).status == 200
        body, headers = asked("openai"), {"Authorization": f"Bearer {TOKENS['ci']}", "Idempotency-Key": "k"}
        async with house.http.post(f"{house.daemon.url}/v1/completions", data=body, headers=headers) as answer:
            assert (answer.status, "with another request" in await answer.text()) == (409, True)
        status, told, answered = await house.say("/api/v1/route", SMALL, key="k")
        assert (status, "with another request" in told["detail"]) == (409, True)
        assert answered["x-should-retry"] == "false"
        decided = await house.route("decided")
        told = await house.ask("openai", key="decided")
        assert (told.status, told.error["call_id"], told.error["state"]) == (409, decided["call_id"], "running")
        assert PATHS["openai"] == "/v1/chat/completions"


# --- the decision plane -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["open", "settle", "void"])
async def test_a_decision_is_answered_again_as_it_was_however_its_hold_ended_and_after_a_restart(life, tmp_path, end):
    async with life() as house:
        first = await house.route()
        path = f"/api/v1/holds/{first['hold']['id']}/{end}"
        if end != "open":
            assert (await house.say(path, SPENT if end == "settle" else None))[0] == 200
        assert await house.route() == first
    async with life() as house:
        assert await house.route() == first
        status, told, _ = await house.say("/api/v1/route", {**SMALL, "input_tokens": 101}, key="k")
        assert (status, first["call_id"] in told["detail"]) == (409, True)
        assert len(read_disk(tmp_path).holds) == 1


async def test_a_decision_that_is_refused_frees_its_key(life, tmp_path):
    async with life() as house:
        for cap, status in ((0, 429), (100, 201), (0, 201)):
            write_config(tmp_path, catalog_of(house.sim, cap))
            await house.daemon.services.reload(False, False, "admin")
            assert (await house.say("/api/v1/route", SMALL, key="k"))[0] == status
        assert len(read_disk(tmp_path).holds) == 1


@pytest.mark.parametrize(
    ("said", "spelt", "other"),
    [
        (SPENT, {"usage": {"output_tokens": 5, "input_tokens": 50, "cache_read_tokens": 0}}, {"usage": {"input_tokens": 50}}),
        ({"cost_usd": "0.1"}, {"cost_usd": "1E-1"}, {"cost_usd": "0.10000001"}),
        ({"failure": {"status": None}}, {"failure": {"status": None, "body": ""}}, SPENT),
        ({"failure": {"status": 503}}, {"failure": {"status": 503, "headers": {}}}, {"cost_usd": "0"}),
    ],
)
async def test_a_settlement_is_known_again_by_what_it_says_after_a_restart_too(life, tmp_path, said, spelt, other):
    """
    Another spelling of the same is the same, another number is a contradiction.
    """
    async with life() as house:
        hold_id = (await house.route())["hold"]["id"]
        path = f"/api/v1/holds/{hold_id}/settle"
        status, first, _ = await house.say(path, said)
        assert (status, first["replayed"]) == (200, False)
        assert (await house.say(path, spelt))[:2] == (200, {**first, "replayed": True})
        await house.daemon.lane.run(ForgetCooldowns())
    entries = read_disk(tmp_path).entries
    async with life() as house:
        assert (await house.say(path, said))[:2] == (200, {**first, "replayed": True})
        assert (await house.say(path, spelt))[:2] == (200, {**first, "replayed": True})
        status, told, _ = await house.say(path, other)
        assert (status, told["code"]) == (409, "hold_resolved")
    assert read_disk(tmp_path).entries == entries
