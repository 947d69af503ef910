"""
Budgets and quotas, through a real daemon process: what is refused never reaches an upstream, and what is spent stays under its cap.
"""

import asyncio
import hashlib
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from caller_kit import INPUT_NUSD, MAX_TOKENS, OUTPUT_NUSD, Told, ask, asked, budget_toml, model_toml, open_http, post
from daemon_kit import AUTH, Process, get, open_process, provider_toml

from quota_router.simulator import Account, Fault, FaultKind, Reply, Simulator

CALLS, GRANTED = 120, 37
CI_TOKEN, GONE_TOKEN = "qr-ci", "qr-gone"
NOTICED_S = 10
"""A signal has been acted on by then."""
PROVIDERS = {
    "work": "openai",
    "claude": "anthropic",
    "quoted": "openai",
    "capped": "openai",
    "spare": "openai",
    "quoted-claude": "anthropic",
    "capped-claude": "anthropic",
    "spare-claude": "anthropic",
}
SUFFIX = {"openai": "", "anthropic": "-claude"}
CAP_USD = "0.0137"
CAP_NUSD = 13_700_000
"""Enough for some ten calls, and no multiple of one."""

CATALOG = "".join(
    (
        model_toml("counted", "work"),
        model_toml("counted-claude", "claude"),
        budget_toml("requests", "model:counted", "requests", str(GRANTED)),
        budget_toml("requests-claude", "model:counted-claude", "requests", str(GRANTED)),
        model_toml("usd", "work"),
        model_toml("usd-claude", "claude"),
        budget_toml("usd", "model:usd", "usd", CAP_USD),
        budget_toml("usd-claude", "model:usd-claude", "usd", CAP_USD),
        model_toml("moving", "quoted", "capped", "spare"),
        model_toml("moving-claude", "quoted-claude", "capped-claude", "spare-claude"),
        budget_toml("capped", "provider:capped", "usd", "0.01", window="day"),
        budget_toml("capped-claude", "provider:capped-claude", "requests", "1"),
        model_toml("places", "work"),
        budget_toml("places", "model:places", "concurrency", "2", window="forever"),
        model_toml("open", "work", "spare"),
        budget_toml("docs", "label:docs", "requests", "2"),
        budget_toml("ci", "caller:ci", "requests", "3"),
        budget_toml("watched", "everyone", "requests", "1", enforcement="advisory"),
        '[[callers]]\nname = "ci"\ntoken_sha256 = "' + hashlib.sha256(CI_TOKEN.encode()).hexdigest() + '"\n',
    )
)
GONE_TOML = '[[callers]]\nname = "gone"\ntoken_sha256 = "' + hashlib.sha256(GONE_TOKEN.encode()).hexdigest() + '"\n'
QUOTA = '[[providers.{0}.quotas]]\nunit = "requests"\nlimit = 2\nwindow = "5h"\nanchor = "first_use"\nenforcement = "strict"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    daemon: Process
    sim: Simulator
    http: aiohttp.ClientSession
    file: Path

    async def ask(self, dialect: str, model: str, **how: Any) -> Told:
        return await ask(self.http, self.daemon.url, dialect, model, **how)

    def arrived(self, model: str) -> int:
        return sum(request.model == model for request in self.sim.requests)

    async def limit(self, name: str) -> dict[str, Any]:
        items = (await get(self.daemon.url, "/api/v1/limits"))["items"]
        return next(item for item in items if item["name"] == name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory, module_database):
    folder = tmp_path_factory.mktemp("budgets")
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(Simulator([Account(key=name) for name in PROVIDERS]))
        urls = {"openai": sim.openai_base_url, "anthropic": sim.anthropic_base_url}
        catalog = "".join(
            provider_toml(name, urls[vendor], vendor=vendor, more=QUOTA.format(name) if name.startswith("quoted") else "")
            for name, vendor in PROVIDERS.items()
        )
        keys = {f"KEY_{name.upper().replace('-', '_')}": name for name in PROVIDERS}
        daemon = await stack.enter_async_context(open_process(folder, catalog + CATALOG + GONE_TOML, **keys))
        http = await stack.enter_async_context(open_http())
        yield House(daemon=daemon, sim=sim, http=http, file=folder / "quota-router.toml")


@pytest.fixture
def house(shared):
    """The one daemon, and an upstream that answers as it should."""
    shared.sim.reset()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")
dialects = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


@dialects
async def test_120_calls_at_once_against_37_requests_send_37_and_refuse_83_truly(house, dialect):
    model = f"counted{SUFFIX[dialect]}"
    told = await asyncio.gather(*(house.ask(dialect, model, stream=number % 2 == 0) for number in range(CALLS)))
    assert Counter(answer.status for answer in told) == {200: GRANTED, 429: CALLS - GRANTED}
    assert house.arrived(model) == GRANTED

    limit = await house.limit(f"requests{SUFFIX[dialect]}")
    assert (limit["posted"], limit["held"], limit["remaining"]) == (GRANTED, 0, 0)
    now = datetime.now(UTC)
    next_month = (now.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(limit["window_end"]) == next_month
    until_then_s = (next_month - now).total_seconds()
    for answer in (answer for answer in told if answer.status == 429):
        error = answer.error
        assert error["code"] == "insufficient_quota"
        assert error["type"] == {"openai": "insufficient_quota", "anthropic": "rate_limit_error"}[dialect]
        assert until_then_s <= int(answer.headers["Retry-After"]) <= until_then_s + 60
        assert answer.headers["x-should-retry"] == "false"
        assert [rung["reason"] for rung in error["rungs"]] == ["over_budget"]


@dialects
async def test_120_calls_at_once_never_spend_more_than_a_strict_cap_in_usd(house, dialect):
    """
    Also when each answer uses all that its bound allows: each byte of the body a token, and the stated output cap.
    """
    name = f"usd{SUFFIX[dialect]}"
    bytes_sent = len(asked(name))
    bound_nusd = bytes_sent * INPUT_NUSD + MAX_TOKENS * OUTPUT_NUSD
    fits = CAP_NUSD // bound_nusd
    house.sim.script(None, Reply(input_tokens=bytes_sent, output_tokens=MAX_TOKENS, times=None))
    told = await asyncio.gather(*(house.ask(dialect, name) for _ in range(CALLS)))
    assert Counter(answer.status for answer in told) == {200: fits, 429: CALLS - fits}
    assert house.arrived(name) == fits

    limit = await house.limit(name)
    entries = (await get(house.daemon.url, f"/api/v1/entries?limit=1000&model={name}"))["items"]
    assert limit["posted"] == sum(entry["cost_nusd"] for entry in entries) == fits * bound_nusd
    assert (limit["held"], limit["limit"]) == (0, CAP_USD)
    for answer in (answer for answer in told if answer.status == 429):
        (rung,) = answer.error["rungs"]
        assert (rung["reason"], rung["detail"]["cap"], rung["detail"]["needed"]) == ("over_budget", CAP_NUSD, bound_nusd)
        assert rung["detail"]["posted"] + rung["detail"]["held"] <= CAP_NUSD
        assert answer.headers["x-should-retry"] == "false"


@dialects
async def test_row_0_3_a_providers_own_quota_and_budget_move_calls_to_the_next_rung(house, dialect):
    suffix = SUFFIX[dialect]
    quoted, capped, spare = (f"{name}{suffix}" for name in ("quoted", "capped", "spare"))
    # One call uses 0.0099 of the 0.01 USD that its provider may take a day; the other dialect counts requests.
    house.sim.script(capped, Reply(input_tokens=3_300, output_tokens=0))
    told = [await house.ask(dialect, f"moving{suffix}") for _ in range(4)]
    assert [answer.provider for answer in told] == [quoted, quoted, capped, spare]
    exhausted = f"{quoted}=quota_exhausted"
    assert [answer.skipped for answer in told] == [None, None, exhausted, f"{exhausted},{capped}=over_budget"]


async def test_a_place_is_free_again_when_a_call_ends(house):
    """
    Nobody knows when a place becomes free, so the caller is told no time and not to retry by itself.
    """
    house.sim.script("work", Fault(kind=FaultKind.HEARTBEATS, after_chunks=1, delay_s=0.005, times=2))
    running = [await post(house.http, house.daemon.url, "openai", "places", stream=True) for _ in range(2)]
    refused = await house.ask("openai", "places")
    assert (refused.status, refused.skipped) == (429, "work=concurrency_full")
    assert (refused.error["code"], refused.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert "Retry-After" not in refused.headers
    running[0].close()
    async with asyncio.timeout(NOTICED_S):
        while (await house.limit("places"))["held"] == 2:
            pass
    assert (await house.ask("openai", "places")).status == 200
    running[1].close()
    await house.sim.quiet()


async def test_a_labels_budget_counts_the_calls_that_carry_it(house):
    told = [await house.ask("openai", "open", x_quota_router_labels=labels) for labels in ("docs", "x,docs", "a, docs", "x")]
    assert [answer.status for answer in told] == [200, 200, 429, 200]
    assert told[2].skipped == "work=over_budget,spare=over_budget"
    assert {rung["detail"]["limit"] for rung in told[2].error["rungs"]} == {"docs"}


async def test_a_callers_budget_counts_what_its_token_sent(house):
    own = {"Authorization": f"Bearer {CI_TOKEN}"}
    told = [await house.ask("openai", "open", **own) for _ in range(4)]
    assert [answer.status for answer in told] == [200, 200, 200, 429]
    assert told[3].error["rungs"][0]["detail"]["limit"] == "ci"
    assert (await house.ask("openai", "open")).status == 200
    story = await get(house.daemon.url, f"/api/v1/calls/{told[0].call_id}")
    assert story["caller"] == "ci"
    async with house.http.get(f"{house.daemon.url}/api/v1/usage", headers=own) as answer:
        assert answer.status == 403


async def test_a_token_is_refused_once_its_caller_is_gone_from_the_file(house):
    own = {"x-api-key": GONE_TOKEN, "Authorization": ""}
    assert (await house.ask("openai", "open", **own)).status == 200
    house.file.write_text(house.file.read_text().replace(GONE_TOML, ""))
    house.daemon.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(NOTICED_S):
        while (told := await house.ask("openai", "open", **own)).status == 200:
            pass
    assert (told.status, told.error["code"]) == (401, "invalid_api_key")
    assert (await house.ask("openai", "open", **AUTH)).status == 200


async def test_an_advisory_budget_far_beyond_its_cap_refuses_nobody(house):
    assert (await house.ask("openai", "open")).status == 200
    watched = await house.limit("watched")
    assert (watched["limit"], watched["remaining"], watched["enforcement"]) == (1, 0, "advisory")
    assert watched["posted"] > GRANTED
