"""Rules, workflows and `auto`, through a whole daemon: which way a call goes, who sent it there, and what is kept of that."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from ledger_kit import Clock
from plane_kit import Plane, open_plane

from quota_router import config
from quota_router.daemon import open_daemon

PROVIDERS = """
[providers.claude-cli]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "env:CLI_KEY"
[providers.main]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[providers.spare]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
"""
MODELS = """
[[models]]
name = "best"
attachments = ["main"]
fallbacks = ["runner-up"]
capabilities = ["vision", "reasoning"]
cost_per_million_input = "15"
cost_per_million_output = "75"
[[models]]
name = "runner-up"
attachments = [["main", "spare"]]
capabilities = ["vision", "tools"]
cost_per_million_input = "3"
cost_per_million_output = "15"
[[models]]
name = "deepseek/deepseek-chat"
attachments = ["main", "spare"]
cost_per_million_input = "0.1"
cost_per_million_output = "0.2"
[[models]]
name = "asked"
attachments = ["claude-cli", "main"]
capabilities = ["reasoning"]
cost_per_million_input = "1"
cost_per_million_output = "2"
[workflows.standard]
stages = [{ name = "plan", model = "best" }, { name = "write", model = "deepseek/deepseek-chat" }]
[routing]
default_model = "asked"
timezone = "Europe/Berlin"
"""
KEYS = {"CLI_KEY": "sk-cli"}
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAMPLES = """
[[routing.rules]]
condition = "priority == 0"
model = "best"
reason = "Critical tasks get best model"
[[routing.rules]]
condition = "labels contains 'documentation'"
model = "deepseek/deepseek-chat"
reason = "Documentation doesn't need expensive models"
[[routing.rules]]
condition = "hour >= 22 or hour <= 6"
model = "deepseek/deepseek-chat"
[[routing.rules]]
condition = "provider_status['claude-cli'] == 'down'"
model = "runner-up"
[[routing.rules]]
condition = "task.id ends_with '0'"
model = "deepseek/deepseek-chat"
"""


def rule(condition: str, **more: str) -> str:
    return "".join([f'[[routing.rules]]\ncondition = "{condition}"\n', *(f'{name} = "{value}"\n' for name, value in more.items())])


@pytest.fixture
def clock():
    clock = Clock()
    clock.now = NOON
    return clock


async def route(plane: Plane, **asked: object):
    return await plane.ask("POST", "/api/v1/route", {"input_tokens": 10, "max_output_tokens": 10, **asked})


async def fail(plane: Plane, provider: str, times: int = 1, status: int = 500):
    """Let *provider*'s calls fail, as their callers tell it."""
    for _ in range(times):
        told = await route(plane, provider=provider, model="asked" if provider == "claude-cli" else "runner-up")
        if told.status != 201:
            return
        body = {"failure": {"status": status, "headers": {}, "body": ""}}
        assert (await plane.ask("POST", f"/api/v1/holds/{told.body['hold']['id']}/settle", body)).status == 200


# --- rules --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "hour", "model", "condition"),
    [
        ({"priority": 0}, 12, "best", "priority == 0"),
        ({"labels": ["documentation"]}, 12, "deepseek/deepseek-chat", "labels contains 'documentation'"),
        ({}, 21, "deepseek/deepseek-chat", "hour >= 22 or hour <= 6"),
        ({"task": {"id": "task-120"}}, 12, "deepseek/deepseek-chat", "task.id ends_with '0'"),
        ({"task": {"id": "task-121"}}, 12, "asked", None),
        ({"priority": 1, "labels": ["docs"]}, 12, "asked", None),
        ({}, 20, "asked", None),
    ],
)
async def test_row_3_3_the_sample_conditions_route_as_written(tmp_path, clock, database, asked, hour, model, condition):
    """
    Hours are those of `[routing] timezone`: 21 in UTC is 22 in Berlin.
    """
    clock.now = NOON.replace(hour=hour)
    async with open_plane(tmp_path, PROVIDERS + MODELS + SAMPLES, clock, KEYS) as plane:
        told = await route(plane, **asked)
        assert (told.status, told.body["model"]) == (201, model)
        assert (told.body["rule"] or {}).get("condition") == condition


async def test_row_3_3_a_rule_sees_how_a_provider_stands(tmp_path, clock, database):
    async with open_plane(tmp_path, PROVIDERS + MODELS + SAMPLES, clock, KEYS) as plane:
        assert (await route(plane)).body["provider"] == "claude-cli"
        await fail(plane, "claude-cli", status=401)
        told = (await route(plane)).body
        assert (told["model"], told["rule"]["condition"]) == ("runner-up", "provider_status['claude-cli'] == 'down'")


async def test_row_0_2_a_rule_may_name_a_provider_or_a_strategy_alone(tmp_path, clock):
    rules = rule("priority == 1", provider="spare") + rule("priority == 2", strategy="round_robin")
    async with open_plane(tmp_path, PROVIDERS + MODELS + rules, clock, KEYS) as plane:
        told = (await route(plane, model="runner-up", priority=1)).body
        assert (told["model"], told["provider"], told["rule"]["condition"]) == ("runner-up", "spare", "priority == 1")
        turns = [(await route(plane, model="runner-up", priority=2)).body["provider"] for _ in range(4)]
        assert turns in (["main", "spare"] * 2, ["spare", "main"] * 2)
        told = (await route(plane, model="asked", priority=1)).body
        assert (told["provider"], told["rule"]) == ("claude-cli", None), "the rule leads nowhere: what was asked for does"


BUDGETS = """
[[budgets]]
name = "best-calls"
subject = "model:best"
unit = "requests"
limit = 1
window = "hour"
enforcement = "strict"
[[budgets]]
name = "runner-up-calls"
subject = "model:runner-up"
unit = "requests"
limit = 1
window = "hour"
enforcement = "strict"
"""


async def test_row_0_4_a_rule_without_a_usable_rung_goes_to_fallbacks_then_to_the_next_rule(tmp_path, clock, database):
    rules = rule("priority == 0", model="best") + rule("priority <= 1", model="deepseek/deepseek-chat", provider="spare")
    async with open_plane(tmp_path, PROVIDERS + MODELS + BUDGETS + rules, clock, KEYS) as plane:
        told = [(await route(plane, priority=0)).body for _ in range(3)]
        assert [(one["model"], one["provider"]) for one in told] == [
            ("best", "main"),
            ("runner-up", "main"),
            ("deepseek/deepseek-chat", "spare"),
        ]
        assert [one["rule"]["condition"] for one in told] == ["priority == 0", "priority == 0", "priority <= 1"]
        skipped = [(rung["model"], rung["reason"]) for rung in told[2]["rungs"] if rung["status"] == "skipped"]
        assert skipped == [("best", "over_budget"), ("runner-up", "over_budget"), ("runner-up", "over_budget")]
        usage = await plane.read("/api/v1/usage?group_by=rule")
        assert [(group["rule"], group["attempts"]) for group in usage.body["groups"]] == [
            ("priority <= 1", 1),
            ("priority == 0", 2),
        ]


async def test_row_0_4_behind_a_rule_that_refuses_nothing_is_tried(tmp_path, clock):
    rules = rule("priority == 0", model="best", on_unusable="refuse") + rule("priority <= 1", model="deepseek/deepseek-chat")
    async with open_plane(tmp_path, PROVIDERS + MODELS + BUDGETS + rules, clock, KEYS) as plane:
        assert [(await route(plane, priority=0)).status for _ in range(3)] == [201, 201, 429]
        assert (await route(plane, priority=1)).status == 201


async def test_row_0_4_rules_see_headroom_and_budgets(tmp_path, clock, database):
    quota = '[[providers.main.quotas]]\nunit = "requests"\nlimit = 4\nwindow = "5h"\nanchor = "first_use"\n'
    rules = rule("headroom['main'] <= 0.5", model="runner-up", provider="spare")
    rules += rule("budget_used['best-calls'] >= 1", model="deepseek/deepseek-chat")
    providers = PROVIDERS.replace("[providers.spare]", quota + "[providers.spare]")
    async with open_plane(tmp_path, providers + MODELS + BUDGETS + rules, clock, KEYS) as plane:
        models = [(await route(plane, model="best")).body["model"] for _ in range(3)]
        assert models == ["best", "deepseek/deepseek-chat", "runner-up"]


async def test_a_pinned_call_goes_its_own_way(tmp_path, clock):
    async with open_plane(tmp_path, PROVIDERS + MODELS + SAMPLES, clock, KEYS) as plane:
        told = (await route(plane, priority=0, model="asked", provider="main")).body
        assert (told["model"], told["provider"], told["rule"]) == ("asked", "main", None)


async def test_a_model_that_nobody_serves_is_no_matter_where_a_rule_sends_the_call_elsewhere(tmp_path, clock):
    async with open_plane(tmp_path, PROVIDERS + MODELS + SAMPLES, clock, KEYS) as plane:
        assert (await route(plane, priority=0, model="gone")).body["model"] == "best"
        assert (await route(plane, model="gone")).status == 404


async def test_row_3_7_a_share_of_the_tasks_tries_another_model(tmp_path, clock):
    rules = rule("priority == 0", model="best") + '[[routing.rules]]\ncondition = "stream == false"\nmodel = "best"\nshare = 0.25\n'
    async with open_plane(tmp_path, PROVIDERS + MODELS + rules, clock, KEYS) as plane:
        asked = [await route(plane, task={"id": f"task-{number}"}, dry_run=True) for number in range(200)]
        again = [await route(plane, task={"id": f"task-{number}"}, dry_run=True) for number in range(200)]
        models = [told.body["model"] for told in asked]
        assert models == [told.body["model"] for told in again]
        assert 30 <= models.count("best") <= 70


async def test_the_data_plane_follows_rules_and_tells_the_same_in_a_dry_run(tmp_path, clock):
    body = {"model": "asked", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    async with open_plane(tmp_path, PROVIDERS + MODELS + SAMPLES, clock, KEYS) as plane:
        told = await plane.ask(
            "POST", "/v1/chat/completions", body, x_quota_router_dry_run="true", x_quota_router_labels="documentation"
        )
        assert (told.status, told.body["model"], told.body["rule"]["condition"]) == (
            200,
            "deepseek/deepseek-chat",
            "labels contains 'documentation'",
        )
        told = await plane.ask("POST", "/v1/chat/completions", body, x_quota_router_dry_run="true", x_stainless_retry_count="2")
        assert told.body["model"] == "asked"


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"model": "asked", "provider": "mian"}, 400, "No provider 'mian' is configured: did you mean 'main'?"),
        ({"model": "asekd"}, 404, "No model 'asekd' is served here: did you mean 'asked'?"),
        ({"model": "nothing-like-it"}, 404, "No model 'nothing-like-it' is served here. "),
    ],
)
async def test_a_name_that_nobody_knows_is_told_with_the_nearest(tmp_path, clock, asked, status, says):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        told = await route(plane, **asked)
        assert told.status == status
        assert says in told.body["detail"]


async def test_what_may_be_done_about_a_refusal_is_said_once(tmp_path, clock):
    """
    The dialect to ask in, the price to give; and no word that stands in a rung's numbers alone.
    """
    models = MODELS.replace(
        'name = "deepseek/deepseek-chat"\n', 'name = "free"\nprovider = "main"\n[[models]]\nname = "deepseek/deepseek-chat"\n'
    )
    budget = (
        '[[budgets]]\nname = "usd"\nsubject = "model:free"\nunit = "usd"\nlimit = "1"\nwindow = "day"\nenforcement = "strict"\n'
    )
    async with open_plane(tmp_path, PROVIDERS + models + budget, clock, KEYS) as plane:
        told = await route(plane, model="free")
        assert told.body["detail"].count("`unmetered = true`") == 1
        body = {"model": "asked", "max_tokens": 5, "messages": [WORDS]}
        told = await plane.ask("POST", "/v1/messages", body)
        assert told.status == 400
        assert told.body["error"]["message"].count("ask for it at `/v1/chat/completions`") == 1


async def test_a_start_without_a_file_leaves_what_an_earlier_one_said(tmp_path, clock):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        before = plane.daemon.lane.catalog
        variables = {"QUOTA_ROUTER_ADMIN_TOKEN": "qr-test", "XDG_STATE_HOME": str(tmp_path)}
        loaded = config.load(plane.file, variables)
    async with open_daemon(replace(loaded, path=None, desired={}, text=""), variables, clock=clock) as daemon:
        assert daemon.lane.catalog.models == before.models
        assert daemon.lane.catalog.providers == before.providers


# --- workflows ----------------------------------------------------------------------------------------------------------------


async def test_row_3_4_a_stage_of_a_workflow_has_its_own_model_and_its_own_spend(tmp_path, clock, database):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        asked = [{"model": "workflow:standard/plan"}, {"workflow": "standard", "stage": "write"}]
        told = [(await route(plane, **one)).body for one in asked]
        assert [one["model"] for one in told] == ["best", "deepseek/deepseek-chat"]
        for one in told:
            await plane.ask("POST", f"/api/v1/holds/{one['hold']['id']}/settle", {"cost_usd": "0.25"})
        usage = (await plane.read("/api/v1/usage?group_by=workflow,stage")).body["groups"]
        assert [(group["workflow"], group["stage"], group["cost_nusd"]) for group in usage] == [
            ("standard", "plan", 250_000_000),
            ("standard", "write", 250_000_000),
        ]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("workflow:standrad/plan", "did you mean 'standard'?"),
        ("workflow:standard/plam", "did you mean 'plan'?"),
        ("workflow:standard", "No workflow"),
        ("workflow:", "No workflow"),
    ],
)
async def test_a_workflow_or_stage_nobody_knows_is_a_404_that_names_the_nearest(tmp_path, clock, model, says):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        told = await route(plane, model=model)
        assert told.status == 404
        assert says in told.body["detail"]


async def test_a_call_that_names_a_model_keeps_it_whatever_its_workflow(tmp_path, clock):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        assert (await route(plane, model="asked", workflow="standard", stage="plan")).body["model"] == "asked"
        assert (await route(plane, workflow="of-their-own", stage="x")).body["model"] == "asked"


# --- auto, and what a call needs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requires", "model"),
    [
        ([], "deepseek/deepseek-chat"),
        (["vision"], "runner-up"),
        (["reasoning"], "asked"),
        (["vision", "reasoning"], "best"),
    ],
)
async def test_row_4_4_auto_takes_the_cheapest_model_that_is_known_to_be_capable(tmp_path, clock, requires, model):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        told = await route(plane, model="auto", requires=requires)
        assert (told.status, told.body["model"]) == (201, model)


async def test_row_4_4_auto_says_what_nobody_can(tmp_path, clock):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        told = await route(plane, model="auto", requires=["video"])
        assert told.status == 404
        assert "video" in told.body["detail"]
        assert [model["id"] for model in (await plane.ask("GET", "/v1/models")).body["data"]].count("auto") == 0


IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}
WORDS = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"messages": [WORDS]}, "deepseek/deepseek-chat"),
        ({"messages": [IMAGE]}, "runner-up"),
        ({"messages": [WORDS], "tools": [TOOL]}, "runner-up"),
        ({"messages": [WORDS], "tools": []}, "deepseek/deepseek-chat"),
        ({"messages": [WORDS], "reasoning_effort": "high"}, "asked"),
        ({"messages": [WORDS], "reasoning_effort": "none"}, "deepseek/deepseek-chat"),
        # No model is described with the word: nobody here tells models apart by it.
        ({"messages": [WORDS], "response_format": {"type": "json_schema", "json_schema": {}}}, "deepseek/deepseek-chat"),
    ],
)
async def test_row_4_4_what_a_body_needs_is_read_off_it(tmp_path, clock, body, model):
    async with open_plane(tmp_path, PROVIDERS + MODELS, clock, KEYS) as plane:
        told = await plane.ask(
            "POST", "/v1/chat/completions", {"model": "auto", "max_tokens": 5, **body}, x_quota_router_dry_run="true"
        )
        assert (told.status, told.body["model"]) == (200, model)


async def test_row_4_4_a_named_model_that_cannot_is_passed_over_for_a_fallback_that_can(tmp_path, clock):
    models = MODELS.replace('name = "asked"\n', 'name = "asked"\nfallbacks = ["runner-up"]\n')
    async with open_plane(tmp_path, PROVIDERS + models, clock, KEYS) as plane:
        asked = {"model": "asked", "max_tokens": 5, "messages": [WORDS], "tools": [TOOL]}
        told = (await plane.ask("POST", "/v1/chat/completions", asked, x_quota_router_dry_run="true")).body
        assert told["model"] == "runner-up"
        assert [rung["reason"] for rung in told["rungs"][:2]] == ["capability_missing"] * 2
