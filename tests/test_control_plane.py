"""The control plane of a whole daemon: what an operator reads, and how the catalog is made what a file says."""

import asyncio
import re
from datetime import timedelta

import pytest
import pytest_asyncio
from ledger_kit import NOON, Clock, SetCooldowns
from plane_kit import ADMIN_TOKEN, CALLERS, TOKENS, open_plane

from quota_router.core.health import Cooldown, CooldownSource, FailureKind
from quota_router.store.survey import Survey
from quota_router.web.app import all_routes
from quota_router.web.routes import Scope

CATALOG = """
[providers.one]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "env:ONE_KEY"
account = "shared"
display_name = "One"
description = "the first"
[[providers.one.quotas]]
unit = "tokens"
limit = 1000
window = "5h"
anchor = "first_use"
[providers.two]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[models]]
name = "lab/m"
attachments = ["one", { provider = "two", weight = 3, upstream_model = "m-2" }]
aliases = ["m"]
fallbacks = ["n"]
capabilities = ["code"]
context_tokens = 1000
max_output_tokens = 100
cost_per_million_input = "1"
cost_per_million_output = "2"
[[models]]
name = "n"
provider = "two"
cost_per_million_input = "1"
cost_per_million_output = "2"
[[budgets]]
name = "month"
subject = "everyone"
unit = "usd"
limit = "0.5"
window = "month"
timezone = "Europe/Berlin"
enforcement = "strict"
"""
KEYS = {"ONE_KEY": "sk-one"}
ASKED = {"model": "m", "input_tokens": 100, "max_output_tokens": 10}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def plane(tmp_path, clock, database):
    async with open_plane(tmp_path, CATALOG, clock, KEYS) as plane:
        yield plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    """One daemon for whoever only reads."""
    async with open_plane(tmp_path_factory.mktemp("shared"), CATALOG, Clock(), KEYS) as plane:
        yield plane


shares = pytest.mark.asyncio(loop_scope="module")


async def spend(plane, **changes):
    told = await plane.ask("POST", "/api/v1/route", {**ASKED, **changes})
    await plane.ask("POST", f"/api/v1/holds/{told.body['hold']['id']}/settle", {"usage": {"input_tokens": 50, "output_tokens": 5}})
    return told.body


async def read(plane, path):
    told = await plane.read(f"/api/v1/{path}")
    assert told.status == 200, told
    return told.body


# --- providers and models -----------------------------------------------------------------------------------------------


@shares
async def test_a_provider_is_told_in_the_shape_of_the_contract(shared):
    page = await read(shared, "providers")
    assert page["next"] is None
    assert [item["name"] for item in page["items"]] == ["one", "two"]
    assert page["items"][0] == await read(shared, "providers/one")
    assert page["items"][0] == {
        "name": "one",
        "display_name": "One",
        "description": "the first",
        "family": "openai",
        "vendor": "openai",
        "account": "shared",
        "base_url": "http://127.0.0.1:9/v1",
        "enabled": True,
        "has_credential": True,
        "network": "loopback",
        "allow": [],
        "billing": "metered",
        "model": None,
        "reserve": "0",
        "pause_at": None,
        "pace": False,
        "quota_sources": ["headers"],
        "pollers": [],
        "command": False,
        "paused": False,
        "paused_reason": "",
        "models": 1,
        "status": "ok",
        "managed_by": "file",
        "version": 1,
    }
    assert page["items"][1]["models"] == 2


@shares
async def test_a_model_is_told_with_its_ladder_in_order_also_by_a_name_with_a_slash(shared):
    page = await read(shared, "models")
    assert [item["name"] for item in page["items"]] == ["lab/m", "n"]
    for path in ("models/lab%2Fm", "models/lab/m"):
        assert await read(shared, path) == page["items"][0]
    rung = {
        "description": "",
        "family": "openai",
        "priority": 0,
        "weight": 1,
        "prices": {},
        "unmetered": False,
        "enabled": True,
        "has_credential": True,
        "status": "ok",
    }
    assert page["items"][0] == {
        "name": "lab/m",
        "display_name": "",
        "family": "openai",
        "strategy": "priority",
        "aliases": ["m"],
        "capabilities": ["code"],
        "tags": [],
        "context_tokens": 1000,
        "max_output_tokens": 100,
        "fallbacks": ["n"],
        "prices": {"cost_per_million_input": "1", "cost_per_million_output": "2"},
        "attachments": [
            {**rung, "provider": "one", "display_name": "One", "description": "the first", "upstream_model": "lab/m"},
            {**rung, "provider": "two", "display_name": "", "upstream_model": "m-2", "priority": 1, "weight": 3},
        ],
        "usable": True,
        "managed_by": "file",
        "version": 1,
    }


@shares
@pytest.mark.parametrize("path", ["providers/on", "models/lab", "models/%00", "providers/%ED%A0%80"])
async def test_a_name_nobody_has_is_not_found(shared, path):
    told = await shared.read(f"/api/v1/{path}")
    assert (told.status, told.body["code"]) == (404, "not_found")
    assert told.headers["content-type"] == "application/problem+json"


async def test_a_provider_without_its_key_says_so(tmp_path, clock):
    async with open_plane(tmp_path, CATALOG, clock) as plane:
        one = await read(plane, "providers/one")
        ladder = (await read(plane, "models/lab%2Fm"))["attachments"]
    assert (one["has_credential"], one["status"]) == (False, "no_credential")
    assert [rung["status"] for rung in ladder] == ["no_credential", "ok"]


@pytest.mark.parametrize(
    ("cause", "failures", "word"),
    [
        (FailureKind.AUTH, 1, "auth_failed"),
        (FailureKind.RATE_LIMITED, 9, "limited"),
        (FailureKind.TRANSIENT, 4, "limited"),
        (FailureKind.TRANSIENT, 5, "down"),
    ],
)
async def test_a_cooldown_shows_as_what_lies_behind_it_while_it_lasts(plane, clock, cause, failures, word):
    """
    One of a whole provider shows everywhere, one of a rung only there.
    """
    cooling = [
        Cooldown(
            provider=provider,
            model=model,
            until=NOON + timedelta(seconds=30),
            source=CooldownSource.SAID,
            cause=cause,
            failures=failures,
            strikes=failures if cause is FailureKind.TRANSIENT else 0,
        )
        for provider, model in (("two", ""), ("one", "lab/m"))
    ]
    await plane.daemon.lane.run(SetCooldowns(cooldowns=tuple(cooling)))
    assert [item["status"] for item in (await read(plane, "providers"))["items"]] == ["ok", word]
    model = await read(plane, "models/lab%2Fm")
    assert ([rung["status"] for rung in model["attachments"]], model["usable"]) == ([word, word], False)
    clock.forward(seconds=30)
    model = await read(plane, "models/lab%2Fm")
    assert ([rung["status"] for rung in model["attachments"]], model["usable"]) == (["ok", "ok"], True)


async def test_a_full_quota_exhausts_its_provider_and_a_full_budget_limits_everybody_who_pays(plane):
    told = await plane.ask("POST", "/api/v1/route", {**ASKED, "provider": "one"})
    hold_id = told.body["hold"]["id"]
    await plane.ask("POST", f"/api/v1/holds/{hold_id}/settle", {"usage": {"input_tokens": 1000}})
    assert [item["status"] for item in (await read(plane, "providers"))["items"]] == ["exhausted", "ok"]
    told = await plane.ask("POST", "/api/v1/route", {**ASKED, "provider": "two"})
    await plane.ask("POST", f"/api/v1/holds/{told.body['hold']['id']}/settle", {"cost_usd": "0.5"})
    assert [item["status"] for item in (await read(plane, "providers"))["items"]] == ["exhausted", "limited"]
    assert (await read(plane, "models/n"))["usable"] is False


@pytest.mark.parametrize(("line", "word"), [("enabled = false", "disabled")])
async def test_what_is_switched_off_says_so(tmp_path, clock, line, word):
    catalog = CATALOG.replace('description = "the first"', line)
    async with open_plane(tmp_path, catalog, clock, KEYS) as plane:
        assert (await read(plane, "providers/one"))["status"] == word
        ladder = (await read(plane, "models/lab%2Fm"))["attachments"]
    assert [rung["status"] for rung in ladder] == [word, "ok"]


async def test_a_credential_is_looked_up_once_for_all_rungs_that_share_it(plane):
    asked = []
    survey = Survey(state=await plane.daemon.lane.snapshot(), now=NOON, has_credential=lambda ref: bool(asked.append(ref)))
    provider = plane.daemon.lane.catalog.providers["one"]
    assert [survey.holds_credential(provider) for _ in range(3)] == [False] * 3
    assert asked == ["env:ONE_KEY"]


# --- limits -------------------------------------------------------------------------------------------------------------


async def test_a_limit_is_told_with_what_its_window_has_taken(plane):
    held = await plane.ask("POST", "/api/v1/route", ASKED)
    assert held.status == 201
    await spend(plane)
    month, tokens = (await read(plane, "limits"))["items"]
    assert month == {
        "name": "month",
        "kind": "budget",
        "subject": "everyone",
        "unit": "usd",
        "window": "month",
        "anchor": None,
        "timezone": "Europe/Berlin",
        "enforcement": "strict",
        "limit": "0.5",
        "posted": 60_000,
        "held": 120_000,
        "remaining": 500_000_000 - 180_000,
        "window_start": "2026-10-31T23:00:00.000000Z",
        "window_end": "2026-11-30T23:00:00.000000Z",
        "managed_by": "file",
        "version": 1,
    }
    assert tokens == {
        "name": "shared/tokens/5h",
        "kind": "quota",
        "subject": "account:shared",
        "unit": "tokens",
        "window": "5h",
        "anchor": "first_use",
        "timezone": "UTC",
        "enforcement": "bounded",
        "limit": 1000,
        "posted": 55,
        "held": 110,
        "remaining": 835,
        "window_start": "2026-11-20T12:00:00.000000Z",
        "window_end": "2026-11-20T17:00:00.000000Z",
        "managed_by": "file",
        "version": 1,
    }


@shares
async def test_a_window_that_nobody_has_opened_has_no_times(shared):
    tokens = (await read(shared, "limits"))["items"][1]
    assert (tokens["window_start"], tokens["window_end"], tokens["posted"], tokens["remaining"]) == (None, None, 0, 1000)


# --- the ledger ---------------------------------------------------------------------------------------------------------


async def test_entries_and_usage_tell_the_same_money(plane, clock):
    await spend(plane, labels=["a"])
    clock.forward(hours=12)
    await spend(plane)
    first = await read(plane, "entries?limit=1")
    second = await read(plane, f"entries?limit=1&cursor={first['next']}&provider=one")
    assert second["next"] is None
    costs = [item["cost_nusd"] for item in (*first["items"], *second["items"])]
    usage = await read(plane, "usage?group_by=day,provider&tz=Europe/Berlin&since=2026-11-20&until=2026-11-22")
    assert [(group["day"], group["provider"], group["cost_nusd"]) for group in usage["groups"]] == [
        ("2026-11-20", "one", costs[0]),
        ("2026-11-21", "one", costs[1]),
    ]
    assert usage["total"]["cost_nusd"] == sum(costs) == 120_000
    assert (await read(plane, "usage?since=2026-11-21T00:00:00%2B01:00"))["total"]["calls"] == 1
    assert (await read(plane, "entries?until=2026-11-20T23:00:00Z"))["items"] == first["items"]


@shares
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("providers?limt=1", "did you mean 'limit'?"),
        ("providers?limit=0", "`limit` must be a whole number from 1 to 1000."),
        ("entries?limit=1001", "`limit`"),
        ("entries?limit=%D9%A1", "`limit`"),
        ("entries?limit=1&limit=2", "`limit` stands twice"),
        ("entries?cursor=x", "`cursor` is not one that we gave"),
        ("providers?cursor=WzFd", "`cursor`"),
        ("entries?provder=one", "did you mean 'provider'?"),
        ("entries?since=yesterday", "`since` must be a date"),
        ("entries?since=2026-11-20T12:00:00", "`since` must be a date"),
        ("usage?until=0001-01-01T00:00:00%2B23:00", "`until`"),
        ("usage?group_by=providr", "did you mean 'provider'?"),
        ("usage?tz=Mars/Olympus", "`tz` must be an IANA time zone"),
        ("usage?tz=../../etc/passwd", "`tz`"),
        ("usage?tz=Europe", "`tz`"),
        ("usage?since=2026-13-01&tz=Europe/Berlin", "`since`"),
        ("status?x=1", "not known"),
        ("providers/one?x=1", "not known"),
    ],
)
async def test_a_query_that_is_not_understood_is_refused(shared, path, said):
    """
    A filter that did nothing would make a wrong sum look right.
    """
    told = await shared.read(f"/api/v1/{path}")
    assert told.status == 400
    assert said in told.body["detail"]


@shares
@pytest.mark.parametrize("text", ["%00", "%ED%A0%80", "%FF", "%27%20OR%201=1--", "%F0%9F%92%A9"])
async def test_no_text_in_a_filter_breaks_the_search(shared, text):
    told = await shared.read(f"/api/v1/entries?provider={text}")
    assert told.status in {200, 400}
    assert told.body.get("items", []) == []


# --- pages --------------------------------------------------------------------------------------------------------------


@shares
@pytest.mark.parametrize("name", ["providers", "models", "limits"])
async def test_a_list_is_paged_by_name(shared, name):
    whole = (await read(shared, name))["items"]
    first = await read(shared, f"{name}?limit=1")
    second = await read(shared, f"{name}?limit=1&cursor={first['next']}")
    assert (first["items"] + second["items"], second["next"]) == (whole, None)


@shares
async def test_the_state_of_things_at_a_glance(shared):
    status = await read(shared, "status")
    quiet = {"status": "ok", "state": "ok", "reason": None, "usable_at": None, "windows": [], "cooldowns": [], "pollers": []}
    assert status == {
        "state": "ok",
        "version": status["version"],
        "at": "2026-11-20T12:00:00.000000Z",
        "calls_running": 0,
        "holds_open": 0,
        "journal": {"name": "main", "seq": 0, "hash": "0" * 64},
        "epoch": 1,
        "providers": {
            "one": {**quiet, "account": "shared"},
            "two": {**quiet, "account": "two"},
        },
        "models": {"lab/m": True, "n": True},
    }


# --- who may ------------------------------------------------------------------------------------------------------------


@shares
@pytest.mark.parametrize("route", [r for r in all_routes() if r.path.startswith("/api/")], ids=lambda r: f"{r.method} {r.path}")
async def test_a_path_is_closed_to_whoever_lacks_its_scope(shared, route):
    path = re.sub(r"\{.*?\}", "x", route.path)
    lacking = TOKENS["ci"] if route.scope is Scope.READ else TOKENS["reader"]
    assert (await shared.ask(route.method, path, token=lacking)).status == 403
    assert (await shared.ask(route.method, path, token="nobody")).status == 401
    assert (await shared.ask(route.method, path, token=ADMIN_TOKEN)).status not in {401, 403, 500}


# --- what changes the catalog -------------------------------------------------------------------------------------------

THREE = """
[providers.three]
vendor = "openai"
"""


async def test_the_daemon_reads_its_own_file_again(plane):
    plane.file.write_text(plane.file.read_text().replace('limit = "0.5"', 'limit = "0.7"') + THREE)
    expected = [
        {"action": "added", "kind": "provider", "name": "three", "fields": [], "text": "added provider three"},
        {"action": "changed", "kind": "limit", "name": "month", "fields": ["limit"], "text": "changed limit month (limit)"},
    ]
    for body, is_there in (({"dry_run": True}, False), (None, True)):
        told = await plane.ask("POST", "/api/v1/reload", body, token=ADMIN_TOKEN)
        assert (told.status, told.body) == (200, {"changes": expected})
        names = [item["name"] for item in (await read(plane, "providers"))["items"]]
        assert ("three" in names) is is_there
    assert (await plane.ask("POST", "/api/v1/reload", {}, token=ADMIN_TOKEN)).body == {"changes": []}


NEW = """
[providers.fresh]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[models]]
name = "fresh"
provider = "fresh"
cost_per_million_input = "1"
cost_per_million_output = "2"
[[routing.rules]]
condition = "labels contains 'new'"
model = "fresh"
[workflows.new]
stages = [{ name = "only", model = "fresh" }]
"""


async def test_row_3_6_providers_models_and_rules_change_without_a_restart(plane):
    """The same daemon, asked before and after its file changed."""
    asked = {**ASKED, "model": "fresh", "dry_run": True}
    assert (await plane.ask("POST", "/api/v1/route", asked)).status == 404
    plane.file.write_text(plane.file.read_text() + NEW)
    told = await plane.ask("POST", "/api/v1/reload", token=ADMIN_TOKEN)
    added = ["provider fresh", "model fresh", "rule file-1", "workflow new"]
    assert [change["text"] for change in told.body["changes"]] == [f"added {row}" for row in added]
    assert (await plane.ask("POST", "/api/v1/route", asked)).body["provider"] == "fresh"
    tested = await plane.ask("POST", "/api/v1/rules/test", {**ASKED, "labels": ["new"]}, token=TOKENS["reader"])
    assert (tested.body["model"], tested.body["rules"][0]["standing"]) == ("fresh", "first")
    plane.file.write_text(plane.file.read_text().replace("labels contains 'new'", "labels contains 'old'"))
    told = await plane.ask("POST", "/api/v1/reload", token=ADMIN_TOKEN)
    assert [change["text"] for change in told.body["changes"]] == ["changed rule file-1 (condition)"]


async def test_whoever_asks_while_the_catalog_changes_gets_an_answer(plane):
    """
    Between two snapshots there is no moment without one.
    """

    async def edit():
        for number in range(10):
            plane.file.write_text(plane.file.read_text() + THREE.replace("three", f"three-{number}"))
            assert (await plane.ask("POST", "/api/v1/reload", token=ADMIN_TOKEN)).status == 200

    async def ask():
        return [(await plane.read("/api/v1/providers")).status for _ in range(60)]

    _, *answers = await asyncio.gather(edit(), *(ask() for _ in range(3)))
    assert {status for statuses in answers for status in statuses} == {200}


async def test_what_is_gone_from_the_file_is_disabled_or_pruned(plane):
    plane.file.write_text(plane.file.read_text() + THREE)
    await plane.ask("POST", "/api/v1/reload", token=ADMIN_TOKEN)
    plane.file.write_text(plane.file.read_text().removesuffix(THREE))
    for body, action in (({}, "disabled"), ({"prune": True}, "pruned")):
        (change,) = (await plane.ask("POST", "/api/v1/reload", body, token=ADMIN_TOKEN)).body["changes"]
        assert (change["action"], change["name"]) == (action, "three")


async def test_a_bad_file_changes_nothing_and_says_where_it_is_bad(plane):
    plane.file.write_text(plane.file.read_text().replace('unit = "usd"', 'unit = "usdd"'))
    told = await plane.ask("POST", "/api/v1/reload", token=ADMIN_TOKEN)
    assert (told.status, told.body["code"]) == (400, "bad_config")
    assert "usdd" in told.body["detail"]
    assert [item["name"] for item in (await read(plane, "limits"))["items"]] == ["month", "shared/tokens/5h"]


async def test_a_catalog_that_is_sent_is_applied(plane):
    text = (CATALOG + CALLERS + THREE).encode()
    for query, is_there in (("?dry_run=true", False), ("?dry_run=false&prune=true", True)):
        told = await plane.ask("POST", f"/api/v1/apply{query}", text, token=ADMIN_TOKEN)
        assert (told.status, [change["name"] for change in told.body["changes"]]) == (200, ["three"])
        names = [item["name"] for item in (await read(plane, "providers"))["items"]]
        assert ("three" in names) is is_there


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("", b"[providers.x]\nvendor = 'openai'\nnetwork = 'private'\n", 403, "forbidden"),
        ("", b"[providers.x]\ncommand = 'claude'\n", 403, "forbidden"),
        ("", b"[providers.x]\ncommand_template = ['sh', '{prompt_file}']\n", 403, "forbidden"),
        ("", b"[providers.x]\nvendor = 'openai'\nallow = ['10.0.0.1:80']\n", 403, "forbidden"),
        ("", b"[routing]\nrouters = ['os:system']\n", 403, "forbidden"),
        ("", b"[providers", 400, "bad_config"),
        ("", b"[providers.x]\nvendor = 'opena'\n", 400, "bad_config"),
        ("", b"\xff", 400, "invalid_request"),
        ("", b" \n", 400, "invalid_request"),
        ("", b"a = [" * 20_000, 400, "bad_config"),
        ("", b"a = " + b"9" * 6_000, 400, "bad_config"),
        ("", b"#" * 1_048_577, 413, "body_too_large"),
        ("?dry_run=yes", b"", 400, "invalid_request"),
        ("?dryrun=true", b"", 400, "invalid_request"),
    ],
)
@shares
async def test_a_catalog_that_may_not_be_applied_changes_nothing(shared, query, body, status, code):
    told = await shared.ask("POST", f"/api/v1/apply{query}", body, token=ADMIN_TOKEN)
    assert (told.status, told.body["code"]) == (status, code)
    assert (await read(shared, "status"))["epoch"] == 1
