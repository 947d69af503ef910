"""quota_router inside another program: the same ledger, the same decisions, and no socket."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from daemon_kit import environ, provider_toml, write_config
from waiting_kit import until

import quota_router
from quota_router import InProcess, RouterContext, RoutingRequest, RoutingResult
from quota_router.errors import ConfigError, InvalidRequest, LedgerLocked, NoUsableProvider, UnknownModel, UpstreamRefused
from quota_router.simulator import Account, Refusal, Reply, Simulator

INPUT_NUSD, OUTPUT_NUSD = 3_000, 15_000
MODELS = """
[[models]]
name = "chat"
attachments = ["one", "two"]
cost_per_million_input = "3"
cost_per_million_output = "15"
[[models]]
name = "claude"
provider = "three"
cost_per_million_input = "3"
cost_per_million_output = "15"
[[models]]
name = "small"
provider = "one"
cost_per_million_input = "3"
cost_per_million_output = "15"
[[callers]]
name = "ci"
token_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
[[callers]]
name = "free"
token_sha256 = "1111111111111111111111111111111111111111111111111111111111111111"
[[budgets]]
name = "ci-calls"
subject = "caller:ci"
unit = "requests"
limit = 1
window = "forever"
enforcement = "strict"
[routing]
default_model = "chat"
"""


@pytest.fixture
async def sim():
    async with Simulator([Account(key=name) for name in ("one", "two", "three")]) as sim:
        yield sim


def file_of(folder: Path, sim: Simulator, more: str = "") -> Path:
    catalog = provider_toml("one", sim.openai_base_url) + provider_toml("two", sim.openai_base_url)
    catalog += provider_toml("three", sim.anthropic_base_url, vendor="anthropic")
    return write_config(folder, catalog + MODELS + more, 'durability = "process"\n')


@asynccontextmanager
async def opened(folder: Path, sim: Simulator, more: str = "", **options: Any) -> AsyncIterator[InProcess]:
    env = environ(folder, KEY_ONE="one", KEY_TWO="two", KEY_THREE="three")
    async with quota_router.open_router(file_of(folder, sim, more), environ=env, **options) as router:
        yield router


async def entries(router: InProcess, call_id: str) -> list[dict[str, Any]]:
    return [dict(entry) for entry in (await router.story(call_id))["entries"]]


# --- row 4.2: without HTTP --------------------------------------------------------------------------------------------------


async def test_row_4_2_a_decision_is_held_and_settled_in_process(database, tmp_path, sim):
    async with opened(tmp_path, sim) as router:
        held = await router.route("chat", input_tokens=1_000, max_output_tokens=500, labels=["docs"])
        assert (held.model, held.provider.name, held.upstream_model, held.base_url) == ("chat", "one", "chat", sim.openai_base_url)
        assert [rung.status for rung in held.rungs] == ["chosen", "eligible"]
        booked = await held.settle(input_tokens=900, output_tokens=100)
        again = await held.settle(input_tokens=900, output_tokens=100)
        assert booked.cost_nusd == 900 * INPUT_NUSD + 100 * OUTPUT_NUSD
        assert (booked.replayed, again.replayed) == (False, True)
        story = await router.story(held.call_id)
        assert (story["state"], story["labels"], story["cost_nusd"]) == ("done", ["docs"], booked.cost_nusd)
    assert sim.requests == []


async def test_row_4_2_a_hold_may_be_voided_extended_failed_and_settled_at_a_cost(tmp_path, sim):
    async with opened(tmp_path, sim) as router:
        voided = await router.route("chat")
        assert (await voided.void()).state == "voided"
        kept = await router.route("chat")
        assert (await kept.extend(3_600)).expires_at > kept.hold.expires_at
        assert (await kept.settle_cost("0.25")).cost_nusd == 250_000_000
        failed = await router.route("chat")
        assert (await failed.fail(429, headers={"Retry-After": "30"})).state == "voided"
        assert (await router.route("chat")).provider.name == "two"


async def test_row_4_2_a_call_without_http_is_held_and_booked_like_any(database, tmp_path, sim):
    sim.script("one", Refusal(status=503))
    sim.script("two", Reply(text="hello", input_tokens=10, output_tokens=5))
    async with opened(tmp_path, sim) as router:
        answered = await router.send("chat", {"model": "chat", "messages": [{"role": "user", "content": "hi"}]})
        assert (answered.status, answered.provider, answered.headers["x-quota-router-skipped"]) == (200, "two", "one=already_tried")
        assert answered.cost_usd == "0.000105"
        story = await router.story(answered.call_id)
        assert [attempt["provider"] for attempt in story["attempts"]] == ["one", "two"]
        assert story["cost_nusd"] == 10 * INPUT_NUSD + 5 * OUTPUT_NUSD


@pytest.mark.parametrize(("model", "provider"), [("chat", "one"), ("claude", "three")])
async def test_row_4_2_a_question_is_asked_in_the_dialect_of_its_model(tmp_path, sim, model, provider):
    sim.script(provider, Reply(text="four"))
    async with opened(tmp_path, sim) as router:
        assert await router.ask(model, "What is 2 + 2?", system="Be brief.", max_output_tokens=9) == "four"
    sent = sim.requests[0].json()
    assert ("system" in sent, sent.get("max_tokens"), sent.get("max_completion_tokens")) == (
        (False, None, 9) if model == "chat" else (True, 9, None)
    )


async def test_what_an_upstream_refuses_comes_back_as_its_own_answer_and_as_an_error_of_a_question(tmp_path, sim):
    sim.script("one", Refusal(status=400, message="bad"), Refusal(status=400, message="bad"))
    async with opened(tmp_path, sim) as router:
        answered = await router.send("chat", b'{"model": "chat", "messages": []}')
        assert answered.status == 400
        with pytest.raises(UpstreamRefused, match="status 400"):
            await router.ask("chat", "?")


async def test_a_caller_of_the_catalog_is_counted_against_its_own_budgets(tmp_path, sim):
    async with opened(tmp_path, sim) as router:
        await router.route("chat", caller="ci")
        with pytest.raises(NoUsableProvider) as caught:
            await router.route("chat", caller="ci")
        assert {rung["reason"] for rung in caught.value.rungs} == {"over_budget"}
        with pytest.raises(NoUsableProvider):
            await router.explain("chat", caller="ci")
        assert (await router.explain("chat")).candidate.provider.name == "one"
        with pytest.raises(InvalidRequest, match="caller 'cy' is not known: write one of 'ci'"):
            await router.route("chat", caller="cy")


async def test_what_is_unknown_is_said_as_over_http(tmp_path, sim):
    async with opened(tmp_path, sim) as router:
        for ask in (router.route("gone"), router.ask("gone", "?"), router.send("chat", {"model": "gone", "messages": []})):
            with pytest.raises(UnknownModel):
                await ask
        with pytest.raises(InvalidRequest, match="sends nothing"):
            await router.send("route", {})


async def test_nothing_listens_no_token_is_made_and_one_process_has_the_ledger(tmp_path, sim):
    async with opened(tmp_path, sim) as router:
        assert (router._daemon.url, router._daemon.sites) == ("", [])
        assert list((tmp_path / "xdg-state").rglob("admin-token")) == []
        with pytest.raises(LedgerLocked):
            async with opened(tmp_path, sim):
                pass


async def test_a_call_under_way_ends_before_the_ledger_closes(tmp_path, sim):
    sim.script("one", Reply(text="late", first_byte_delay_s=0.2))
    async with opened(tmp_path, sim) as router:
        task = asyncio.create_task(router.ask("chat", "?"))

        async def is_asked() -> bool:
            await asyncio.sleep(0)
            return bool(sim.requests)

        await until(is_asked, 5)
    assert await task == "late"


# --- row 4.3: a router that asks a model ------------------------------------------------------------------------------------


async def by_topic(request: RoutingRequest, context: RouterContext) -> RoutingResult:
    topic = await context.call("small", f"Topic? {request.body.get('input')}", max_output_tokens=3)
    return RoutingResult("claude", reason=f"about {topic} for {context.metadata['tenant']}", confidence=0.5)


async def test_row_4_3_a_router_asks_a_model_and_its_call_is_booked_on_the_same_caller(tmp_path, sim):
    sim.script("one", Reply(text="code", input_tokens=7, output_tokens=1))
    async with opened(tmp_path, sim, routers=[by_topic], metadata={"tenant": "x"}) as router:
        held = await router.route("chat", labels=["a"], caller="free")
        assert (held.router, held.reason, held.model) == ("by_topic", "about code for x", "claude")
        page = await router.ledger.entries(limit=10)
        (entry,) = page["items"]
        assert (entry["caller"], entry["labels"], entry["model"]) == ("free", ["a", "asked-by:router"], "small")
        assert entry["cost_nusd"] == 7 * INPUT_NUSD + OUTPUT_NUSD


async def test_row_4_3_a_router_whose_model_cannot_answer_has_said_not_mine(tmp_path, sim):
    sim.script("one", Refusal(status=500))
    async with opened(tmp_path, sim, routers=[by_topic], metadata={"tenant": "x"}) as router:
        held = await router.route("chat")
        assert (held.router, held.model) == (None, "chat")


async def test_row_4_3_no_router_is_asked_about_a_routers_call_and_a_dry_run_spends_nothing(tmp_path, sim):
    async with opened(tmp_path, sim, routers=[by_topic], metadata={"tenant": "x"}) as router:
        assert (await router.explain("chat")).candidate.way.router is None
        assert sim.requests == []
        sim.script("one", Reply(text="code"))
        held = await router.route("chat")
        assert (held.router, held.reason, held.confidence, held.model) == ("by_topic", "about code for x", 0.5, "claude")
    assert len(sim.requests) == 1


# --- the file's routers -----------------------------------------------------------------------------------------------------


@pytest.fixture
def forget_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


ROUTERS = "from quota_router import chain, explicit\nfirst = explicit('claude')\nsecond = explicit('small')\n"


async def test_routers_of_the_file_are_loaded_at_start_and_exchanged_at_a_reload_that_holds(tmp_path, sim, forget_modules):
    (tmp_path / "file_routers.py").write_text(ROUTERS)
    file = file_of(tmp_path, sim)
    async with opened(tmp_path, sim, 'routers = ["file_routers:first"]\n') as router:
        daemon = router._daemon

        def names():
            return [own.name for own in daemon.own.routers]

        assert (names(), daemon.lane.catalog.routers) == (["file_routers:first"], ("file_routers:first",))
        text = file.read_text()
        file.write_text(text.replace("file_routers:first", "file_routers:secnd"))
        with pytest.raises(ConfigError) as caught:
            await daemon.services.reload(False, False, "admin")
        assert [word for word in (str(file), "line ", "routing.routers[0]", "'second'") if word not in caught.value.message] == []
        assert (names(), daemon.lane.catalog.routers) == (["file_routers:first"], ("file_routers:first",))
        file.write_text(text.replace("file_routers:first", "file_routers:second"))
        await daemon.services.reload(True, False, "admin")
        assert names() == ["file_routers:first"]
        await daemon.services.reload(False, False, "admin")
        assert (names(), daemon.lane.catalog.routers) == (["file_routers:second"], ("file_routers:second",))


async def test_a_router_that_cannot_be_loaded_stops_the_start_before_the_ledger_is_touched(tmp_path, sim, forget_modules):
    with pytest.raises(
        ConfigError, match=r"quota-router\.toml, line \d+, routing\.routers\[0\]: router 'nowhere:x' cannot be imported"
    ):
        async with opened(tmp_path, sim, 'routers = ["nowhere:x"]\n'):
            pass
    assert list(tmp_path.rglob("*.db")) == []
