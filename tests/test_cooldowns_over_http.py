"""Cooldowns over HTTP: cleared by the operator, and put on the trail."""

from datetime import timedelta

import pytest
from ledger_kit import NOON, Clock, SetCooldowns
from plane_kit import TOKENS, open_plane

from quota_router.core.health import Cooldown, CooldownSource, FailureKind, Probe

CATALOG = """
[providers.one]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[models]]
name = "lab/m"
provider = "one"
"""
UNTIL = NOON + timedelta(minutes=5)
WHOLE = Cooldown(
    provider="one",
    model="",
    until=UNTIL + timedelta(minutes=1),
    source=CooldownSource.ASSUMED,
    cause=FailureKind.TRANSIENT,
    failures=6,
    strikes=5,
    probe=Probe(hold_id="h", until=UNTIL),
)
RUNG = Cooldown(provider="one", model="lab/m", until=UNTIL, source=CooldownSource.SAID, cause=FailureKind.RATE_LIMITED, failures=1)
SHOWN = [
    {
        "provider": "one",
        "model": None,
        "state": "probing",
        "until": "2026-11-20T12:06:00.000000Z",
        "source": "assumed",
        "cause": "transient",
        "failures": 6,
        "breaker_open": True,
        "probed_until": "2026-11-20T12:05:00.000000Z",
    },
    {
        "provider": "one",
        "model": "lab/m",
        "state": "cooling",
        "until": "2026-11-20T12:05:00.000000Z",
        "source": "said",
        "cause": "rate_limited",
        "failures": 1,
        "breaker_open": False,
        "probed_until": None,
    },
]


async def cool(plane):
    await plane.daemon.lane.run(SetCooldowns(cooldowns=(RUNG, WHOLE)))


async def listed(plane):
    told = await plane.read("/api/v1/cooldowns")
    assert told.status == 200
    return told.body["items"]


@pytest.fixture
async def plane(tmp_path, database):
    async with open_plane(tmp_path, CATALOG, Clock()) as plane:
        await cool(plane)
        yield plane


async def test_a_cleared_rung_takes_the_next_call_and_the_clearing_stands_on_the_trail(plane):
    """
    Whoever mended what was broken need not wait; a provider of the file is cleared as any other.
    """
    asked = {"model": "lab/m"}
    assert (await plane.ask("POST", "/api/v1/route", asked)).body["rungs"][0]["reason"] == "breaker_open"
    told = await plane.admin("DELETE", "cooldowns/one")
    assert (told.status, told.body) == (200, {"cleared": SHOWN[0]})
    assert (await plane.ask("POST", "/api/v1/route", asked)).body["rungs"][0]["reason"] == "cooldown"
    told = await plane.admin("DELETE", "cooldowns/one/lab%2Fm")
    assert (told.status, told.body, await listed(plane)) == (200, {"cleared": SHOWN[1]}, [])
    assert (await plane.ask("POST", "/api/v1/route", asked)).status == 201
    trail = (await plane.admin("GET", "audit?kind=cooldown")).body["items"]
    assert [(line["action"], line["name"], line["before"], line["after"], line["admin"]) for line in trail] == [
        ("cleared", "lab/m/one", SHOWN[1], None, "admin"),
        ("cleared", "one", SHOWN[0], None, "admin"),
    ]


async def test_what_is_cleared_stays_cleared_when_the_daemon_starts_again(tmp_path, database):
    async with open_plane(tmp_path, CATALOG, Clock()) as plane:
        await cool(plane)
        await plane.admin("DELETE", "cooldowns/one")
    async with open_plane(tmp_path, CATALOG, Clock()) as plane:
        assert await listed(plane) == SHOWN[1:]


@pytest.mark.parametrize("path", ["two", "one/lab%2Fn", "lab%2Fm/one", "%00", "one/%00", "one/%ff", "%F0%9F%98%80"])
async def test_what_does_not_cool_is_not_cleared(plane, path):
    told = await plane.admin("DELETE", f"cooldowns/{path}")
    assert (told.status, told.body["code"], await listed(plane)) == (404, "not_found", SHOWN)
    assert (await plane.admin("GET", "audit?kind=cooldown")).body["items"] == []


async def test_clearing_twice_finds_nothing_the_second_time(plane):
    statuses = [(await plane.admin("DELETE", "cooldowns/one")).status for _ in range(2)]
    assert statuses == [200, 404]


async def test_a_reader_may_look_and_not_clear(plane):
    assert (await plane.ask("GET", "/api/v1/cooldowns", token=TOKENS["ci"])).status == 403
    assert (await plane.ask("DELETE", "/api/v1/cooldowns/one", token=TOKENS["reader"])).status == 403
    assert await listed(plane) == SHOWN
