"""The catalog edited over HTTP: what may be edited, on which version, by whom, and what goes with it."""

import asyncio

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_kit import Clock
from plane_kit import open_plane

PROVIDER = {"family": "openai", "base_url": "https://u.example/v1", "credential": "none"}
FILE = """
[providers.theirs]
family = "openai"
base_url = "http://127.0.0.1:9/v1"
network = "loopback"
credential = "none"
[[models]]
name = "lab/of-file"
provider = "theirs"
aliases = ["nick"]
[[budgets]]
name = "of-file"
subject = "everyone"
unit = "requests"
limit = 1_000_000
window = "month"
[routing]
default_model = "lab/of-file"
[[routing.rules]]
condition = "priority == 0"
model = "lab/of-file"
[[routing.rules]]
condition = "priority == 1"
model = "lab/of-file"
[workflows.of-file]
stages = [{ name = "s", model = "nick" }]
"""
COLLECTIONS = ("providers", "models", "limits", "rules", "workflows", "callers")
SAMPLES = {
    "providers": {"name": "new", **PROVIDER},
    "models": {"name": "lab/new", "attachments": ["a"]},
    "limits": {"name": "new", "subject": "everyone", "unit": "requests", "limit": 5, "window": "day"},
    "rules": {"condition": "priority == 7", "model": "lab/m"},
    "workflows": {"name": "new", "stages": [{"name": "plan", "model": "lab/m"}]},
    "callers": {"name": "new"},
}
CHANGES = {
    "providers": {"display_name": "New"},
    "models": {"display_name": "New"},
    "limits": {"limit": 6},
    "rules": {"reason": "why"},
    "workflows": {"stages": [{"name": "do", "model": "lab/m"}]},
    "callers": {"scopes": ["read"]},
}


async def furnish(plane):
    """Three providers and a model of the API."""
    for name in "abc":
        assert (await plane.admin("POST", "providers", {"name": name, **PROVIDER})).status == 201
    assert (await plane.admin("POST", "models", {"name": "lab/m", "attachments": ["a", ["b", "c"]]})).status == 201


@pytest.fixture
async def plane(tmp_path):
    async with open_plane(tmp_path, FILE, Clock()) as plane:
        await furnish(plane)
        yield plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    """For those that are all refused."""
    async with open_plane(tmp_path_factory.mktemp("shared"), FILE, Clock()) as plane:
        await furnish(plane)
        yield plane


shares = pytest.mark.asyncio(loop_scope="module")


async def read(plane, path):
    told = await plane.admin("GET", path)
    assert told.status == 200, told
    return told.body


async def edit(plane, path, patch, version=None, method="PATCH"):
    version = (await read(plane, path.removesuffix("/attachments")))["version"] if version is None else version
    return await plane.admin(method, path, patch, If_Match=f'"{version}"')


async def epoch(plane):
    return (await read(plane, "status"))["epoch"]


def ladder(model):
    return [(rung["provider"], rung["priority"]) for rung in model["attachments"]]


def item(made):
    """The path of what was just made."""
    return made.headers["location"].removeprefix("/api/v1/")


# --- made, read, changed, deleted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COLLECTIONS)
async def test_a_row_is_made_read_changed_and_deleted(tmp_path, database, kind):
    async with open_plane(tmp_path, FILE, Clock()) as plane:
        await furnish(plane)
        before = await epoch(plane)
        made = await plane.admin("POST", kind, SAMPLES[kind])
        assert (made.status, made.headers["etag"], made.body["version"], made.body["managed_by"]) == (201, '"1"', 1, "api")
        told = await plane.admin("GET", item(made))
        assert (told.status, told.headers["etag"]) == (200, '"1"')
        assert told.body == {key: value for key, value in made.body.items() if key != "token"}
        listed = await read(plane, f"{kind}?limit=1000")
        assert told.body in listed["items"]
        changed = await plane.admin("PATCH", item(made), CHANGES[kind], If_Match='"1"')
        assert (changed.status, changed.headers["etag"], changed.body["version"]) == (200, '"2"', 2)
        (field,) = CHANGES[kind]
        assert changed.body[field] == CHANGES[kind][field]
        assert changed.body == await read(plane, item(made))
        gone = await plane.admin("DELETE", item(made), If_Match='"2"')
        assert (gone.status, gone.body["deleted"]) == (200, made.body.get("name", made.body.get("id")))
        assert (await plane.admin("GET", item(made))).status == 404
        assert await epoch(plane) == before + 3


@pytest.mark.parametrize("kind", COLLECTIONS)
async def test_an_edit_names_the_version_it_was_made_on(plane, kind):
    made = await plane.admin("POST", kind, SAMPLES[kind])
    for method, body in (("PATCH", CHANGES[kind]), ("DELETE", None)):
        told = await plane.admin(method, item(made), body)
        assert (told.status, told.body["code"]) == (428, "version_missing")
        for tags in ('"2"', '"0", "7"', 'W/"1"', "1", '""', '"1x"'):
            told = await plane.admin(method, item(made), body, If_Match=tags)
            assert (told.status, told.body["code"]) == (412, "stale"), tags
    assert (await plane.admin("PATCH", item(made), CHANGES[kind], If_Match='"9", "1"')).status == 200
    assert (await plane.admin("DELETE", item(made), If_Match="*")).status == 200
    assert (await plane.admin("DELETE", item(made), If_Match="*")).status == 404


@pytest.mark.parametrize("kind", [kind for kind in COLLECTIONS if kind != "rules"])  # a rule's id is drawn anew
async def test_a_row_that_is_made_again_has_a_version_it_never_had(plane, kind):
    """Who still holds the old one's ETag does not edit the new one by it."""
    made = await plane.admin("POST", kind, SAMPLES[kind])
    await plane.admin("DELETE", item(made), If_Match='"1"')
    again = await plane.admin("POST", kind, SAMPLES[kind])
    assert again.headers["etag"] == '"2"'
    assert (await plane.admin("PATCH", item(again), CHANGES[kind], If_Match='"1"')).status == 412


@pytest.mark.parametrize("kind", COLLECTIONS)
async def test_a_change_that_changes_nothing_is_none(plane, kind):
    made = await plane.admin("POST", kind, SAMPLES[kind])
    before = await epoch(plane), len((await read(plane, "audit?limit=1000"))["items"])
    for patch in ({}, dict.fromkeys(CHANGES[kind])):
        told = await plane.admin("PATCH", item(made), patch, If_Match='"1"')
        assert (told.status, told.body["version"]) == (200, 1)
    assert (await epoch(plane), len((await read(plane, "audit?limit=1000"))["items"])) == before


@pytest.mark.parametrize("kind", COLLECTIONS)
async def test_an_idempotency_key_makes_one_row(plane, kind):
    first = await plane.admin("POST", kind, SAMPLES[kind], Idempotency_Key="k-1")
    again = await plane.admin("POST", kind, SAMPLES[kind], Idempotency_Key="k-1")
    assert (again.status, again.headers["location"]) == (201, first.headers["location"])
    assert again.headers["idempotency-replayed"] == "true"
    assert again.body == {**first.body, **({"token": None} if kind == "callers" else {})}
    other = await plane.admin("POST", kind, {**SAMPLES[kind], **CHANGES[kind]}, Idempotency_Key="k-1")
    assert (other.status, other.body["code"]) == (409, "conflict")
    bad = await plane.admin("POST", kind, SAMPLES[kind], Idempotency_Key="k" * 257)
    assert (bad.status, bad.body["param"]) == (400, "Idempotency-Key")
    if kind != "rules":
        assert (await plane.admin("POST", kind, SAMPLES[kind])).status == 409


# --- what the file manages ------------------------------------------------------------------------------------------------

OF_FILE = {
    "providers": "providers/theirs",
    "models": "models/lab%2Fof-file",
    "limits": "limits/of-file",
    "rules": "rules/file-1",
    "workflows": "workflows/of-file",
    "callers": "callers/ci",
}


@shares
@pytest.mark.parametrize("kind", COLLECTIONS)
async def test_a_row_of_the_file_refuses_edits_and_says_where_to_make_them(shared, kind):
    before = await epoch(shared)
    for method, body in (("PATCH", CHANGES[kind]), ("DELETE", None)):
        told = await shared.admin(method, OF_FILE[kind], body, If_Match="*")
        assert (told.status, told.body["code"]) == (409, "conflict")
        assert "comes from the configuration file: edit it there, then run `quota-router apply`." in told.body["detail"]
    if kind != "rules":
        name = (await read(shared, OF_FILE[kind]))["name"]
        told = await shared.admin("POST", kind, {**SAMPLES[kind], "name": name})
        assert told.status == 409
    assert await epoch(shared) == before


async def test_pausing_works_on_rows_of_the_file_and_outlives_an_apply(plane):
    told = await plane.admin("POST", "providers/theirs/pause", {"reason": "moving house"})
    assert (told.body["paused"], told.body["paused_reason"], told.body["status"]) == (True, "moving house", "paused")
    assert (await plane.admin("POST", "reload", {})).body == {"changes": []}
    route = await plane.ask("POST", "/api/v1/route", {"model": "nick", "dry_run": True})
    assert (route.status, route.body["rungs"][0]["reason"]) == (503, "paused")
    told = await plane.admin("POST", "providers/theirs/resume")
    assert (told.body["paused"], told.body["paused_reason"], told.body["status"]) == (False, "", "ok")
    lines = (await read(plane, "audit?kind=provider&name=theirs"))["items"]
    assert [(line["action"], line["admin"], "paused" in line["after"]) for line in lines] == [
        ("changed", "admin", False),
        ("changed", "admin", True),
        ("added", "file", False),
    ]
    assert (await plane.admin("POST", "providers/nobody/pause")).status == 404


async def test_a_file_that_takes_its_rows_away_leaves_those_of_the_api(plane):
    plane.file.write_text(plane.file.read_text().partition("[providers.theirs]")[0])
    changes = (await plane.admin("POST", "reload", {"prune": True})).body["changes"]
    assert {change["action"] for change in changes} == {"pruned"}
    assert ladder(await read(plane, "models/lab%2Fm")) == [("a", 0), ("b", 1), ("c", 1)]


# --- attachments ----------------------------------------------------------------------------------------------------------


@shares
@pytest.mark.parametrize("body", [{"name": "x"}, {"name": "x", "attachments": []}, {"name": "x", "attachments": None}])
async def test_row_2_2_a_model_is_not_made_without_an_attachment(shared, body):
    told = await shared.admin("POST", "models", body)
    assert told.status == 400
    assert told.body["detail"].startswith("no explicit provider attachments configured for model 'x'")


async def test_row_2_2_a_model_that_lost_all_is_hidden_and_refused_with_the_reason(plane):
    await edit(plane, "models/lab%2Fm", {"attachments": ["a"]})
    await plane.admin("DELETE", "providers/a", If_Match="*")
    for path in ("/v1/models", "/v1/models/lab%2Fm"):
        told = await plane.ask("GET", path)
        assert "lab/m" not in [model["id"] for model in told.body.get("data", [])]
    for method, path, body in (
        ("POST", "/v1/chat/completions", {"model": "lab/m", "messages": []}),
        ("POST", "/api/v1/route", {"model": "lab/m"}),
    ):
        told = await plane.ask(method, path, body)
        said = told.body.get("detail") or told.body["error"]["message"]
        assert (told.status, "no explicit provider attachments configured" in said) == (404, True)


async def test_row_2_3_attachments_are_read_in_order_with_all_that_an_editor_shows(plane):
    await edit(plane, "providers/b", {"display_name": "B", "description": "the second", "credential": "env:NOWHERE"})
    told = await plane.admin("GET", "models/lab%2Fm/attachments")
    assert (told.headers["etag"], told.body["next"]) == ('"1"', None)
    assert told.body["items"] == (await read(plane, "models/lab%2Fm"))["attachments"]
    assert [(rung["provider"], rung["display_name"], rung["status"]) for rung in told.body["items"]] == [
        ("a", "", "ok"),
        ("b", "B", "no_credential"),
        ("c", "", "ok"),
    ]
    assert told.body["items"][1] == {
        "provider": "b",
        "display_name": "B",
        "description": "the second",
        "family": "openai",
        "priority": 1,
        "weight": 1,
        "upstream_model": "lab/m",
        "prices": {},
        "unmetered": False,
        "enabled": True,
        "has_credential": False,
        "status": "no_credential",
    }


async def test_row_2_4_absent_and_null_leave_attachments_and_a_list_replaces_all(plane):
    path = "models/lab%2Fm"
    for patch in ({"display_name": "M"}, {"attachments": None, "display_name": "N"}):
        assert ladder((await edit(plane, path, patch)).body) == [("a", 0), ("b", 1), ("c", 1)]
    ladders = [
        (["c"], [("c", 0)]),
        (["b", "a"], [("b", 0), ("a", 1)]),
        ([["a", "b", "c"]], [("a", 0), ("b", 0), ("c", 0)]),
        ([{"provider": "a", "priority": 5}, "b"], [("a", 5), ("b", 6)]),
    ]
    for sent, read_back in ladders:
        assert ladder((await edit(plane, path, {"attachments": sent})).body) == read_back
        assert ladder(await read(plane, path)) == read_back
    sent = [{"provider": "c", "weight": 3, "upstream_model": "u", "unmetered": True, "enabled": False}, "a"]
    told = await edit(plane, f"{path}/attachments", {"attachments": sent}, method="PUT")
    assert told.status == 200
    first = told.body["items"][0]
    assert (first["weight"], first["upstream_model"], first["unmetered"], first["enabled"]) == (3, "u", True, False)


@shares
@pytest.mark.parametrize(
    ("sent", "param", "says"),
    [
        ([], None, "no explicit provider attachments configured"),
        (["a", "a"], "attachments.1", "provider 'a' serves model 'lab/m' already: name it once."),
        ([["a", "b"], "b"], "attachments.1", "provider 'b' serves model 'lab/m' already"),
        ([["a", "a"]], "attachments.0.1", "provider 'a' serves model 'lab/m' already"),
        (["a", "nobody"], "attachments.1", "provider 'nobody' is not known"),
        (["a", "other"], "attachments.1", "provider 'other' speaks anthropic, but model 'lab/m' is openai"),
        ([[]], "attachments.0", "a tier has at least one provider"),
        ([["a", {"provider": "b", "priority": 1}]], "attachments.0.1.priority", "a nested list is one tier already"),
        ([1], "attachments.0", "attachments.0"),
        ([["a", ["b"]]], "attachments.0.1", "attachments.0.1"),
        ([{"provider": "a", "wieght": 1}], "attachments.0.wieght", "did you mean 'weight'?"),
        ([{"provider": "a", "weight": 0}], "attachments.0.weight", "greater than or equal to 1"),
        ("a", "attachments", "array"),
    ],
)
async def test_row_2_4_a_ladder_that_cannot_be_is_refused_and_the_item_named(shared, sent, param, says):
    if "other" in str(sent):
        await shared.admin("POST", "providers", {"name": "other", "vendor": "anthropic"})
    before = await read(shared, "models/lab%2Fm")
    for method, path in (("PATCH", "models/lab%2Fm"), ("PUT", "models/lab%2Fm/attachments")):
        told = await shared.admin(method, path, {"attachments": sent}, If_Match="*")
        assert (told.status, told.body.get("param")) == (400, param), told
        assert says in told.body["detail"]
    assert await read(shared, "models/lab%2Fm") == before


async def test_row_2_4_a_family_change_that_would_orphan_an_attachment_is_refused(plane):
    told = await edit(plane, "providers/a", {"family": "anthropic"})
    assert (told.status, told.body["detail"]) == (
        409,
        "The provider 'a' serves lab/m in openai: detach it there before it speaks anthropic.",
    )
    assert (await edit(plane, "providers/a", {"vendor": "anthropic", "family": "anthropic"})).status == 409
    told = await edit(plane, "models/lab%2Fm", {"family": "anthropic"})
    assert (told.status, "send attachments that speak anthropic" in told.body["detail"]) == (409, True)
    await plane.admin("POST", "providers", {"name": "other", "vendor": "anthropic"})
    told = await edit(plane, "models/lab%2Fm", {"family": "anthropic", "attachments": ["other", "b"]})
    assert (told.status, told.body["param"]) == (400, "attachments.1")
    told = await edit(plane, "models/lab%2Fm", {"family": "anthropic", "attachments": ["other"]})
    assert (told.status, told.body["family"]) == (200, "anthropic")
    assert (await edit(plane, "providers/a", {"family": "anthropic"})).status == 200


@pytest.mark.parametrize(
    ("attachments", "deleted", "left"),
    [
        (["a", ["b", "c"]], "a", [("b", 0), ("c", 0)]),
        (["a", ["b", "c"]], "b", [("a", 0), ("c", 1)]),
        ([["a", "b", "c"]], "a", [("b", 0), ("c", 0)]),
        (["c", "a", "b"], "a", [("c", 0), ("b", 1)]),
    ],
)
async def test_row_2_5_a_deleted_provider_leaves_the_others_in_their_tiers(tmp_path, database, attachments, deleted, left):
    async with open_plane(tmp_path, FILE, Clock()) as plane:
        await furnish(plane)
        await edit(plane, "models/lab%2Fm", {"attachments": attachments})
        told = await plane.admin("DELETE", f"providers/{deleted}", If_Match="*")
        assert told.body == {"deleted": deleted, "models_changed": ["lab/m"], "models_disabled": [], "limits_idle": []}
        assert ladder(await read(plane, "models/lab%2Fm")) == left


async def test_row_2_5_a_model_that_loses_all_is_disabled_and_named_and_comes_back(plane):
    await plane.admin("POST", "models", {"name": "only-a", "attachments": ["a"]})
    await plane.admin("POST", "limits", {"name": "on-a", "subject": "provider:a", "unit": "requests", "limit": 1, "window": "day"})
    told = await plane.admin("DELETE", "providers/a", If_Match="*")
    assert told.body == {"deleted": "a", "models_changed": ["lab/m"], "models_disabled": ["only-a"], "limits_idle": ["on-a"]}
    model = await read(plane, "models/only-a")
    assert (model["attachments"], model["usable"], model["version"]) == ([], False, 2)
    assert (await edit(plane, "models/only-a", {"display_name": "x"})).status == 400
    told = await edit(plane, "models/only-a/attachments", {"attachments": ["b"]}, method="PUT")
    assert (told.status, [rung["provider"] for rung in told.body["items"]]) == (200, ["b"])
    assert (await plane.ask("POST", "/api/v1/route", {"model": "only-a", "dry_run": True})).status == 200


async def test_row_2_5_what_the_file_or_a_rule_needs_is_not_deleted(plane):
    plane.file.write_text(plane.file.read_text().replace('provider = "theirs"', 'attachments = ["theirs"]'))
    await plane.admin("POST", "rules", {"condition": "headroom['a'] < 0.1", "provider": "b"})
    for name in ("a", "b"):
        told = await plane.admin("DELETE", f"providers/{name}", If_Match="*")
        assert (told.status, "is named by rule 3 (headroom['a'] < 0.1): change that first." in told.body["detail"]) == (409, True)
    assert (await plane.admin("DELETE", "providers/c", If_Match="*")).status == 200


async def test_a_call_that_runs_keeps_the_ladder_it_began_with(plane):
    """What was held on a provider is settled after it is gone, at what was known then."""
    held = (await plane.ask("POST", "/api/v1/route", {"model": "lab/m", "input_tokens": 5, "max_output_tokens": 5})).body
    assert held["provider"] == "a"
    await plane.admin("DELETE", "providers/a", If_Match="*")
    told = await plane.ask("POST", f"/api/v1/holds/{held['hold']['id']}/settle", {"cost_usd": "0.01"})
    assert (told.status, told.body["state"], told.body["cost_nusd"]) == (200, "posted", 10_000_000)
    after = (await plane.ask("POST", "/api/v1/route", {"model": "lab/m", "input_tokens": 5, "dry_run": True})).body
    assert after["provider"] == "b"


# --- names with slashes ---------------------------------------------------------------------------------------------------


async def test_row_3_8_names_with_slashes_work_in_every_path(plane):
    name = "deepseek/deepseek-chat"
    made = await plane.admin("POST", "models", {"name": name, "attachments": ["a"], "aliases": ["x/y"]})
    assert made.headers["location"] == "/api/v1/models/deepseek%2Fdeepseek-chat"
    path = item(made)
    assert (await read(plane, path))["name"] == name
    assert (await edit(plane, f"{path}/attachments", {"attachments": ["b"]}, method="PUT")).status == 200
    assert (await plane.ask("GET", f"/v1/models/{name}")).body["id"] == name
    limit = {"kind": "quota", "subject": "account:a", "unit": "tokens", "limit": 5, "window": "5h", "anchor": "first_use"}
    made = await plane.admin("POST", "limits", limit)
    assert (made.body["name"], made.headers["location"]) == ("a/tokens/5h", "/api/v1/limits/a%2Ftokens%2F5h")
    assert (await edit(plane, item(made), {"limit": 6})).body["limit"] == 6
    on = {"name": "on", "subject": f"attachment:{name}/b", "unit": "usd", "limit": "0.5", "window": "month"}
    assert (await plane.admin("POST", "limits", on)).status == 201
    rule = await plane.admin("POST", "rules", {"condition": "model == 'x/y'", "model": "x/y"})
    assert rule.status == 201
    stages = [{"name": "s", "model": name}]
    assert (await plane.admin("POST", "workflows", {"name": "w", "stages": stages})).status == 201
    assert (await plane.admin("DELETE", path, If_Match="*")).status == 409
    tricky = await plane.admin("POST", "models", {"name": "a/attachments", "attachments": ["a"]})
    assert (await read(plane, item(tricky)))["name"] == "a/attachments"


# --- limits, rules, callers -------------------------------------------------------------------------------------------------


async def test_a_limit_that_is_made_in_mid_window_starts_with_what_was_spent(tmp_path, database):
    async with open_plane(tmp_path, FILE, Clock()) as plane:
        await furnish(plane)
        held = (await plane.ask("POST", "/api/v1/route", {"model": "lab/m", "input_tokens": 5, "max_output_tokens": 5})).body
        await plane.ask("POST", f"/api/v1/holds/{held['hold']['id']}/settle", {"cost_usd": "0.01"})
        await plane.ask("POST", "/api/v1/route", {"model": "lab/m", "input_tokens": 7, "max_output_tokens": 1})
        made = await plane.admin("POST", "limits", {**SAMPLES["limits"], "subject": "model:lab/m"})
        assert (made.body["posted"], made.body["held"], made.body["remaining"]) == (1, 1, 3)
        changed = await edit(plane, "limits/new", {"unit": "tokens", "limit": 100, "subject": "provider:a"})
        assert (changed.body["posted"], changed.body["held"]) == (10, 8)
        assert (await plane.admin("DELETE", "limits/new", If_Match="*")).status == 200
        made = await plane.admin("POST", "limits", {**SAMPLES["limits"], "window": "month"})
        assert (made.body["posted"], made.body["held"]) == (1, 1)


@shares
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({**SAMPLES["limits"], "name": None}, "name"),
        ({key: value for key, value in SAMPLES["limits"].items() if key != "subject"}, "subject"),
        ({**SAMPLES["limits"], "subject": "provider:nobody"}, "subject"),
        ({**SAMPLES["limits"], "unit": "euros"}, "unit"),
        ({**SAMPLES["limits"], "limit": "lots"}, "limit"),
        ({**SAMPLES["limits"], "limit": 1.5}, "limit"),
        ({**SAMPLES["limits"], "limit": -1}, "limit"),
        ({**SAMPLES["limits"], "window": "fortnight"}, "window"),
        ({**SAMPLES["limits"], "name": "a/b"}, "name"),
        ({**SAMPLES["limits"], "kind": "quota"}, "name"),
        ({**SAMPLES["limits"], "kind": "quota", "name": None}, "subject"),
        ({**SAMPLES["limits"], "kind": "quota", "name": None, "subject": "account:nobody"}, "subject"),
        ({**SAMPLES["limits"], "kind": "fine"}, "kind"),
    ],
)
async def test_a_limit_that_cannot_be_is_refused(shared, body, param):
    told = await shared.admin("POST", "limits", body)
    assert (told.status, told.body["param"]) == (400, param), told


async def test_a_quota_keeps_what_it_is_named_by(plane):
    quota = {"kind": "quota", "subject": "account:a", "unit": "tokens", "limit": 5, "window": "5h"}
    made = await plane.admin("POST", "limits", quota)
    told = await edit(plane, item(made), {"window": "1h"})
    assert (told.status, told.body["param"]) == (400, "window")
    assert (await plane.admin("POST", "limits", quota)).status == 409


async def rules_in_order(plane):
    return [rule["condition"] for rule in (await read(plane, "rules"))["items"]]


async def test_rules_stand_where_they_were_put_between_those_of_the_file(plane):
    for number, position in ((2, None), (3, 1), (4, 2), (5, 3), (6, 6)):
        told = await plane.admin(
            "POST", "rules", {"condition": f"priority == {number}", "strategy": "cheapest", "position": position}
        )
        assert (told.status, told.body["position"]) == (201, position or 3)
    order = [3, 4, 5, 0, 1, 6, 2]
    assert await rules_in_order(plane) == [f"priority == {number}" for number in order]
    made = (await read(plane, "rules"))["items"]
    moved = await edit(plane, f"rules/{made[-1]['id']}", {"position": 1})
    assert (moved.status, moved.body["position"], moved.body["version"]) == (200, 1, made[-1]["version"] + 1)
    assert await rules_in_order(plane) == [f"priority == {number}" for number in (2, 3, 4, 5, 0, 1, 6)]
    plane.file.write_text(
        plane.file.read_text().replace('[[routing.rules]]\ncondition = "priority == 1"\nmodel = "lab/of-file"\n', "")
    )
    assert (await plane.admin("POST", "reload", {"prune": True})).status == 200
    assert await rules_in_order(plane) == [f"priority == {number}" for number in (2, 3, 4, 5, 0, 6)]
    for position in (0, 99):
        told = await plane.admin("POST", "rules", {"condition": "stream == true", "strategy": "cheapest", "position": position})
        assert (told.status, told.body["param"]) == (400, "position")


async def test_an_idempotency_key_names_the_rule_that_was_made_not_those_that_made_room(plane):
    """Where ranks run out, the rules around a new one move with it, in the same edit."""
    for number in range(12):
        body = {"condition": f"priority == {number + 10}", "strategy": "cheapest", "position": 2}
        made = await plane.admin("POST", "rules", body, Idempotency_Key=f"k-{number}")
        again = await plane.admin("POST", "rules", body, Idempotency_Key=f"k-{number}")
        assert (again.body["id"], again.body["condition"]) == (made.body["id"], body["condition"])
    assert any(line["action"] == "changed" for line in (await read(plane, "audit?kind=rule&limit=1000"))["items"])


async def test_a_word_of_a_rule_is_taken_away_by_an_empty_text(plane):
    made = await plane.admin("POST", "rules", {"condition": "priority == 5", "model": "lab/m", "provider": "a", "reason": "x"})
    told = await edit(plane, item(made), {"provider": "", "reason": ""})
    assert (told.body["model"], told.body["provider"], told.body["reason"]) == ("lab/m", None, None)
    told = await edit(plane, item(made), {"model": ""})
    assert (told.status, "changes nothing when it matches" in told.body["detail"]) == (400, True)


@shares
@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"model": "lab/m"}, "condition", "missing"),
        ({"condition": "prioritty == 0", "model": "lab/m"}, "condition", "the rule, column 1: name 'prioritty' is not known"),
        ({"condition": "priority == 0", "model": "lab/n"}, "model", "did you mean 'lab/m'?"),
        ({"condition": "priority == 0", "provider": "theirs", "model": "lab/m"}, "provider", "does not serve"),
        ({"condition": "priority == 0", "model": "lab/m", "share": 20}, "share", "write 0.2 for 20 %"),
        ({"condition": "priority == 0", "model": "lab/m", "on_unusable": "stop"}, "on_unusable", "fall_through"),
        ({"condition": "x" * 1001, "model": "lab/m"}, "condition", "1000"),
        ({"condition": "budget_used['nothing'] > 1", "model": "lab/m"}, "condition", "limit 'nothing' is not known"),
    ],
)
async def test_a_rule_that_cannot_be_is_refused_when_it_is_saved(shared, body, param, says):
    told = await shared.admin("POST", "rules", body)
    assert (told.status, told.body["param"]) == (400, param), told
    assert says in told.body["detail"]


async def test_a_new_caller_is_told_its_token_once_and_is_known_by_it(plane):
    made = await plane.admin("POST", "callers", {"name": "new", "scopes": ["read"]})
    token = made.body["token"]
    assert token.startswith("qr_")
    assert (await plane.ask("GET", "/api/v1/status", token=token)).status == 200
    assert (await plane.ask("POST", "/api/v1/route", {}, token=token)).status == 403
    await edit(plane, "callers/new", {"scopes": ["call"]})
    assert (await plane.ask("GET", "/api/v1/status", token=token)).status == 403
    shown = str([await read(plane, path) for path in ("callers", "callers/new", "audit?limit=1000")])
    assert token not in shown
    assert made.body["version"] == 1
    digest = plane.daemon.lane.catalog.callers["new"].token_sha256
    assert digest not in shown
    twin = await plane.admin("POST", "callers", {"name": "twin", "token_sha256": digest})
    assert (twin.status, "'new' has the same token" in twin.body["detail"]) == (400, True)
    assert (await plane.admin("POST", "callers", {"name": "admin"})).status == 409
    await plane.admin("DELETE", "callers/new", If_Match="*")
    assert (await plane.ask("GET", "/api/v1/status", token=token)).status == 401


# --- what only the host's file may say --------------------------------------------------------------------------------------


@shares
@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "vendor": "ollama"},
        {"name": "x", "family": "openai", "base_url": "http://10.0.0.1/v1", "network": "private", "credential": "none"},
        {"name": "x", **PROVIDER, "allow": ["127.0.0.1:80"]},
        {"name": "x", "command_template": ["sh", "{prompt_file}"]},
        {"name": "x", "command_template": ["sh", "{prompt_file}"], "env": {"A": "1"}},
    ],
)
async def test_what_only_the_host_s_file_may_say_is_forbidden(shared, body):
    told = await shared.admin("POST", "providers", body)
    assert (told.status, told.body["code"]) == (403, "forbidden")
    patch = {key: value for key, value in body.items() if key != "name"}
    told = await shared.admin("PATCH", "providers/b", patch, If_Match="*")
    assert told.status in {400, 403}
    assert (await read(shared, "providers/b"))["version"] == 1


async def test_a_network_that_the_file_lets_the_api_into_is_set(tmp_path):
    async with open_plane(tmp_path, FILE, Clock(), server='api_networks = ["loopback"]') as plane:
        assert (await plane.admin("POST", "providers", {"name": "x", "vendor": "ollama"})).status == 201
        applied = await plane.admin("POST", "apply", (plane.file.read_text() + '\n[providers.y]\nvendor = "vllm"\n').encode())
        assert [change["name"] for change in applied.body["changes"]] == ["y"]
        private = {"name": "z", **PROVIDER, "base_url": "http://10.0.0.1/v1", "network": "private"}
        assert (await plane.admin("POST", "providers", private)).status == 403
        command = {"name": "z", "command_template": ["sh", "{prompt_file}"]}
        assert (await plane.admin("POST", "providers", command)).status == 403


POLLER = {"name": "q", "url": "https://u.example", "used": "/u", "unit": "usd", "window": "x"}
KEY = "sk-ant-api03-AbCdEf"


@shares
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"credential": KEY}, "credential"),
        ({"credential": f"env:{KEY}"}, "credential"),
        ({"api_key_env": KEY}, "api_key_env"),
        (
            {"pollers": [{"name": "q", "url": "https://u.example", "used": "/u", "unit": "usd", "window": "x", "credential": KEY}]},
            "pollers.0.credential",
        ),
        ({"credential": "enc:x"}, "credential"),
    ],
)
async def test_a_key_in_place_of_a_reference_is_refused_and_not_repeated(shared, body, param):
    for told in (
        await shared.admin("POST", "providers", {"name": "x", "vendor": "openai", **body}),
        await shared.admin("PATCH", "providers/a", body, If_Match="*"),
    ):
        assert (told.status, told.body["param"]) == (400, param)
        assert KEY not in str(told.body)


async def test_a_provider_keeps_what_a_change_does_not_say(plane):
    body = {
        "name": "x",
        "vendor": "anthropic",
        "credential": "env:K",
        "reserve": 0.02,
        "pause_at": "0.9",
        "pace": True,
        "billing": "flat",
        "account": "shared",
        "model": "claude",
        "pollers": [{"name": "q", "url": "https://u.example/q", "share": "/u", "scale": 0.01, "window": "5h"}],
    }
    made = await plane.admin("POST", "providers", body)
    told = await edit(plane, "providers/x", {"display_name": "X"})
    assert told.body == {**made.body, "display_name": "X", "version": 2}
    stored = plane.daemon.lane.catalog.providers["x"]
    assert (stored.credential_ref, stored.pollers[0].url, str(stored.reserve)) == ("env:K", "https://u.example/q", "1/50")
    told = await edit(plane, "providers/x", {"api_key_env": "OTHER", "model": ""})
    assert (told.body["model"], plane.daemon.lane.catalog.providers["x"].credential_ref) == (None, "env:OTHER")
    assert "OTHER" not in str(told.body)


async def test_a_provider_names_quota_endpoints_that_somebody_reads(plane):
    body = {**PROVIDER, "name": "x", "quota_sources": ["headers", "openrouter-key"]}
    told = await plane.admin("POST", "providers", {**body, "pollers": [{"name": "q", "preset": "codex-subscription"}]})
    assert (told.status, told.body["quota_sources"], told.body["pollers"]) == (201, ["headers", "openrouter-key"], ["q"])
    told = await plane.admin("POST", "providers", {**body, "name": "y", "quota_sources": ["openrouter-kye"]})
    assert (told.status, told.body["param"], "openrouter-key" in told.body["detail"]) == (400, "quota_sources.0", True)


# --- the trail --------------------------------------------------------------------------------------------------------------


async def test_every_edit_stands_on_the_trail_with_what_was_before(tmp_path, database):
    async with open_plane(tmp_path, FILE, Clock()) as plane:
        await furnish(plane)
        await edit(plane, "providers/a", {"display_name": "A"})
        await plane.admin("DELETE", "providers/b", If_Match="*")
        page = await read(plane, "audit?limit=3")
        assert [(line["action"], line["kind"], line["name"], line["version"]) for line in page["items"]] == [
            ("changed", "model", "lab/m", 2),
            ("deleted", "provider", "b", 1),
            ("changed", "provider", "a", 2),
        ]
        changed = next(line for line in page["items"] if line["name"] == "a")
        assert (changed["before"].get("display_name"), changed["after"]["display_name"]) == (None, "A")
        assert changed["admin"] == "admin"
        assert changed["at"] == "2026-11-20T12:00:00.000000Z" or database == "postgres"
        gone = next(line for line in page["items"] if line["name"] == "b")
        assert (gone["after"], gone["before"]["base_url"]) == (None, "https://u.example/v1")
        seqs = [line["seq"] for line in page["items"]]
        second = await read(plane, f"audit?limit=1000&cursor={page['next']}")
        assert second["next"] is None
        assert [*seqs, *(line["seq"] for line in second["items"])] == list(range(seqs[0], 0, -1))
        assert {line["admin"] for line in (await read(plane, "audit?admin=file"))["items"]} == {"file"}
        assert (await read(plane, "audit?kind=nothing"))["items"] == []
        for query in ("audit?limit=0", "audit?cursor=x", "audit?who=me", "audit?name=%00"):
            assert (await plane.admin("GET", query)).status == 400


async def test_what_is_refused_leaves_no_trace(plane):
    before = await epoch(plane), await read(plane, "audit?limit=1000")
    for method, path, body in (
        ("POST", "models", {"name": "x"}),
        ("POST", "providers", {"name": "a", **PROVIDER}),
        ("PATCH", "models/lab%2Fm", {"attachments": []}),
        ("DELETE", "providers/theirs", None),
        ("POST", "limits", {"name": "of-file", "subject": "everyone", "unit": "usd", "limit": 1, "window": "day"}),
    ):
        assert 400 <= (await plane.admin(method, path, body, If_Match="*")).status < 500
    assert (await epoch(plane), await read(plane, "audit?limit=1000")) == before


async def test_a_limit_that_the_file_once_had_keeps_its_name(plane):
    plane.file.write_text(plane.file.read_text().replace('name = "of-file"\nsubject', 'name = "renamed"\nsubject'))
    await plane.admin("POST", "reload", {})
    told = await plane.admin("POST", "limits", {**SAMPLES["limits"], "name": "of-file"})
    assert (told.status, "`quota-router apply --prune`" in told.body["detail"]) == (409, True)
    await plane.admin("POST", "reload", {"prune": True})
    assert (await plane.admin("POST", "limits", {**SAMPLES["limits"], "name": "of-file"})).status == 201


# --- at once ----------------------------------------------------------------------------------------------------------------


async def test_of_two_who_edit_the_same_version_at_once_one_is_told_and_nothing_is_lost(plane):
    """Row 2.7: neither list is mixed with the other."""
    told = await asyncio.gather(
        *(edit(plane, "models/lab%2Fm", {"attachments": [name]}, version=1) for name in ("a", "b", "c") for _ in range(5))
    )
    assert sorted(answer.status for answer in told) == [200, *[412] * 14]
    (won,) = (answer for answer in told if answer.status == 200)
    assert ladder(await read(plane, "models/lab%2Fm")) == ladder(won.body)
    assert won.body["version"] == 2


# --- anything at all ----------------------------------------------------------------------------------------------------------

FIELDS = sorted({field for sample in (*SAMPLES.values(), *CHANGES.values()) for field in sample})
WORDS = st.sampled_from(["a", "b", "lab/m", "openai", "anthropic", "everyone", "day", "usd", "quota", "priority == 0", "none"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FIELDS, "provider"]) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
MORE = ("family", "vendor", "base_url", "credential", "allow", "account", "reserve", "pollers", "strategy", "aliases", "fallbacks")
BODIES = st.dictionaries(st.sampled_from([*FIELDS, *MORE, "position", "share", "kind"]), VALUES, max_size=6)
PATHS = st.sampled_from(
    [
        *(("POST", kind) for kind in COLLECTIONS),
        *(
            ("PATCH", path)
            for path in ("providers/a", "models/lab%2Fm", "limits/of-file", "rules/file-1", "workflows/of-file", "callers/ci")
        ),
        ("PUT", "models/lab%2Fm/attachments"),
        ("POST", "providers/a/pause"),
        ("POST", "rules/test"),
        ("DELETE", "models/nobody"),
    ]
)


@shares
@pytest.mark.parametrize("field", ["<name>", "<", "", "a.b", "<table>", "x" * 300])
async def test_a_field_is_named_whatever_it_looks_like(shared, field):
    for body in ({field: 1}, {"attachments": [{"provider": "a", field: 1}]}):
        told = await shared.admin("PATCH", "models/lab%2Fm", body, If_Match="*")
        assert (told.status, "is not known" in told.body["detail"]) == (400, True)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=PATHS, body=BODIES | VALUES, sample=st.booleans(), tag=st.sampled_from(["*", '"1"', '"', "\u00e9"]))
@shares
async def test_no_body_at_all_makes_us_fail(shared, asked, body, sample, tag):
    """Whatever is sent is done or refused in the form of RFC 9457; what is refused changed nothing."""
    method, path = asked
    if sample and isinstance(body, dict) and path in SAMPLES:
        body = {**SAMPLES[path], **body}
    before = await epoch(shared)
    told = await shared.admin(method, path, body, If_Match=tag)
    assert told.status < 500, (asked, body, told)
    if told.status >= 400:
        assert told.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "code"} <= told.body.keys()
        assert await epoch(shared) == before


@shares
@pytest.mark.parametrize("kind", COLLECTIONS)
async def test_only_an_admin_edits(shared, kind):
    for method, path, body in (("POST", f"/api/v1/{kind}", SAMPLES[kind]), ("DELETE", f"/api/v1/{OF_FILE[kind]}", None)):
        for token, status in (("t-reader", 403), ("t-ci", 403), ("wrong", 401)):
            assert (await shared.ask(method, path, body, token=token)).status == status
