"""Routers by themselves: what they are asked, what they say, and what is made of several."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from routers_kit import ask_one, context, models_of

import quota_router
from quota_router import (
    RouterContext,
    RoutingRequest,
    RoutingResult,
    capability,
    catalog,
    chain,
    explicit,
    failover,
    random,
    round_robin,
    weighted,
)
from quota_router.core.catalog import Family
from quota_router.core.routers import ALTERNATIVES_MAX, answer_of, as_router, compose, flatten, name_of, why_no_router


class Stage:
    """Routes one stage of one workflow: an object with state of its own."""

    def __init__(self, stage: str, model: str) -> None:
        self.stage, self.model = stage, model

    async def route(self, request: RoutingRequest, _context: RouterContext) -> RoutingResult | None:
        return RoutingResult(self.model, reason=self.stage) if request.stage == self.stage else None


def by_team(request: RoutingRequest, _context: RouterContext) -> RoutingResult | None:
    return RoutingResult("seeing", confidence=0.5) if "team:a" in request.labels else None


async def never(_request: RoutingRequest, _context: RouterContext) -> None:
    return None


# --- row 4.1: one contract ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("router", "request_", "model"),
    [
        (by_team, RoutingRequest(labels=("team:a",)), "seeing"),
        (by_team, RoutingRequest(), None),
        (Stage("plan", "all"), RoutingRequest(stage="plan"), "all"),
        (Stage("plan", "all"), RoutingRequest(stage="write"), None),
        (never, RoutingRequest(), None),
        (explicit("all", "two"), RoutingRequest(), "all"),
    ],
)
async def test_row_4_1_a_function_and_an_object_count_sync_or_async_and_none_is_not_mine(router, request_, model):
    said = await ask_one(router, request_)
    assert (said.model if isinstance(said, RoutingResult) else said) == model


def test_row_4_1_a_result_carries_model_provider_reason_and_confidence_and_cannot_be_edited():
    result = RoutingResult("m", "p", "because", 0.25)
    assert (result.model, result.provider, result.reason, result.confidence) == ("m", "p", "because", 0.25)
    with pytest.raises(FrozenInstanceError):
        result.model = "other"


@pytest.mark.parametrize(
    "wrong", [{"model": ""}, {"model": None}, {"model": "m", "confidence": 1.5}, {"model": "m", "confidence": -1}]
)
def test_row_4_1_a_result_without_a_model_or_with_a_strange_confidence_is_refused(wrong):
    with pytest.raises(ValueError, match=r"model|confidence"):
        RoutingResult(**wrong)


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (Stage, "class"),
        (3, "route"),
        (lambda request: request, "two arguments"),
        (object(), "route"),
        (by_team, None),
        (never, None),
        (explicit("m"), None),
    ],
)
def test_row_4_1_what_is_no_router_is_told_why(thing, why):
    told = why_no_router(thing)
    assert (told is None) if why is None else (why in told)
    if why is not None:
        with pytest.raises(TypeError, match=why):
            as_router(thing)


async def test_row_4_1_what_a_router_returns_besides_is_an_error_that_names_the_three():
    with pytest.raises(TypeError, match="str: return a RoutingResult, a changed request, or None"):
        await ask_one(lambda *_: "all")


def test_row_4_1_a_router_is_called_by_its_name_its_function_or_its_class():
    assert [name_of(router) for router in (by_team, Stage("a", "b"), chain("m"), failover("m"), explicit("m"))] == [
        "by_team",
        "Stage",
        "chain",
        "failover",
        "explicit",
    ]


def test_row_4_1_the_body_is_decoded_once_and_only_when_it_is_looked_at():
    read: list[int] = []

    def decode() -> dict[str, Any]:
        read.append(1)
        return {"messages": [{"role": "user"}]}

    request = RoutingRequest(read=decode)
    assert read == []
    assert request.body["messages"] == request.body["messages"] == [{"role": "user"}]
    assert read == [1]
    with pytest.raises(TypeError):
        request.body["messages"] = []  # type: ignore[index]


# --- row 4.2: routers compose -----------------------------------------------------------------------------------------------


async def test_row_4_2_chain_gives_a_call_to_the_first_that_takes_it():
    router = chain(never, by_team, Stage("plan", "all"), "plain")
    assert await models_of(router, RoutingRequest(labels=("team:a",), stage="plan")) == ["seeing"]
    assert await models_of(router, RoutingRequest(stage="plan")) == ["all"]
    assert await models_of(router) == ["plain"]
    assert await ask_one(chain(never)) is None


async def test_row_4_2_round_robin_takes_turns_one_two_one_two():
    router = round_robin("a", "b")
    assert [(await models_of(router))[0] for _ in range(4)] == ["a", "b", "a", "b"]


async def test_row_4_2_round_robin_lets_members_wait_behind_whose_turn_it_is():
    router = round_robin("a", "b", "c")
    assert [await models_of(router) for _ in range(3)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


async def test_row_4_2_failover_keeps_its_order():
    assert await models_of(failover("a", never, "b", RoutingResult("c", "p"))) == ["a", "b", "c"]
    assert await ask_one(failover(never)) is None


@pytest.mark.parametrize(("draws", "models"), [((0.0, 0.0), ["a", "b"]), ((0.74, 0.0), ["a", "b"]), ((0.76, 0.0), ["b", "a"])])
async def test_row_4_2_weighted_draws_by_weight(draws, models):
    assert await models_of(weighted({"a": 3, "b": 1}), ctx=context(*draws)) == models


async def test_row_4_2_weight_zero_is_for_when_nobody_else_is_usable():
    assert await models_of(weighted({"spare": 0, "a": 1}), ctx=context(0.0)) == ["a", "spare"]


@pytest.mark.parametrize(("draws", "models"), [((0.0, 0.0, 0.0), ["a", "b", "c"]), ((0.99, 0.99, 0.0), ["c", "b", "a"])])
async def test_row_4_2_random_draws_everyone_alike(draws, models):
    assert await models_of(random("a", "b", "c"), ctx=context(*draws)) == models


async def test_row_4_2_a_draw_of_ones_own_goes_before_the_contexts():
    assert await models_of(random("a", "b", draw=lambda: 0.9), ctx=context()) == ["b", "a"]
    assert await models_of(weighted([("a", 1), ("b", 1)], draw=lambda: 0.9), ctx=context()) == ["b", "a"]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6),
)
async def test_row_4_2_weighted_says_each_member_once_whatever_is_drawn(weights, draws):
    names = [f"m{place}" for place in range(len(weights))]
    said = await models_of(weighted(list(zip(names, weights, strict=True))), ctx=context(*draws))
    assert sorted(said) == names
    assert weights[int(said[0][1:])] > 0


@pytest.mark.parametrize(
    "make",
    [chain, failover, lambda: weighted({}), lambda: weighted({"a": 0}), lambda: weighted({"a": -1, "b": 2})],
)
def test_row_4_2_a_router_of_nothing_is_refused_when_it_is_made(make):
    with pytest.raises(ValueError, match=r"at least one|weights"):
        make()


@pytest.mark.parametrize("make", [lambda: chain(Stage), lambda: round_robin("a", 3)])
def test_row_4_2_a_member_that_is_no_router_is_refused_when_it_is_made(make):
    with pytest.raises(TypeError, match=r"class|route"):
        make()


async def test_row_4_2_members_say_why_and_keep_their_own_reasons():
    said = await ask_one(round_robin("a", RoutingResult("b", reason="mine")))
    assert isinstance(said, RoutingResult)
    assert [way.reason for way in flatten(said)] == ["its turn", "mine"]


def test_row_4_2_a_custom_router_takes_fewer_than_twenty_lines():
    assert len(inspect.getsource(Stage).splitlines()) < 20
    assert len(inspect.getsource(by_team).splitlines()) < 20


def test_row_4_2_all_of_it_is_exported_and_nothing_is_loaded_before_it_is_asked_for():
    for name in quota_router.__all__:
        assert getattr(quota_router, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        quota_router.nothing  # noqa: B018 -- the look-up is the test
    looked = "import sys, quota_router; print([name for name in sys.modules if name.startswith('quota_router.')])"
    told = subprocess.run([sys.executable, "-c", looked], capture_output=True, text=True, check=True)  # noqa: S603 -- our own words
    assert told.stdout.strip() == "[]"


# --- row 4.3: the context ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "tags", "found"),
    [
        ((), (), ["plain", "seeing", "all", "claude"]),
        (("vision",), (), ["seeing", "all", "claude"]),
        (("vision", "tools"), (), ["all"]),
        ((), ("team-a",), ["seeing", "claude"]),
        (("vision",), ("slow",), ["claude"]),
        (("nothing",), (), []),
        (("vision",), ("nobody",), []),
    ],
)
def test_row_4_3_the_context_finds_models_by_capability_and_by_free_tag(capabilities, tags, found):
    assert [model.name for model in context().catalog.find(capabilities, tags)] == found


async def test_row_4_3_the_context_gives_default_model_metadata_and_a_call():
    asked: list[tuple[Any, ...]] = []

    async def answer(model, prompt, /, *, system, max_output_tokens):
        asked.append((model, prompt, system, max_output_tokens))
        return "code"

    async def by_topic(request: RoutingRequest, ctx: RouterContext) -> RoutingResult:
        topic = await ctx.call("plain", f"Which topic? {request.body['input']}", max_output_tokens=5)
        return RoutingResult(ctx.catalog.find([topic])[0].name, reason=f"about {topic} in {ctx.metadata['project']}")

    ctx = context(metadata={"project": "x"}, ask=answer)
    said = await ask_one(by_topic, RoutingRequest(read=lambda: {"input": "def f"}), ctx)
    assert said == RoutingResult("seeing", reason="about code in x")
    assert asked == [("plain", "Which topic? def f", None, 5)]
    assert ctx.default_model == "plain"


async def test_row_4_3_a_context_without_a_daemon_says_that_nobody_can_be_asked():
    with pytest.raises(RuntimeError, match="no model can be asked here"):
        await context().call("plain", "?")


# --- row 4.4: capabilities --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "models"),
    [
        (RoutingRequest(), ["plain", "seeing", "all", "claude"]),
        (RoutingRequest(requires=frozenset({"vision"})), ["seeing", "all", "claude"]),
        (RoutingRequest(requires=frozenset({"audio"})), ["all"]),
        (RoutingRequest(requires=frozenset({"tools"})), ["all"]),
        (RoutingRequest(requires=frozenset({"smell"})), []),
        (RoutingRequest(requires=frozenset({"vision"}), input_tokens=50_000), ["all", "claude", "seeing"]),
        (RoutingRequest(requires=frozenset({"vision"}), family=Family.ANTHROPIC), ["claude"]),
        (RoutingRequest(family=Family.OPENAI, input_tokens=10), ["plain", "seeing", "all"]),
        (RoutingRequest(input_tokens=50_000), ["all", "claude", "plain", "seeing"]),
    ],
)
async def test_row_4_4_an_image_needs_vision_audio_needs_audio_tools_need_tools_and_long_input_a_long_context(request_, models):
    assert await models_of(capability(), request_) == models


async def test_row_4_4_named_models_are_asked_in_their_order_and_unknown_ones_left_out():
    router = capability("claude", "gone", "all")
    assert await models_of(router, RoutingRequest(requires=frozenset({"vision"}))) == ["claude", "all"]
    assert await models_of(router, RoutingRequest(requires=frozenset({"tools"}))) == ["all"]


async def test_row_4_2_the_catalog_router_finds_by_tag_what_can_do_the_call():
    router = catalog(tags=["team-a"])
    assert await models_of(router) == ["seeing", "claude"]
    assert await models_of(router, RoutingRequest(requires=frozenset({"audio"}))) == []
    said = await ask_one(catalog(capabilities=["code"], tags=["team-a"]))
    assert isinstance(said, RoutingResult)
    assert said.reason == "can do code, #team-a"


# --- row 4.5: the hook before routing ---------------------------------------------------------------------------------------


def short(members: dict[str, Any]) -> dict[str, Any]:
    return {**members, "max_tokens": 10}


async def test_row_4_5_a_hook_that_changes_model_input_and_options_lets_routing_go_on():
    def hook(request: RoutingRequest, _context: RouterContext) -> RoutingRequest:
        return request.changed(model="all", labels=("team:a",), transform=short)

    seen: list[RoutingRequest] = []

    def look(request: RoutingRequest, _context: RouterContext) -> None:
        seen.append(request)

    said = await ask_one(chain(hook, look, by_team), RoutingRequest(model="plain", read=lambda: {"max_tokens": 99, "input": "x"}))
    assert (seen[0].model, seen[0].labels, dict(seen[0].body)) == ("all", ("team:a",), {"max_tokens": 10, "input": "x"})
    assert isinstance(said, RoutingResult)
    assert said.model == "seeing"
    assert said.transform is not None
    assert said.transform({"max_tokens": 99}) == {"max_tokens": 10}


async def test_row_4_5_a_hook_alone_hands_the_changed_request_on():
    said = await ask_one(chain(lambda request, _: request.changed(model="all")))
    assert isinstance(said, RoutingRequest)
    assert said.model == "all"


async def test_row_4_5_a_hook_may_name_the_provider_and_then_nobody_else_is_asked():
    def fail(_request: RoutingRequest, _context: RouterContext) -> None:
        raise AssertionError("routing was to be skipped")

    said = await ask_one(chain(lambda *_: RoutingResult("all", provider="two"), fail))
    assert said == RoutingResult("all", "two")


def test_row_4_5_a_hook_cannot_change_who_is_asking():
    with pytest.raises(TypeError, match="cannot change caller"):
        RoutingRequest(caller="ci").changed(caller="admin")


async def test_row_4_5_transforms_are_done_in_the_order_they_were_asked_for_also_behind_the_first_way():
    def note(word):
        return lambda members: {**members, "seen": [*members.get("seen", []), word]}

    outer = chain(
        lambda request, _: request.changed(transform=note("first")),
        chain(
            lambda request, _: request.changed(transform=note("second")),
            failover(RoutingResult("a", transform=note("third")), "b"),
        ),
    )
    said = await ask_one(outer)
    assert isinstance(said, RoutingResult)
    assert [way.transform({})["seen"] for way in flatten(said) if way.transform] == [
        ["first", "second", "third"],
        ["first", "second"],
    ]
    assert compose(None, None) is None


async def test_row_4_5_a_hook_inside_a_pool_is_told_where_it_belongs():
    with pytest.raises(TypeError, match="put it first in a `chain`"):
        await ask_one(failover(lambda request, _: request.changed(model="a"), "b"))


# --- row 4.6: nesting -------------------------------------------------------------------------------------------------------


async def test_row_4_6_a_balanced_pool_has_another_provider_as_its_last_resort():
    router = failover(round_robin("a", "b"), "c")
    assert [await models_of(router) for _ in range(3)] == [["a", "b", "c"], ["b", "a", "c"], ["a", "b", "c"]]


async def test_row_4_6_pools_nest_in_pools():
    router = failover(round_robin(failover("a1", "a2"), "b"), random("c", "d"))
    assert await models_of(router, ctx=context(0.9, 0.0)) == ["a1", "a2", "b", "d", "c"]


results = st.recursive(
    st.builds(RoutingResult, st.sampled_from("abcd"), st.sampled_from([None, "p"])),
    lambda inner: st.builds(
        RoutingResult, st.sampled_from("abcd"), st.sampled_from([None, "p"]), alternatives=st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=40,
)


def depth_first(result):
    yield result.model, result.provider
    for other in result.alternatives:
        yield from depth_first(other)


@given(results)
def test_row_4_6_ways_are_depth_first_and_each_stands_once(result):
    ways = [(way.model, way.provider) for way in flatten(result)]
    assert ways == list(dict.fromkeys(depth_first(result)))
    assert all(way.alternatives == () for way in flatten(result))


def test_row_4_6_ways_are_bounded_in_number_and_depth():
    result = RoutingResult("m")
    for place in range(5_000):
        result = RoutingResult(f"m{place}", alternatives=(result,))
    assert len(flatten(result)) == ALTERNATIVES_MAX
    wide = RoutingResult("m", alternatives=tuple(RoutingResult(f"m{place}") for place in range(5_000)))
    assert len(flatten(wide)) == ALTERNATIVES_MAX


async def test_answer_of_waits_for_whatever_can_be_waited_for():
    class Later:
        def __await__(self):
            yield from ()
            return RoutingResult("late")

    assert await answer_of(lambda *_: Later(), RoutingRequest(), context()) == RoutingResult("late")


def test_the_package_itself_can_be_loaded_anew():
    assert importlib.reload(quota_router).__version__ == quota_router.__version__
