"""A provider's `vendor` says how its errors are read, on every way that an error comes in."""

from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from between_kit import Between, model_toml
from daemon_kit import open_here, provider_toml

from quota_router.simulator import Account, Fault, FaultKind, Refusal, Simulator

PLAN_EXPIRED = "1309"
"""z.ai's number; the status beside it says something else each time."""


@asynccontextmanager
async def opened(folder, vendor):
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key="first"), Account(key="second")]))
        providers = "".join(provider_toml(name, sim.openai_base_url, vendor=vendor) for name in ("first", "second"))
        catalog = providers + model_toml("chat", "first", "second")
        keys = {"KEY_FIRST": "first", "KEY_SECOND": "second"}
        daemon = await stack.enter_async_context(open_here(folder, catalog, **keys))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Between(daemon=daemon, sim=sim, http=http)


@pytest.mark.parametrize(("vendor", "kind"), [("zai", "billing"), ("openai", "client_error")])
@pytest.mark.parametrize(
    ("step", "stream"),
    [
        (Refusal(status=400, code=PLAN_EXPIRED), False),
        (Fault(kind=FaultKind.ERROR_IN_200, status=400, code=PLAN_EXPIRED), False),
        (Fault(kind=FaultKind.ERROR_IN_STREAM, status=400, code=PLAN_EXPIRED), True),
    ],
    ids=["status", "whole", "stream"],
)
async def test_a_number_of_the_vendors_own_is_read_by_his_table(tmp_path, vendor, kind, step, stream):
    async with opened(tmp_path, vendor) as between:
        between.script("first", step)
        told = await between.ask("chat", stream=stream)
        attempts = (await between.story(told))["attempts"]
    assert attempts[0]["failure"] == kind
    assert told.ours("provider") == ("second" if kind == "billing" else "first")


@pytest.mark.parametrize(("vendor", "kind"), [("zai", "billing"), ("openai", "rate_limited")])
async def test_a_caller_who_calls_himself_has_his_failure_read_alike(tmp_path, vendor, kind):
    async with opened(tmp_path, vendor) as between:
        routed = (await between.send("/api/v1/route", b'{"model": "chat", "input_tokens": 5, "max_output_tokens": 5}')).json
        said = b'{"failure": {"status": 429, "headers": {}, "body": {"error": {"code": "1309", "message": "x"}}}}'
        settled = await between.send(f"/api/v1/holds/{routed['hold']['id']}/settle", said)
        cooldowns = between.daemon.lane.state.cooldowns
    assert settled.json["state"] == "voided"
    assert [cooldown.cause for cooldown in cooldowns.values()] == [kind]
