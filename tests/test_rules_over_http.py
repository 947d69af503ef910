"""Trying the rules out over HTTP: what would happen to a call, and why."""

import pytest
from ledger_kit import Clock
from plane_kit import open_plane

CATALOG = """
[providers.one]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[providers.one.quotas]]
unit = "requests"
limit = 10
window = "day"
[providers.two]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[models]]
name = "big"
attachments = ["one", "two"]
[[models]]
name = "small"
attachments = ["two"]
capabilities = ["code"]
[[budgets]]
name = "small-calls"
subject = "model:small"
unit = "requests"
limit = 1
window = "day"
[routing]
default_model = "big"
timezone = "Europe/Berlin"
[[routing.rules]]
condition = "priority == 0"
model = "small"
reason = "Critical tasks"
[[routing.rules]]
condition = "hour == 13 and labels contains 'lunch'"
model = "big"
provider = "two"
[[routing.rules]]
condition = "provider_status['one'] == 'limited' or headroom['one'] < 0.2 or budget_used['small-calls'] >= 1"
model = "big"
reason = "One is nearly spent"
[[routing.rules]]
condition = "task.id ends_with '0'"
model = "small"
on_unusable = "refuse"
"""


@pytest.fixture
async def plane(tmp_path):
    async with open_plane(tmp_path, CATALOG, Clock()) as plane:
        yield plane


async def try_out(plane, **asked):
    told = await plane.ask("POST", "/api/v1/rules/test", asked, token="t-reader")
    assert told.status == 200, told
    return told.body


def standings(told):
    return [rule["standing"] for rule in told["rules"]]


async def test_row_3_3_the_first_rule_that_matches_is_tried_first_and_said(plane):
    told = await try_out(plane, priority=0)
    assert (told["outcome"], told["model"], told["provider"]) == ("chosen", "small", "two")
    assert told["rule"] == {"condition": "priority == 0", "reason": "Critical tasks"}
    assert (told["hold"], told["rungs"][0]["status"]) == (None, "chosen")
    assert standings(told) == ["first", "no_match", "no_match", "no_match"]
    assert "priority" in told["rules"][0]["because"][0]


async def test_row_3_3_the_hour_is_that_of_the_routing_zone(plane):
    """At noon UTC it is 13 o'clock in Berlin."""
    told = await try_out(plane, labels=["lunch"])
    assert (told["provider"], standings(told)[1]) == ("two", "first")
    assert [(rung["provider"], rung["reason"]) for rung in told["rungs"]] == [("two", None), ("one", None)]


async def test_without_a_match_the_default_holds_and_no_rule_is_named(plane):
    told = await try_out(plane)
    assert (told["model"], told["provider"], told["rule"]) == ("big", "one", None)
    assert standings(told) == ["no_match"] * 4


async def test_row_0_4_rules_see_quotas_and_fall_through_unless_they_refuse(plane):
    held = await plane.ask("POST", "/api/v1/route", {"model": "small"})
    assert held.status == 201
    told = await try_out(plane, priority=0)
    assert (told["model"], told["rule"]["reason"], standings(told)[:3]) == (
        "big",
        "One is nearly spent",
        ["first", "no_match", "later"],
    )
    told = await try_out(plane, task={"id": "10"})
    assert (told["model"], standings(told)) == ("big", ["no_match", "no_match", "first", "later"])
    for _ in range(10):
        await plane.ask("POST", "/api/v1/route", {"model": "big", "provider": "one"})
    await plane.admin("POST", "providers/two/pause")
    told = await try_out(plane, task={"id": "10"})
    assert (told["outcome"], told["rule"]) == ("none_usable", {"condition": "task.id ends_with '0'", "reason": None})
    assert {(rung["provider"], rung["reason"]) for rung in told["rungs"]} == {("one", "quota_exhausted"), ("two", "paused")}
    assert "two: paused" in told["detail"]


async def test_what_the_call_requires_is_asked_of_its_model(plane):
    told = await try_out(plane, priority=0, requires=["vision"])
    assert (told["model"], told["rule"]) == ("big", None)
    told = await try_out(plane, model="small", requires=["vision"])
    assert (told["outcome"], told["rungs"][0]["reason"]) == ("none_usable", "capability_missing")


async def test_nothing_is_written_by_a_test(plane):
    before = (await plane.read("/api/v1/status")).body
    await try_out(plane, priority=0)
    assert (await plane.read("/api/v1/status")).body == before


async def test_a_rule_whose_model_is_gone_is_no_answer(plane):
    await plane.admin("POST", "providers", {"name": "p", "vendor": "openai", "credential": "none"})
    await plane.admin("POST", "models", {"name": "mine", "attachments": ["p"]})
    await plane.admin("POST", "rules", {"condition": "priority == 9", "model": "mine", "on_unusable": "refuse", "position": 1})
    await plane.admin("DELETE", "providers/p", If_Match="*")
    told = await try_out(plane, priority=9)
    assert (told["outcome"], told["rungs"]) == ("none_usable", [])
    assert "no explicit provider attachments configured" in told["detail"]


@pytest.mark.parametrize("asked", [{"priorty": 1}, {"priority": "0"}, {"labels": "a"}, {"task": 1}, {"model": ""}])
async def test_a_call_that_could_not_be_made_is_not_tried(plane, asked):
    assert (await plane.ask("POST", "/api/v1/rules/test", asked, token="t-reader")).status == 400
