"""
Quota endpoints are asked, through a whole daemon and over real sockets: when, how often, with what, and what becomes of an answer.
"""

import asyncio
import json
from datetime import datetime, timedelta

import pytest
from aiohttp import web
from ledger_kit import NOON, Clock
from plane_kit import ADMIN_TOKEN, open_plane
from poll_kit import NOTICED_S, open_endpoints, poller_toml, provider_toml, soon
from structlog.testing import capture_logs
from waiting_kit import until

from quota_router.core.readings import READINGS_KEPT, ReadingUnit, Said
from quota_router.polling.pollers import BODY_MAX_BYTES
from quota_router.store.observing import Observe

CANARY = "CANARY-sk-4b1d"
OTHER_CANARY = "CANARY-own-9e0c"
KEYS = {"KEY_WORK": CANARY, "KEY_HOME": CANARY, "OWN": OTHER_CANARY}
QUOTA = "/quota"
START_S = 3
"""Beyond what chance puts between the first questions."""
SOME_S = 2.5
"""Real time in which a poller would have looked more than once."""


def used(percent, hours=3):
    return {"used": percent, "ends": (NOON + timedelta(hours=hours)).isoformat()}


def quota_toml(url, provider="work", name="plan", **more):
    keys = {"url": url + QUOTA, "share": "/used", "resets_at": "/ends", "scale": "0.01", "unit": "share", "window": "5h"}
    return poller_toml(provider, name, **{**keys, "every_s": 60, **more})


MODEL = '[[models]]\nname = "m"\nattachments = ["work"]\ncost_per_million_input = "1"\ncost_per_million_output = "2"\n'


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def vendor():
    async with open_endpoints() as endpoints:
        endpoints.say(QUOTA, used(40))
        yield endpoints


@pytest.fixture
async def plane(tmp_path, clock, vendor):
    catalog = provider_toml("work", vendor.url) + quota_toml(vendor.url) + MODEL
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        yield plane


async def begin(plane, clock):
    """Let the pollers take the catalog in, and everything be due that they ask first."""
    pollers = plane.daemon.services.pollers
    await until(lambda: soon(lambda: pollers._seen is plane.daemon.lane.catalog), NOTICED_S)
    clock.forward(seconds=START_S)


async def readings(plane):
    return (await plane.read("/api/v1/readings")).body["items"]


async def share(plane):
    return next((found["share"] for found in await readings(plane) if found["window"] == "5h"), None)


async def told(plane, wanted):
    """Wait until that share is believed."""

    async def is_told():
        await asyncio.sleep(0.02)
        return await share(plane) == wanted

    await until(is_told, NOTICED_S)


async def poller(plane, provider="work"):
    return (await plane.read("/api/v1/status")).body["providers"][provider]["pollers"][0]


async def failing(plane, cause, provider="work"):
    """Wait until the poller is said to fail for that; its whole state."""
    state = {}

    async def is_failing():
        await asyncio.sleep(0.02)
        state.update(await poller(plane, provider))
        return state["cause"] == cause

    await until(is_failing, NOTICED_S)
    return state


# --- what becomes of an answer ------------------------------------------------------------------------------------------


async def test_an_endpoint_that_was_only_configured_is_asked_and_what_it_tells_is_shown(plane, vendor, clock):
    await begin(plane, clock)
    await told(plane, 0.4)
    (reading,) = await readings(plane)
    assert reading == {
        "provider": "work",
        "account": "work",
        "window": "5h",
        "model": None,
        "unit": "share",
        "used": None,
        "limit": None,
        "share": 0.4,
        "status": None,
        "resets_at": "2026-11-20T15:00:00.000000Z",
        "observed_at": "2026-11-20T12:00:03.000000Z",
        "source": "poller:plan",
        "stale": False,
    }
    (request,) = vendor.requests
    assert (request.method, request.headers["Authorization"]) == ("GET", f"Bearer {CANARY}")
    assert not {"Cookie", "User-Agent", "Content-Length"} & set(request.headers)


async def test_an_endpoint_is_asked_at_its_interval_and_not_before(plane, vendor, clock):
    await begin(plane, clock)
    await told(plane, 0.4)
    clock.forward(seconds=59)
    await asyncio.sleep(SOME_S)
    assert vendor.count(QUOTA) == 1
    clock.forward(seconds=8)  # the interval and the tenth that chance may add
    await vendor.asked(QUOTA, 2)


async def test_f28_less_headroom_is_believed_at_once_and_more_when_it_was_confirmed_twice(plane, vendor, clock):
    """A feed that jumps down and back must not give headroom away (threats finding 7)."""
    await begin(plane, clock)
    await told(plane, 0.4)
    vendor.say(QUOTA, used(70))
    clock.forward(seconds=67)
    await told(plane, 0.7)
    vendor.say(QUOTA, used(10))
    for times in range(1, READINGS_KEPT + 1):
        clock.forward(seconds=67)
        await vendor.asked(QUOTA, 2 + times)
        await told(plane, 0.7 if times < READINGS_KEPT else 0.1)


async def test_f28_a_refused_call_overrides_an_endpoint_that_promises_headroom(tmp_path, vendor, clock):
    """Two polls after a refusal still say that almost nothing is used; the rung stays out."""
    vendor.say(QUOTA, used(5))

    async def refuse(request):
        window = "anthropic-ratelimit-unified-5h-"
        headers = {window + "status": "rejected", window + "utilization": "1.0", "anthropic-ratelimit-unified-status": "rejected"}
        headers[window + "reset"] = str(int((NOON + timedelta(hours=3)).timestamp()))
        body = {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your limit"}}
        return _json(429, body, {**headers, "retry-after": "60"})

    vendor.say("/v1/messages", refuse)
    catalog = provider_toml("work", vendor.url, vendor="anthropic") + quota_toml(vendor.url) + MODEL
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        await told(plane, 0.05)
        clock.forward(seconds=1)
        asked = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
        assert (await plane.ask("POST", "/v1/messages", asked)).status == 429
        await told(plane, 1.0)
        for times in (2, 3):
            clock.forward(seconds=67)
            await vendor.asked(QUOTA, times)
            await told(plane, 1.0)
        assert (await plane.read("/api/v1/providers/work")).body["status"] == "exhausted"
        rung = (await plane.ask("POST", "/api/v1/route", {"model": "m", "input_tokens": 1, "dry_run": True})).body["rungs"][0]
        assert (rung["status"], rung["reason"]) == ("skipped", "cooldown")


def _json(status, body, headers):
    return web.json_response(body, status=status, headers=headers)


async def test_what_is_used_up_elsewhere_keeps_calls_away(plane, vendor, clock):
    vendor.say(QUOTA, used(100))
    await begin(plane, clock)
    await told(plane, 1.0)
    refused = await plane.ask("POST", "/api/v1/route", {"model": "m", "input_tokens": 1, "dry_run": True})
    assert (refused.status, refused.body["rungs"][0]["reason"]) == (429, "quota_exhausted")
    assert refused.body["retry_after_s"] == 3 * 3600 - START_S


async def test_two_windows_of_one_address_come_with_one_answer(tmp_path, vendor, clock):
    vendor.say("/both", {"five": {"left": 3, "of": 10}, "week": {"part": "0.25"}})
    both = {"url": f"{vendor.url}/both", "every_s": 60}
    catalog = provider_toml("work", vendor.url)
    catalog += poller_toml("work", "five", **both, remaining="/five/left", limit="/five/of", unit="requests", window="5h")
    catalog += poller_toml("work", "week", **both, share="/week/part", unit="share", window="7d")
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        await until(lambda: _are(plane, 2), NOTICED_S)
        found = {item["window"]: item for item in await readings(plane)}
        assert (found["5h"]["used"], found["5h"]["limit"], found["5h"]["source"]) == (7, 10, "poller:five")
        assert (found["7d"]["share"], found["7d"]["source"]) == (0.25, "poller:week")
        assert vendor.count("/both") == 1


async def _are(plane, many):
    await asyncio.sleep(0.02)
    return len(await readings(plane)) == many


async def test_a_known_endpoint_is_asked_with_its_own_headers_and_no_oftener_than_it_takes(tmp_path, vendor, clock):
    """A subscription's endpoint takes the token that the operator gave to the poller, every quarter of an hour at most."""
    vendor.say("/api/oauth/usage", {"five_hour": {"utilization": 11.0, "resets_at": (NOON + timedelta(hours=2)).isoformat()}})
    catalog = provider_toml("work", vendor.url, vendor="anthropic")
    catalog += poller_toml("work", "plan", preset="anthropic-subscription", credential="env:OWN", every_s=10)
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        await told(plane, 0.11)
        headers = vendor.requests[0].headers
        assert (headers["Authorization"], headers["anthropic-beta"]) == (f"Bearer {OTHER_CANARY}", "oauth-2025-04-20")
        assert "x-api-key" not in headers
        state = await poller(plane)
        assert (state["source"], state["every_s"], state["cause"]) == ("poller:plan", 900, None)
        clock.forward(seconds=890)
        await asyncio.sleep(SOME_S)
        assert len(vendor.requests) == 1


# --- whose credential ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('quota_sources = ["anthropic-subscription"]', "a token of the plan"),
        ('quota_sources = ["anthropic-costs"]', "an admin key"),
        (poller_toml("work", "p", preset="anthropic-spend-limits"), "an admin key"),
        (poller_toml("work", "p", preset="anthropic-subscription", credential="env:NOWHERE"), "env:NOWHERE"),
    ],
)
async def test_an_endpoint_that_takes_another_credential_is_never_asked_with_that_of_the_calls(tmp_path, vendor, clock, more, says):
    catalog = provider_toml("work", vendor.url, vendor="anthropic", more=more)
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        state = await failing(plane, "no_credential")
        assert says in state["message"]
        assert (await plane.read("/api/v1/providers/work")).body["status"] == "ok"
    assert vendor.requests == []


async def test_the_key_of_the_calls_does_not_go_to_another_address(tmp_path, vendor, clock):
    async with open_endpoints() as elsewhere:
        elsewhere.say(QUOTA, used(20))
        catalog = provider_toml("work", vendor.url) + quota_toml(elsewhere.url)
        catalog += provider_toml("home", vendor.url) + quota_toml(elsewhere.url, "home", credential="none")
        async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
            await begin(plane, clock)
            await told(plane, 0.2)
            assert "not its provider's own" in (await failing(plane, "no_credential"))["message"]
    assert ["Authorization" in request.headers for request in elsewhere.requests] == [False]


# --- one at a time, and never in the way --------------------------------------------------------------------------------


async def test_an_account_with_two_dialects_is_asked_once_and_one_at_a_time(tmp_path, vendor, clock):
    """An endpoint that hangs is asked no second time, and calls are decided meanwhile."""
    account = 'account = "shared"'
    catalog = provider_toml("work", vendor.url, more=account) + quota_toml(vendor.url, credential="env:OWN")
    catalog += provider_toml("home", vendor.url, vendor="anthropic", more=account)
    catalog += quota_toml(vendor.url, "home", credential="env:OWN") + MODEL

    async def hang(request):
        await vendor.gate.wait()
        return _json(200, used(30), {})

    vendor.say(QUOTA, hang)
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        await vendor.asked(QUOTA, 1)
        clock.forward(seconds=600)
        await asyncio.sleep(SOME_S)
        asked = {"model": "m", "input_tokens": 1, "dry_run": True}
        assert (await plane.ask("POST", "/api/v1/route", asked)).status == 200
        assert (vendor.count(QUOTA), vendor.most[QUOTA]) == (1, 1)
        vendor.gate.set()
        await told(plane, 0.3)
        windows = (await plane.read("/api/v1/status")).body["providers"]
        assert windows["work"]["windows"] == windows["home"]["windows"] != []


async def test_a_daemon_that_starts_again_waits_out_the_interval_of_what_it_was_told(tmp_path, vendor, clock):
    catalog = provider_toml("work", vendor.url) + quota_toml(vendor.url, every_s=600)
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        await told(plane, 0.4)
    clock.forward(seconds=60)
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        assert await share(plane) == 0.4  # what was told outlives the daemon
        await begin(plane, clock)
        await asyncio.sleep(SOME_S)
        assert vendor.count(QUOTA) == 1
        clock.forward(seconds=600)
        await vendor.asked(QUOTA, 2)


async def test_what_another_daemon_of_the_ledger_was_told_is_not_asked_again(plane, vendor, clock):
    """Daemons that share a ledger share what was told, and the endpoint's patience."""
    said = Said(window="5h", unit=ReadingUnit.SHARE, observed_at=clock(), share_ppm=500_000, resets_at=NOON + timedelta(hours=3))
    await plane.daemon.lane.run(Observe(provider="work", account="work", source="poller:plan", said=(said,)))
    await begin(plane, clock)
    await asyncio.sleep(SOME_S)
    assert (await share(plane), vendor.count(QUOTA)) == (0.5, 0)
    clock.forward(seconds=67)
    await vendor.asked(QUOTA, 1)


async def test_a_daemon_ends_while_an_endpoint_hangs(tmp_path, vendor, clock):
    left = asyncio.Event()

    async def hang(request):
        try:
            await vendor.gate.wait()
        finally:
            left.set()

    vendor.say(QUOTA, hang)
    catalog = provider_toml("work", vendor.url) + quota_toml(vendor.url)
    async with asyncio.timeout(NOTICED_S):
        async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
            await begin(plane, clock)
            await vendor.asked(QUOTA, 1)
        await left.wait()


# --- what goes wrong ----------------------------------------------------------------------------------------------------


async def flood(request):
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _ in range(2 * BODY_MAX_BYTES // 65_536):
        await response.write(b" " * 65_536)
    await response.write(json.dumps(used(1)).encode())
    return response


async def hang_up(request):
    request.transport.abort()
    return _json(200, {}, {})


@pytest.mark.parametrize(
    ("answer", "cause", "status"),
    [
        ((401, {}), "auth_failed", 401),
        ((403, {}), "auth_failed", 403),
        ((429, {"Retry-After": "1963"}), "rate_limited", 429),
        ((500, {}), "refused", 500),
        ((204, {}), "refused", 204),
        ((302, {"Location": "/elsewhere"}), "redirected", 302),
        ((307, {"Location": "http://169.254.169.254/latest"}), "redirected", 307),
        ({"used": "much", "ends": None}, "unreadable", None),
        ({}, "unreadable", None),
        (flood, "too_long", None),
        (hang_up, "closed", None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_f27_what_goes_wrong_keeps_the_last_word_and_its_age_and_benches_nobody(plane, vendor, clock, answer, cause, status):
    await begin(plane, clock)
    await told(plane, 0.4)
    vendor.say(QUOTA, answer)
    with capture_logs() as logs:
        clock.forward(seconds=67)
        state = await failing(plane, cause)
        assert (state["status"], state["failures"], state["heard_at"]) == (status, 1, "2026-11-20T12:00:03.000000Z")
        clock.forward(seconds=2 * 2_100)
        await vendor.asked(QUOTA, 3)
        await until(lambda: _is_failed(plane, 2), NOTICED_S)
    warned = [line for line in logs if line["action"] == "poll_failed"]
    assert [(line["cause"], line["source"], line["log_level"]) for line in warned] == [(cause, "poller:plan", "warning")]
    assert "CANARY" not in str(logs)
    assert {request.path for request in vendor.requests} == {QUOTA}
    (reading,) = await readings(plane)
    assert (reading["share"], reading["observed_at"], reading["stale"]) == (0.4, "2026-11-20T12:00:03.000000Z", True)
    assert (await plane.read("/api/v1/providers/work")).body["status"] == "ok"
    vendor.say(QUOTA, used(50))
    with capture_logs() as logs:
        clock.forward(seconds=2_100)
        await told(plane, 0.5)
        assert (await poller(plane))["cause"] is None
    assert [line["action"] for line in logs if line["action"].startswith("poll_")] == ["poll_recovered"]


async def _is_failed(plane, times):
    await asyncio.sleep(0.02)
    return (await poller(plane))["failures"] == times


async def test_waits_grow_while_an_endpoint_fails(plane, vendor, clock):
    vendor.say(QUOTA, (503, {}))
    await begin(plane, clock)
    waits = []
    for times in range(1, 5):
        await vendor.asked(QUOTA, times)
        await until(lambda times=times: _is_failed(plane, times), NOTICED_S)
        due = (await poller(plane))["due_at"]
        waits.append((datetime.fromisoformat(due) - clock()).total_seconds())
        clock.now = datetime.fromisoformat(due)
    assert [60 * 2**n <= wait_s <= 60 * 2**n + 6 for n, wait_s in enumerate(waits)] == [True] * 4


async def test_an_endpoint_that_says_when_is_asked_then(plane, vendor, clock):
    """A wait of half an hour is neither shortened nor doubled."""
    vendor.say(QUOTA, (429, {"Retry-After": "1963"}))
    await begin(plane, clock)
    await failing(plane, "rate_limited")
    clock.forward(seconds=1960)
    await asyncio.sleep(SOME_S)
    assert vendor.count(QUOTA) == 1
    vendor.say(QUOTA, used(40))
    clock.forward(seconds=10)
    await told(plane, 0.4)


async def test_an_address_that_the_policy_forbids_is_not_connected_to(tmp_path, vendor, clock):
    catalog = provider_toml("work", vendor.url) + quota_toml("http://169.254.169.254", credential="env:OWN")
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        await begin(plane, clock)
        await failing(plane, "network_refused")


async def test_a_secret_is_shown_nowhere(plane, vendor, clock):
    """An endpoint that repeats what it was sent, in body, header and reason, is not repeated."""

    async def echo(request):
        sent = request.headers["Authorization"]
        return _json(400, {"error": sent}, {"x-echo": sent, "WWW-Authenticate": sent})

    with capture_logs() as logs:
        for answer in (echo, (302, {"Location": f"/?key={CANARY}"}), {"used": CANARY}):
            vendor.say(QUOTA, answer)
            clock.forward(hours=2)
            await vendor.asked(QUOTA, vendor.count(QUOTA) + 1)
            await until(lambda: _is_settled(plane), NOTICED_S)
    shown = [await plane.read(f"/api/v1/{path}") for path in ("status", "readings", "cooldowns", "providers")]
    assert logs
    assert "CANARY" not in str(logs) + str(shown)


async def _is_settled(plane):
    await asyncio.sleep(0.02)
    return all(watch.task is None for watch in plane.daemon.services.pollers.watched)


# --- the catalog moves on -----------------------------------------------------------------------------------------------


async def test_an_edit_of_the_catalog_starts_and_stops_what_is_asked(plane, vendor, clock):
    await begin(plane, clock)
    await told(plane, 0.4)
    text = plane.file.read_text()
    vendor.say("/other", used(9))

    async def reload(wanted):
        plane.file.write_text(wanted)
        assert (await plane.ask("POST", "/api/v1/reload", {}, token=ADMIN_TOKEN)).status == 200

    with capture_logs() as logs:
        await reload(text.replace(QUOTA, "/other"))
        await begin(plane, clock)
        clock.forward(seconds=67)  # what it told before was the same window: the interval holds
        await vendor.asked("/other", 1)
        await reload(text.replace("[providers.work]", "[providers.work]\nenabled = false"))
        await begin(plane, clock)
        assert plane.daemon.services.pollers.watched == ()
        clock.forward(hours=1)
        await asyncio.sleep(SOME_S)
    assert (vendor.count(QUOTA), vendor.count("/other")) == (1, 1)
    moved = [line["action"] for line in logs if line["action"].startswith("poller_")]
    assert moved == ["poller_started", "poller_stopped", "poller_stopped"]


async def test_a_credential_that_is_mended_is_used_at_the_next_interval_not_after_an_hour(plane, vendor, clock):
    """Each poll resolves its credential anew."""
    vendor.say(QUOTA, (401, {}))
    await begin(plane, clock)
    await failing(plane, "auth_failed")
    for times in (2, 3, 4):
        clock.forward(hours=2)
        await until(lambda times=times: _is_failed(plane, times), NOTICED_S)
    text = plane.file.read_text()
    plane.file.write_text(text.replace('name = "plan"', 'name = "plan"\ncredential = "env:OWN"'))
    assert (await plane.ask("POST", "/api/v1/reload", {}, token=ADMIN_TOKEN)).status == 200
    vendor.say(QUOTA, used(40, hours=30))
    clock.forward(seconds=67)
    await told(plane, 0.4)
    assert vendor.requests[-1].headers["Authorization"] == f"Bearer {OTHER_CANARY}"
