"""The decision plane of a whole daemon: decide, hold, settle, extend, and tell."""

import asyncio
import json

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import Clock
from plane_kit import ADMIN_TOKEN, TOKENS, open_plane

from quota_router.store.holding import Sweep

CATALOG = """
[providers.one]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "env:ONE_KEY"
[providers.two]
family = "anthropic"
base_url = "http://127.0.0.1:9"
network = "loopback"
credential = "none"
[providers.flat]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
billing = "flat"
[[models]]
name = "m"
attachments = ["one"]
fallbacks = ["claude"]
cost_per_million_input = "1"
cost_per_million_output = "2"
cost_per_million_cache_read = "0.1"
[[models]]
name = "claude"
provider = "two"
cost_per_million_input = "3"
cost_per_million_output = "15"
[[models]]
name = "sub"
provider = "flat"
cost_per_million_input = "1"
cost_per_million_output = "2"
[[models]]
name = "capped"
provider = "one"
cost_per_million_input = "1"
cost_per_million_output = "2"
[[budgets]]
name = "one-an-hour"
subject = "model:capped"
unit = "requests"
limit = 1
window = "hour"
enforcement = "strict"
[routing]
default_model = "m"
"""
KEYS = {"ONE_KEY": "sk-one"}
SMALL = {"model": "m", "input_tokens": 100, "max_output_tokens": 10}
"""Held at 120,000 nano-USD."""
SPENT = {"usage": {"input_tokens": 50, "output_tokens": 5, "cache_read_tokens": 10}}
"""61,000 nano-USD."""


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def plane(tmp_path, clock, database):
    async with open_plane(tmp_path, CATALOG, clock, KEYS) as plane:
        yield plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    """One daemon for all that is refused anyway."""
    async with open_plane(tmp_path_factory.mktemp("shared"), CATALOG, Clock(), KEYS) as plane:
        yield plane


shares = pytest.mark.asyncio(loop_scope="module")


async def route(plane, body=SMALL, **how):
    told = await plane.ask("POST", "/api/v1/route", body, **how)
    assert told.status == 201, told
    return told.body


async def settle(plane, hold_id, body, **how):
    return await plane.ask("POST", f"/api/v1/holds/{hold_id}/settle", body, **how)


async def entries(plane):
    return (await plane.read("/api/v1/entries")).body["items"]


# --- route --------------------------------------------------------------------------------------------------------------


async def test_a_decision_names_the_rung_the_hold_and_every_reason(plane):
    told = await plane.ask("POST", "/api/v1/route", {**SMALL, "labels": ["a", "b", "a"], "workflow": "w", "stage": "s"})
    assert told.status == 201
    body = told.body
    call_id, hold_id = body.pop("call_id"), body["hold"].pop("id")
    assert body == {
        "outcome": "chosen",
        "model": "m",
        "provider": "one",
        "family": "openai",
        "upstream_model": "m",
        "base_url": "http://127.0.0.1:9/v1",
        "credential_ref": "env:ONE_KEY",
        "command": None,
        "prompt_on_stdin": None,
        "router": None,
        "rule": None,
        "reason": None,
        "confidence": None,
        "hold": {"expires_at": "2026-11-20T12:05:00.000000Z", "estimate_nusd": 120_000},
        "rungs": [
            {
                "provider": provider,
                "model": model,
                "upstream_model": model,
                "priority": 0,
                "status": status,
                "reason": None,
                "detail": {},
                "usable_at": None,
            }
            for provider, model, status in (("one", "m", "chosen"), ("two", "claude", "eligible"))
        ],
    }
    held = (await plane.daemon.lane.snapshot()).holds[hold_id].hold
    assert (held.call_id, held.caller, held.labels, held.workflow, held.stage) == (call_id, "ci", ("a", "b"), "w", "s")


async def test_models_of_any_family_may_be_asked_and_a_provider_pinned(plane):
    body = await route(plane, {**SMALL, "provider": "two"})
    assert (body["model"], body["provider"], body["family"]) == ("claude", "two", "anthropic")
    assert body["rungs"][0]["reason"] == "pinned_elsewhere"


async def test_nothing_need_be_said(plane):
    """
    Without a model the default decides; without a bound the usual output is held.
    """
    body = await route(plane, {})
    assert (body["model"], body["hold"]["estimate_nusd"]) == ("m", 4_096 * 2_000)


async def test_what_only_rules_read_is_taken(plane):
    await route(
        plane,
        {**SMALL, "priority": 0, "task": {"id": "t"}, "retry_count": 1, "requires": ["vision"], "session": "s", "ttl_s": 1},
    )


async def test_a_dry_run_decides_the_same_and_writes_nothing(plane):
    told = await plane.ask("POST", "/api/v1/route", {**SMALL, "dry_run": True}, Idempotency_Key="k")
    real = await route(plane, Idempotency_Key="k")
    assert told.status == 200
    assert told.body == {**real, "call_id": None, "hold": None}
    assert (await plane.read("/api/v1/usage")).body["total"]["calls"] == 1


async def test_none_usable_is_told_with_its_status_its_rungs_and_when_to_come_back(plane):
    await route(plane, {**SMALL, "model": "capped"})
    for dry_run in (False, True):
        told = await plane.ask("POST", "/api/v1/route", {**SMALL, "model": "capped", "dry_run": dry_run})
        assert (told.status, told.body["outcome"], told.body["retry_after_s"]) == (429, "none_usable", 3600)
        assert (told.headers["retry-after"], told.headers["x-should-retry"]) == ("3600", "false")
        assert told.headers["content-type"] == "application/problem+json"
        (rung,) = told.body["rungs"]
        assert (rung["provider"], rung["status"], rung["reason"]) == ("one", "skipped", "over_budget")
        assert rung["detail"]["limit"] == "one-an-hour"


async def test_row_2_6_a_provider_without_its_key_is_passed_over(tmp_path, clock):
    async with open_plane(tmp_path, CATALOG, clock) as plane:
        body = await route(plane)
    assert (body["provider"], body["rungs"][0]["reason"]) == ("two", "no_credential")


HEADERS = {"X-RateLimit-Limit-Requests": "10", "X-RateLimit-Remaining-Requests": "1", "x-ratelimit-reset-requests": "60s"}


async def test_what_the_answers_head_told_is_known_to_the_next_decision(plane):
    """
    One request was left when the answer came, and it is left when it is booked; the next hold takes it.
    """
    first = await plane.ask("POST", "/api/v1/route", SMALL)
    settle = f"/api/v1/holds/{first.body['hold']['id']}/settle"
    assert (await plane.ask("POST", settle, {**SPENT, "headers": HEADERS})).status == 200
    assert [(await plane.ask("POST", "/api/v1/route", SMALL)).body["provider"] for _ in range(2)] == ["one", "two"]
    assert (await plane.ask("POST", settle, {**SPENT, "headers": HEADERS})).body["replayed"]
    full = (await plane.ask("POST", "/api/v1/route", {**SMALL, "dry_run": True})).body["rungs"][0]
    assert (full["provider"], full["reason"]) == ("one", "quota_exhausted"), "a word said again is no news"


async def test_an_unknown_model_is_not_found(plane):
    told = await plane.ask("POST", "/api/v1/route", {"model": "nope"})
    assert (told.status, told.body["code"]) == (404, "model_not_found")


async def test_reading_is_not_routing(plane):
    told = await plane.ask("POST", "/api/v1/route", SMALL, token=TOKENS["reader"])
    assert told.status == 403


# --- one key, one answer ------------------------------------------------------------------------------------------------


async def test_the_same_words_under_the_same_key_get_the_same_answer(plane):
    """
    Said twice, also at once and in another spelling of the same JSON: one call, one hold, one answer.
    """
    first = await route(plane, Idempotency_Key="k")
    spelt = b'{ "max_output_tokens":10, "input_tokens":100,\n"labels":[], "model":"m" }'
    answers = await asyncio.gather(*(plane.ask("POST", "/api/v1/route", spelt, Idempotency_Key="k") for _ in range(8)))
    assert [(told.status, told.body) for told in answers] == [(201, first)] * 8
    await settle(plane, first["hold"]["id"], SPENT)
    assert await route(plane, Idempotency_Key="k") == first
    assert (await plane.read("/api/v1/usage")).body["total"]["calls"] == 1


async def test_eight_at_once_under_a_new_key_are_one_call(plane):
    answers = await asyncio.gather(*(route(plane, Idempotency_Key="k") for _ in range(8)))
    assert len({answer["hold"]["id"] for answer in answers}) == 1


async def test_other_words_under_the_same_key_contradict(plane):
    first = await route(plane, Idempotency_Key="k")
    told = await plane.ask("POST", "/api/v1/route", {**SMALL, "input_tokens": 101}, Idempotency_Key="k")
    assert (told.status, told.headers["x-should-retry"]) == (409, "false")
    assert first["call_id"] in told.body["detail"]


async def test_a_key_is_the_callers_own(plane):
    first = await route(plane, Idempotency_Key="k")
    assert (await route(plane, token=TOKENS["other"], Idempotency_Key="k"))["call_id"] != first["call_id"]


async def test_a_refused_call_frees_its_key(plane, clock):
    await route(plane, {**SMALL, "model": "capped"})
    asked = {**SMALL, "model": "capped"}
    assert (await plane.ask("POST", "/api/v1/route", asked, Idempotency_Key="k")).status == 429
    clock.forward(hours=1)
    await route(plane, asked, Idempotency_Key="k")


# --- settle, void, extend -----------------------------------------------------------------------------------------------


async def test_usage_is_priced_booked_once_and_said_again_answers_the_same(plane):
    hold_id = (await route(plane))["hold"]["id"]
    posted = {"hold_id": hold_id, "state": "posted", "cost_nusd": 61_000, "overrun_nusd": 0, "replayed": False}
    assert (await settle(plane, hold_id, SPENT)).body == posted
    assert (await settle(plane, hold_id, SPENT)).body == {**posted, "replayed": True}
    assert (await settle(plane, hold_id, {"usage": {"input_tokens": 1}})).status == 409
    assert [(entry["kind"], entry["cost_nusd"]) for entry in await entries(plane)] == [("post", 61_000)]


async def test_what_went_beyond_the_hold_is_an_overrun_booked_in_full(plane):
    hold_id = (await route(plane))["hold"]["id"]
    told = await settle(plane, hold_id, {"cost_usd": "0.00013"})
    assert (told.body["cost_nusd"], told.body["overrun_nusd"]) == (130_000, 10_000)


@pytest.mark.parametrize(
    ("model", "cost_usd", "cost_nusd", "shadow_nusd"),
    [("m", "0.25", 250_000_000, None), ("m", "0", 0, None), ("m", "1E-10", 1, None), ("sub", "0.5", 0, 500_000_000)],
)
async def test_a_cost_that_the_caller_knows_is_booked_as_it_stands(plane, model, cost_usd, cost_nusd, shadow_nusd):
    """
    Rounded upward to the nano-dollar; a subscription posts nothing and keeps it as its shadow.
    """
    hold_id = (await route(plane, {**SMALL, "model": model}))["hold"]["id"]
    assert (await settle(plane, hold_id, {"cost_usd": cost_usd})).body["cost_nusd"] == cost_nusd
    (entry,) = await entries(plane)
    assert (entry["cost_nusd"], entry["shadow_cost_nusd"], entry["price_source"]) == (cost_nusd, shadow_nusd, "caller")


@pytest.mark.parametrize("body", ["", '{"error": {"code": "rate_limit_exceeded"}}', {"error": {"code": "rate_limit_exceeded"}}])
async def test_a_failure_voids_the_hold_and_cools_the_rung(plane, body):
    hold_id = (await route(plane))["hold"]["id"]
    said = {"failure": {"status": 429, "headers": {"Retry-After": "60"}, "body": body}}
    voided = {"hold_id": hold_id, "state": "voided", "cost_nusd": 0, "overrun_nusd": 0, "replayed": False}
    assert (await settle(plane, hold_id, said)).body == voided
    assert (await settle(plane, hold_id, said)).body == {**voided, "replayed": True}
    again = await route(plane)
    assert (again["provider"], again["rungs"][0]["reason"]) == ("two", "cooldown")
    assert again["rungs"][0]["usable_at"] == "2026-11-20T12:01:00Z"


async def test_an_errors_own_numbers_are_nobodys_business(plane):
    for number in (10**30, -(10**30), 1e300):
        hold_id = (await route(plane))["hold"]["id"]
        said = {"failure": {"status": 400, "body": {"n": number}}}
        assert (await settle(plane, hold_id, said)).body["state"] == "voided"


async def test_a_failure_without_an_answer_is_assumed_to_have_cost_its_input(plane):
    body = await route(plane)
    told = await settle(plane, body["hold"]["id"], {"failure": {"status": None}})
    assert (told.body["state"], told.body["cost_nusd"]) == ("posted", 100_000)
    story = (await plane.ask("GET", f"/api/v1/calls/{body['call_id']}")).body
    assert (story["state"], story["attempts"][0]["quality"]) == ("unknown", "assumed")


async def test_a_void_gives_back_what_was_held_and_may_be_repeated(plane):
    hold_id = (await route(plane, {**SMALL, "model": "capped"}))["hold"]["id"]
    for replayed in (False, True):
        told = await plane.ask("POST", f"/api/v1/holds/{hold_id}/void")
        assert (told.status, told.body["state"], told.body["replayed"]) == (200, "voided", replayed)
    assert (await settle(plane, hold_id, SPENT)).status == 409
    await route(plane, {**SMALL, "model": "capped"})


async def test_a_posted_hold_cannot_be_voided(plane):
    hold_id = (await route(plane))["hold"]["id"]
    await settle(plane, hold_id, SPENT)
    assert (await plane.ask("POST", f"/api/v1/holds/{hold_id}/void")).status == 409


async def test_a_word_after_expiry_is_late_and_corrects_what_was_assumed(plane, clock):
    hold_id = (await route(plane))["hold"]["id"]
    clock.forward(seconds=301)
    await plane.daemon.lane.run(Sweep())
    told = await settle(plane, hold_id, SPENT)
    assert (told.body["state"], told.body["cost_nusd"]) == ("late", 61_000 - 120_000)
    assert (await settle(plane, hold_id, SPENT)).body == {**told.body, "replayed": True}
    assert sum(entry["cost_nusd"] for entry in await entries(plane)) == 61_000


async def test_a_hold_may_be_given_more_time_and_another_estimate(plane, clock):
    hold_id = (await route(plane))["hold"]["id"]
    clock.forward(seconds=299)
    asked = {"ttl_s": 600, "estimate": {"input_tokens": 1_000, "output_tokens": 100}}
    told = await plane.ask("POST", f"/api/v1/holds/{hold_id}/extend", asked)
    assert told.body == {
        "hold_id": hold_id,
        "state": "held",
        "expires_at": "2026-11-20T12:14:59.000000Z",
        "estimate_nusd": 1_200_000,
    }
    clock.forward(seconds=10)
    await plane.daemon.lane.run(Sweep())
    assert (await settle(plane, hold_id, SPENT)).body["state"] == "posted"
    assert (await plane.ask("POST", f"/api/v1/holds/{hold_id}/extend", {"ttl_s": 1})).status == 404


async def test_more_time_alone_leaves_the_estimate(plane):
    hold_id = (await route(plane))["hold"]["id"]
    told = await plane.ask("POST", f"/api/v1/holds/{hold_id}/extend", {"ttl_s": 600})
    assert (told.body["estimate_nusd"], told.body["expires_at"]) == (120_000, "2026-11-20T12:10:00.000000Z")


# --- whose call it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/v1/holds/{hold}/settle", SPENT),
        ("POST", "/api/v1/holds/{hold}/void", None),
        ("POST", "/api/v1/holds/{hold}/extend", {"ttl_s": 1}),
        ("GET", "/api/v1/calls/{call}", None),
    ],
)
async def test_another_callers_call_looks_like_none_and_the_admins_is_everybodys(plane, method, path, body):
    mine = await route(plane)
    exact = path.format(hold=mine["hold"]["id"], call=mine["call_id"])
    nobodys = path.format(hold="0", call="0")
    others, missing = await plane.ask(method, exact, body, token=TOKENS["other"]), await plane.ask(method, nobodys, body)
    assert (others.status, others.body["detail"]) == (missing.status, missing.body["detail"]) == (404, missing.body["detail"])
    assert (await plane.ask(method, exact, body, token=ADMIN_TOKEN)).status == 200


async def test_the_whole_story_is_told(plane):
    body = await route(plane, {**SMALL, "labels": ["a"]})
    await settle(plane, body["hold"]["id"], SPENT)
    story = (await plane.ask("GET", f"/api/v1/calls/{body['call_id']}")).body
    assert set(story) == {"id", "caller", "model", "labels", "state", "decision", "attempts", "entries", "cost_nusd"}
    assert (story["state"], story["cost_nusd"], story["labels"]) == ("done", 61_000, ["a"])
    assert story["decision"]["rungs"] == body["rungs"]
    assert story["entries"] == await entries(plane)


# --- what is not understood ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("route", {"modle": "m"}, "The field `modle` is not known: did you mean 'model'?"),
        ("route", {"task": {"ident": "x"}}, "The field `task.ident` is not known: write one of 'id'."),
        ("route", {"input_tokens": -1}, "`input_tokens`: must be greater than or equal to 0."),
        ("route", {"input_tokens": 10**9 + 1}, "`input_tokens`"),
        ("route", {"input_tokens": "100"}, "`input_tokens`: must be a valid integer."),
        ("route", {"input_tokens": True}, "`input_tokens`"),
        ("route", {"input_tokens": 1.5}, "`input_tokens`"),
        ("route", {"labels": "a"}, "`labels`"),
        ("route", {"labels": ["a"] * 33}, "`labels`"),
        ("route", {"labels": ["a" * 129]}, "`labels.0`"),
        ("route", {"labels": ["a\0"]}, "`labels.0`: must be printable."),
        ("route", {"ttl_s": 0}, "`ttl_s`"),
        ("route", {"ttl_s": 86_401}, "`ttl_s`"),
        ("route", {"dry_run": "yes"}, "`dry_run`"),
        ("holds/x/settle", {}, "Send exactly one of `usage`, `cost_usd` and `failure`."),
        ("holds/x/settle", {**SPENT, "cost_usd": "1"}, "Send exactly one of"),
        ("holds/x/settle", {"usage": {"output_tokens": 1}}, "The field `usage.input_tokens` is missing."),
        ("holds/x/settle", {"usage": {"input_tokens": 1, "tokens": 1}}, "The field `usage.tokens` is not known"),
        ("holds/x/settle", {"cost_usd": 1}, "`cost_usd`: must be a valid string."),
        ("holds/x/settle", {"cost_usd": "-1"}, "`cost_usd`"),
        ("holds/x/settle", {"cost_usd": "NaN"}, "`cost_usd`"),
        ("holds/x/settle", {"cost_usd": "1e15"}, "`cost_usd`"),
        ("holds/x/settle", {"failure": {}}, "The field `failure.status` is missing."),
        ("holds/x/settle", {"failure": {"status": 99}}, "`failure.status`"),
        ("holds/x/settle", {"failure": {"status": 500, "headers": {"a": 1}}}, "`failure.headers.a`"),
        ("holds/x/extend", {}, "The field `ttl_s` is missing."),
        ("holds/x/extend", {"ttl_s": 1, "estimate": {"input_tokens": 1}}, "The field `estimate.output_tokens` is missing."),
    ],
)
@shares
async def test_a_field_that_does_not_fit_is_named_in_one_sentence(shared, path, body, said):
    told = await shared.ask("POST", f"/api/v1/{path}", body)
    assert told.status == 400
    assert said in told.body["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff",
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        b'{"model": "m", "model": "m"}',
        b'{"task": ' + b"[" * 200_000,
        b'{"failure": ' + b'{"body":' * 500 + b"1" + b"}" * 501,
        b'{"input_tokens": ' + b"9" * 6_000 + b"}",
        b'{"input_tokens": NaN}',
    ],
)
@pytest.mark.parametrize("path", ["route", "holds/x/settle"])
@shares
async def test_what_is_no_json_is_refused_whatever_it_is(shared, path, body):
    told = await shared.ask("POST", f"/api/v1/{path}", body)
    assert (told.status, told.body["code"]) == (400, "malformed_body")


@shares
async def test_a_body_larger_than_any_of_ours_is_refused(shared):
    told = await shared.ask("POST", "/api/v1/route", b'{"model": "' + b"m" * 300_000 + b'"}')
    assert (told.status, told.body["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("key", ["k" * 257, "a\tb"])
@shares
async def test_a_key_that_cannot_be_kept_is_refused(shared, key):
    told = await shared.ask("POST", "/api/v1/route", SMALL, Idempotency_Key=key)
    assert (told.status, "Idempotency-Key" in told.body["detail"]) == (400, True)


@pytest.mark.parametrize("path", ["calls/%00", "calls/%ED%A0%80", "calls/%FF", "calls/" + "x" * 4_000, "calls/a%2Fb"])
@shares
async def test_an_id_that_is_none_is_not_found(shared, path):
    assert (await shared.ask("GET", f"/api/v1/{path}")).status == 404


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("model", "input_tokens", "labels", "task", "ttl_s", "usage", "cost_usd", "failure", "headers", "estimate", "x")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["route", "holds/x/settle", "holds/x/extend"]), body=st.dictionaries(st.sampled_from(FIELDS), JSON))
@shares
async def test_no_json_breaks_a_handler(shared, path, body):
    """
    Whatever is said, the answer is a decision or a refusal of the caller's own words, never a fault of ours.
    """
    told = await shared.ask("POST", f"/api/v1/{path}", json.dumps(body).encode())
    assert told.status in {201, 200, 400, 404}, told
