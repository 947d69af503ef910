"""The operator's own routers: loaded from where the file says, asked within bounds, and their changes made."""

import asyncio
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from msgspec.structs import replace
from routers_kit import context
from structlog.testing import capture_logs

from quota_router import RoutingRequest, RoutingResult, chain, explicit, failover
from quota_router.core.calls import Call, CallFacts, Operation
from quota_router.core.catalog import Caller, Family
from quota_router.core.routers import request_of
from quota_router.dialects import dialect_of
from quota_router.errors import ConfigError, TransformFailed
from quota_router.own_routers import OwnRouter, ask, changed_call, load_routers, transformed

MODULE = """
from quota_router import RoutingResult, round_robin

class Nested:
    pool = round_robin("plain", "seeing")

class NoInstance:
    def route(self, request, context):
        return None

def by_label(request, context):
    return RoutingResult("all") if "x" in request.labels else None

def alone(request):
    return None

number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with modules beside a file; what was imported and where from is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "team_routers.py").write_text(MODULE)
    (tmp_path / "broken_routers.py").write_text("1 / 0\n")
    (tmp_path / "leaving_routers.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "leaning_routers.py").write_text("import not_installed_anywhere\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def own(*routers: Any, name: str = "it") -> list[OwnRouter]:
    return [OwnRouter(name=f"{name}{place}", router=router) for place, router in enumerate(routers, start=1)]


# --- load -------------------------------------------------------------------------------------------------------------------


def test_row_4_2_routers_are_loaded_by_their_references_also_those_inside_of_others(folder):
    loaded = load_routers(["team_routers:by_label", "team_routers:Nested.pool"], folder)
    assert [router.name for router in loaded] == ["team_routers:by_label", "team_routers:Nested.pool"]
    assert loaded[1].router is sys.modules["team_routers"].Nested.pool


def test_nothing_is_imported_and_no_path_is_added_where_no_router_is_named(folder):
    before = list(sys.path)
    assert load_routers([], folder) == ()
    assert sys.path == before


def test_what_is_installed_goes_before_what_lies_beside_the_file(folder):
    (folder / "json.py").write_text("1 / 0\n")
    load_routers(["team_routers:by_label"], folder)
    assert sys.path[-1] == str(folder)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (
            "absent_routers:x",
            ["'absent_routers:x' cannot be imported", "put absent_routers.py beside this file", "apply the file again"],
        ),
        ("team_routers.inner:x", ["cannot be imported", "install it"]),
        ("broken_routers:x", ["cannot be imported", "ZeroDivisionError", "mend it"]),
        ("leaving_routers:x", ["cannot be imported", "SystemExit"]),
        ("leaning_routers:x", ["cannot be imported", "not_installed_anywhere", "mend it"]),
        ("team_routers:by_lable", ["has no 'by_lable'", "by_label"]),
        ("team_routers:NoInstance", ["no router", "is a class: name an instance of it", "Write `def"]),
        ("team_routers:alone", ["no router", "two arguments"]),
        ("team_routers:number", ["no router", "has no `route"]),
    ],
)
def test_what_cannot_be_loaded_is_said_with_key_and_remedy(folder, reference, words):
    with pytest.raises(ConfigError) as caught:
        load_routers(["team_routers:by_label", reference], folder)
    assert caught.value.key_path == ("routing", "routers", 1)
    assert [word for word in words if word not in caught.value.message] == []


# --- ask --------------------------------------------------------------------------------------------------------------------


async def test_row_4_1_who_took_the_call_is_known_by_name():
    asked = await ask(own(lambda *_: None, explicit("all", reason="why", confidence=0.5)), RoutingRequest(), context())
    assert asked.router == "it2"
    assert [(way.model, way.reason, way.confidence) for way in asked.ways] == [("all", "why", 0.5)]


async def test_nobody_took_it_when_all_say_not_mine():
    request = RoutingRequest(model="plain")
    asked = await ask(own(lambda *_: None), request, context())
    assert (asked.request, asked.router, asked.ways, asked.transform) == (request, None, (), None)


def fail(*_: Any) -> RoutingResult:
    raise ValueError("the prompt was: SECRET")


async def fail_later(*_: Any) -> RoutingResult:
    raise TimeoutError("SECRET")


def raising(error: BaseException) -> Any:
    def router(*_: Any) -> RoutingResult:
        raise error

    return router


@pytest.mark.parametrize(
    "broken",
    [
        fail,
        fail_later,
        lambda *_: "all",
        lambda *_: RoutingResult(""),
        chain(fail),
        failover("all", fail),
        *(raising(error("SECRET")) for error in (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)),
        lambda *_: RoutingResult("all", alternatives=("SECRET",)),
        lambda *_: RoutingResult("all", alternatives=5),
        lambda *_: RoutingResult("all", provider=["SECRET"]),
        lambda request, _: request.changed(workflow=["SECRET"]),
        lambda request, _: request.changed(labels="SECRET"),
        lambda request, _: request.changed(labels=5),
        lambda request, _: request.changed(model=5),
        lambda request, _: request.changed(priority="1"),
        lambda request, _: request.changed(labels=["x" * 129]),
    ],
)
async def test_row_4_1_a_router_that_breaks_has_said_not_mine_and_is_logged_by_name_without_a_prompt(broken):
    with capture_logs() as logs:
        asked = await ask(own(broken, explicit("seeing")), RoutingRequest(), context())
    assert [way.model for way in asked.ways] == ["seeing"]
    assert [(log["action"], log["router"]) for log in logs] == [("router_failed", "it1")]
    assert ".py:" in logs[0]["at"]
    assert "SECRET" not in str(logs)


async def test_row_4_1_routers_that_dawdle_are_left_behind_and_the_call_goes_on():
    request = RoutingRequest(model="plain")
    changes = lambda asked, _: asked.changed(priority=1)  # noqa: E731 -- as short as it is said

    async def dawdle(*_: Any) -> None:
        await asyncio.Event().wait()

    with capture_logs() as logs:
        asked = await ask(own(changes, dawdle, explicit("all")), request, context(), timeout_s=0.01)
    assert (asked.router, asked.ways, asked.request.priority) == (None, (), 1)
    assert [(log["action"], log["router"]) for log in logs] == [("router_late", "it2")]


async def test_a_cancelled_call_does_not_stay_with_its_router():
    async def dawdle(*_: Any) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(ask(own(dawdle), RoutingRequest(), context()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_models_and_providers_that_are_not_there_are_left_out_and_the_next_router_is_asked():
    router = failover("gone", RoutingResult("all", "one"), RoutingResult("all", "two"))
    with capture_logs() as logs:
        asked = await ask(own(router), RoutingRequest(), context())
        nobody = await ask(own(explicit("gone"), explicit("plain")), RoutingRequest(), context())
    assert [(way.model, way.provider) for way in asked.ways] == [("all", "two")]
    assert (nobody.router, nobody.ways[0].model) == ("it2", "plain")
    assert [log["action"] for log in logs] == ["router_astray"] * 2


async def test_row_4_5_what_a_hook_at_the_top_changed_stays_changed_also_from_inside_a_chain():
    hook = chain(lambda request, _: request.changed(labels=("x",), transform=lambda body: {**body, "n": 1}), lambda *_: None)
    asked = await ask(own(hook), RoutingRequest(), context())
    assert (asked.router, asked.request.labels) == (None, ("x",))
    assert asked.transform is not None
    assert asked.transform({}) == {"n": 1}
    taken = await ask(own(hook, explicit("all")), RoutingRequest(), context())
    assert taken.ways[0].transform is not None
    assert taken.ways[0].transform({}) == {"n": 1}


# --- change -----------------------------------------------------------------------------------------------------------------

BODY = (
    b'{ "model": "plain",\n "stream":true, "max_tokens": 99, "temperature": 1.10, "messages": [{"role": "user", "content": "hi"}] }'
)


def call_of(body: bytes = BODY, operation: Operation = Operation.CHAT, family: Family = Family.OPENAI, **more: Any) -> Call:
    parsed = dialect_of(family).read(operation, body)
    caller = Caller(name="ci", token_sha256="")
    return Call(
        id="1", caller=caller, family=family, operation=operation, facts=parsed.facts, model=parsed.facts.model, body=parsed, **more
    )


def asked_of(call: Call) -> RoutingRequest:
    return request_of(call, call.body.members, call.requires | call.body.needs())


def changed_by(call: Call, request: RoutingRequest) -> Call:
    return changed_call(call, request, asked_of(call).requires)


def test_row_4_1_the_request_shows_the_call():
    image = b'{"model": "plain", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}'
    call = call_of(
        image, labels=("a",), priority=1, task_id="t", retry_count=2, requires=frozenset({"tools"}), session="s", workflow="w"
    )
    request = asked_of(call)
    assert (request.model, request.family, request.caller, request.labels, request.priority) == ("plain", "openai", "ci", ("a",), 1)
    assert (request.task_id, request.retry_count, request.session, request.workflow, request.stream) == ("t", 2, "s", "w", False)
    assert request.requires == {"tools", "vision"}
    assert request.input_tokens is None, "what lies elsewhere has no size"
    assert request.body["messages"][0]["role"] == "user"
    told = asked_of(call_of())
    assert told.input_tokens is not None
    assert (told.stream, told.max_output_tokens, 0 < told.input_tokens < len(BODY)) == (True, 99, True)


def test_row_4_1_without_a_transform_no_byte_changes():
    call = call_of()
    assert transformed(call, None, "it") is call


def test_row_4_1_a_transform_changes_what_is_sent_and_what_is_held_for_it_and_leaves_the_other_bytes():
    call = transformed(call_of(), lambda body: {**body, "max_tokens": 7, "user": "u"}, "it")
    sent = call.body.for_model("up")
    assert (call.facts.max_output_tokens, call.facts.stream, call.model) == (7, True, "plain")
    assert b'"temperature":1.10,' in sent
    assert b'"messages":[{"role": "user", "content": "hi"}]' in sent
    assert json.decode(sent)["model"] == "up"
    assert json.decode(sent)["user"] == "u"


def test_row_4_1_a_transform_may_take_a_member_away():
    call = transformed(call_of(), lambda body: {name: body[name] for name in body if name != "max_tokens"}, "it")
    assert call.facts.max_output_tokens is None


def test_model_and_stream_stay_whatever_a_transform_does():
    both = transformed(call_of(), lambda body: {**body, "model": "other", "stream": False}, "it")
    assert (both.facts.model, both.facts.stream, json.decode(both.body.rewritten(both.body.members()))["stream"]) == (
        "plain",
        True,
        True,
    )
    added = transformed(call_of(b'{"messages": []}'), lambda body: {**body, "stream": True, "model": "m"}, "it")
    assert set(added.body.members()) == {"messages"}


def test_what_a_router_does_to_the_body_it_looks_at_is_not_sent():
    call = call_of()
    request = asked_of(call)
    request.body["messages"].clear()
    assert json.decode(call.body.for_model("up"))["messages"] != []
    assert transformed(call, lambda body: body, "it").body.members()["messages"] != []


def test_words_that_a_router_gives_as_a_list_are_taken():
    changed = RoutingRequest().changed(requires=["vision", "vision"], labels=["a", "b"])
    assert (changed.requires, changed.labels) == (frozenset({"vision"}), ("a", "b"))


@pytest.mark.parametrize(
    "transform",
    [
        fail,
        raising(SystemExit("SECRET")),
        raising(KeyboardInterrupt("SECRET")),
        lambda _: None,
        lambda _: {"messages": object()},
        lambda body: {**body, "max_tokens": "many"},
        lambda body: {**body, 3: 4},
    ],
)
def test_a_transform_that_breaks_refuses_its_call_and_is_logged_without_a_prompt(transform):
    with capture_logs() as logs, pytest.raises(TransformFailed) as caught:
        transformed(call_of(), transform, "it")
    assert caught.value.status == 500
    assert [(log["action"], log["router"]) for log in logs] == [("router_failed", "it")]
    assert "SECRET" not in str(logs) + caught.value.message


def test_row_4_5_options_that_a_hook_changed_are_the_calls():
    call = call_of(requires=frozenset({"code"}))
    request = asked_of(call).changed(
        model="all", labels=("x",), priority=3, task_id="t", session="s", workflow="w", stage="p", requires=frozenset({"tools"})
    )
    changed = changed_by(call, request)
    assert (changed.model, changed.labels, changed.priority, changed.task_id) == ("all", ("x",), 3, "t")
    assert (changed.session, changed.workflow, changed.stage, changed.requires) == ("s", "w", "p", {"tools"})
    assert changed.body is call.body


@given(st.sets(st.sampled_from(["vision", "tools", "code"])))
def test_what_nobody_changed_stays_as_the_caller_said_it(requires):
    call = call_of(requires=frozenset(requires), labels=("a", "b"), retry_count=1)
    assert changed_by(call, asked_of(call)) == call


def test_a_call_that_is_only_decided_has_no_body_to_change_but_its_size_may_be():
    facts = CallFacts(input_tokens=100, max_output_tokens=10)
    caller = Caller(name="ci", token_sha256="")
    call = Call(id="1", caller=caller, family=Family.OPENAI, operation=Operation.ROUTE, facts=facts)
    request = asked_of(call)
    assert (request.family, request.input_tokens, dict(request.body)) == (None, 100, {})
    assert transformed(call, fail, "it") is call
    assert changed_by(call, request.changed(max_output_tokens=5)) == replace(call, facts=replace(facts, max_output_tokens=5))
