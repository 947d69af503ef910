"""Routers on the way of a call: what they say is what is decided, held, sent and told; over HTTP and on the decision plane."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from daemon_kit import AUTH, open_here, provider_toml
from yarl import URL

from quota_router import RouterContext, RoutingRequest, RoutingResult, capability, chain, explicit, failover, round_robin
from quota_router.core.routers import AnyRouter
from quota_router.daemon import Daemon
from quota_router.own_routers import OwnRouter
from quota_router.simulator import Account, Refusal, Reply, Simulator

PRICES = 'cost_per_million_input = "3"\ncost_per_million_output = "15"\n'
MODELS = f"""
[[models]]
name = "a"
provider = "one"
capabilities = ["code"]
{PRICES}
[[models]]
name = "b"
provider = "two"
capabilities = ["code", "vision", "audio", "tools"]
context_tokens = 200_000
{PRICES}
[[models]]
name = "c"
attachments = ["three", "one"]
{PRICES}
[routing]
default_model = "a"
[[routing.rules]]
condition = "labels contains 'ruled'"
model = "c"
reason = "as ruled"
[workflows.flow]
stages = [{{ name = "plan", model = "c" }}]
"""
BODY = (
    b'{"temperature": 1.0,  "model":"a", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}],'
    b' "seed": 12345678901234567890}'
)


@dataclass(slots=True, kw_only=True)
class Way:
    """A daemon with routers, what stands behind it, and a client before it."""

    daemon: Daemon
    sim: Simulator
    http: aiohttp.ClientSession

    def use(self, *routers: AnyRouter) -> None:
        """As if the file named them."""
        self.daemon.own.routers = tuple(
            OwnRouter(name=f"my:r{place}", router=router) for place, router in enumerate(routers, start=1)
        )

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], Any]:
        named = {f"x-quota-router-{name.replace('_', '-')}": value for name, value in headers.items()}
        async with self.http.post(URL(self.daemon.url + path), data=body, headers={**AUTH, **named}) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, json.loads(await answer.read())

    async def chat(self, body: bytes = BODY, **headers: str) -> tuple[int, dict[str, str], Any]:
        return await self.post("/v1/chat/completions", body, **headers)

    async def served(self, body: bytes = BODY, **headers: str) -> str:
        """The model that served a call."""
        status, told, _ = await self.chat(body, **headers)
        assert status == 200
        return told["x-quota-router-model"]

    async def route(self, **asked: Any) -> dict[str, Any]:
        status, _, told = await self.post("/api/v1/route", json.dumps(asked).encode())
        assert status in {200, 201}, told
        return told

    async def entries(self) -> list[dict[str, Any]]:
        async with self.http.get(URL(self.daemon.url + "/api/v1/entries"), headers=AUTH) as answer:
            return json.loads(await answer.read())["items"]


@asynccontextmanager
async def open_way(folder: Path, more: str = "") -> AsyncIterator[Way]:
    names = ("one", "two", "three")
    async with Simulator([Account(key=name) for name in names]) as sim, aiohttp.ClientSession() as http:
        catalog = "".join(provider_toml(name, sim.openai_base_url) for name in names) + MODELS + more
        keys = {f"KEY_{name.upper()}": name for name in names}
        async with open_here(folder, catalog, server='durability = "process"\n', **keys) as daemon:
            yield Way(daemon=daemon, sim=sim, http=http)


@pytest.fixture
async def way(tmp_path):
    async with open_way(tmp_path) as way:
        yield way


# --- row 4.1 ----------------------------------------------------------------------------------------------------------------


async def test_row_4_1_router_name_reason_and_confidence_stand_in_the_route_answer(way):
    way.use(lambda *_: None, explicit("b", reason="because", confidence=0.75))
    for told in (await way.route(model="a"), await way.route(model="a", dry_run=True)):
        assert (told["model"], told["provider"], told["router"], told["reason"], told["confidence"], told["rule"]) == (
            "b",
            "two",
            "my:r2",
            "because",
            0.75,
            None,
        )


async def test_row_4_1_they_stand_in_the_story_of_the_call_and_in_an_answer_that_is_given_again(way):
    way.use(explicit("b", reason="because", confidence=0.75))
    asked = json.dumps({"model": "a"}).encode()
    headers = {**AUTH, "Idempotency-Key": "k"}
    told = []
    for _ in range(2):
        async with way.http.post(URL(way.daemon.url + "/api/v1/route"), data=asked, headers=headers) as answer:
            told.append(json.loads(await answer.read()))
    assert told[0] == told[1]
    async with way.http.get(URL(f"{way.daemon.url}/api/v1/calls/{told[0]['call_id']}"), headers=AUTH) as answer:
        story = json.loads(await answer.read())["decision"]
    assert (story["router"], story["reason"], story["confidence"], story["rule"]) == ("my:r1", "because", 0.75, None)
    assert story["rungs"] == told[0]["rungs"]


async def test_row_4_1_where_no_router_takes_the_call_rules_do_and_then_what_was_asked_for(way):
    way.use(lambda *_: None)
    ruled = await way.route(model="a", labels=["ruled"])
    assert (ruled["model"], ruled["router"], ruled["rule"]["reason"], ruled["confidence"]) == ("c", None, "as ruled", None)
    assert (await way.route(model="b"))["model"] == "b"
    assert (await way.route())["model"] == "a"


async def test_row_4_1_a_router_goes_before_stages_and_rules(way):
    assert (await way.route(model="workflow:flow/plan"))["model"] == "c"
    way.use(explicit("b"))
    assert (await way.route(model="workflow:flow/plan", labels=["ruled"]))["model"] == "b"


async def test_row_4_1_a_router_sees_the_stage_of_a_workflow(way):
    way.use(lambda request, _: RoutingResult("b") if (request.workflow, request.stage) == ("flow", "plan") else None)
    assert await way.served(BODY.replace(b'"a"', b'"workflow:flow/plan"')) == "b"
    assert await way.served() == "a"


async def test_a_call_that_is_pinned_to_a_provider_is_asked_of_no_router(way):
    way.use(explicit("b"))
    assert await way.served(provider="one") == "a"


async def test_row_4_1_without_a_transform_every_byte_but_model_stays(way):
    way.use(explicit("c"))
    assert await way.served() == "c"
    assert way.sim.requests[-1].body == BODY.replace(b'"model":"a"', b'"model":"c"')


async def test_row_4_1_a_transform_is_applied_to_the_bytes_that_are_sent_and_to_what_is_held(way):
    def shorter(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "max_tokens": 2, "messages": [*body["messages"], {"role": "user", "content": "be brief"}]}

    way.use(explicit("c", transform=shorter))
    status, told, answer = await way.chat()
    sent = way.sim.requests[-1]
    assert (status, told["x-quota-router-model"], answer["usage"]["completion_tokens"]) == (200, "c", 2)
    assert (sent.json()["max_tokens"], len(sent.json()["messages"]), sent.json()["model"]) == (2, 2, "c")
    assert b'"temperature":1.0,' in sent.body
    assert b'"seed":12345678901234567890' in sent.body
    (entry,) = await way.entries()
    assert entry["estimate_nusd"] < 500 * 3_000 + 3 * 15_000, "the estimate of fifty tokens would be higher"


async def test_row_4_1_a_streaming_call_keeps_its_stream_whatever_a_transform_says(way):
    way.use(explicit("c", transform=lambda body: {**body, "stream": False, "stream_options": None}))
    async with way.http.post(
        URL(way.daemon.url + "/v1/chat/completions"), data=BODY[:-1] + b', "stream": true}', headers=AUTH
    ) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert (await answer.read()).endswith(b"data: [DONE]\n\n")
    assert way.sim.requests[-1].json()["stream_options"] == {"include_usage": True}


async def test_row_4_1_a_broken_router_takes_no_call_down(way):
    def broken(*_: Any) -> RoutingResult:
        raise ZeroDivisionError

    way.use(broken, explicit("gone"), explicit("b", "one"))
    assert [await way.served(), await way.served(labels="ruled")] == ["a", "c"]


async def test_a_transform_that_breaks_ends_its_call_before_anything_is_held_or_sent(way):
    way.use(explicit("b", transform=lambda body: body["gone"]))
    status, _, told = await way.chat()
    assert (status, told["error"]["code"]) == (500, "transform_failed")
    assert (way.sim.requests, await way.entries()) == ([], [])


async def test_a_way_whose_transform_breaks_is_not_gone_and_the_next_one_is(way):
    way.use(failover(explicit("b", transform=lambda body: body["gone"]), "c"))
    assert await way.served() == "c"


# --- row 4.3 ----------------------------------------------------------------------------------------------------------------


async def by_model(request: RoutingRequest, context: RouterContext) -> RoutingResult:
    said = await context.call("a", request.body["messages"][-1]["content"], max_output_tokens=4)
    return RoutingResult(said)


async def test_row_4_3_a_router_that_asks_a_model_is_booked_like_any_call(way):
    way.use(by_model)
    way.sim.script("one", Reply(text="b", input_tokens=6, output_tokens=1))
    assert await way.served(labels="docs") == "b"
    first, second = sorted(await way.entries(), key=lambda entry: entry["seq"])
    assert (first["model"], first["labels"], first["cost_nusd"]) == ("a", ["docs", "asked-by:router"], 6 * 3_000 + 15_000)
    assert (second["model"], second["labels"]) == ("b", ["docs"])
    assert first["call_id"] != second["call_id"]


# --- row 4.4 ----------------------------------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("content", "more", "model"),
    [
        ("hi", {}, "a"),
        ([IMAGE], {}, "b"),
        ([AUDIO], {}, "b"),
        ("hi", {"tools": [TOOL]}, "b"),
        ("long " * 20_000, {}, "b"),
    ],
    ids=["text", "image", "audio", "tools", "long"],
)
async def test_row_4_4_capability_routing_reads_off_the_call_what_it_needs(way, content, more, model):
    way.use(capability("a", "b") if content != "long " * 20_000 else capability())
    body = {"model": "a", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}
    assert await way.served(json.dumps(body).encode()) == model


# --- row 4.5 ----------------------------------------------------------------------------------------------------------------


async def test_row_4_5_a_hook_changes_model_and_input_and_options_and_rules_go_on_from_there(way):
    def hook(request: RoutingRequest, _context: RouterContext) -> RoutingRequest:
        return request.changed(model="b", labels=("ruled",), transform=lambda body: {**body, "user": "masked"})

    way.use(hook)
    assert await way.served() == "c"
    assert way.sim.requests[-1].json()["user"] == "masked"
    (entry,) = await way.entries()
    assert entry["labels"] == ["ruled"]


async def test_row_4_5_a_hook_names_the_provider_and_skips_routing(way):
    way.use(lambda *_: RoutingResult("c", provider="one"), explicit("b"))
    told = await way.route(model="a", labels=["ruled"])
    assert (told["model"], told["provider"], told["router"], [rung["provider"] for rung in told["rungs"]]) == (
        "c",
        "one",
        "my:r1",
        ["one"],
    )


# --- row 4.6 ----------------------------------------------------------------------------------------------------------------


async def test_row_4_6_a_balanced_pool_with_another_provider_as_last_resort(tmp_path):
    limit = "[[budgets]]\nname = '{0}'\nsubject = 'model:{0}'\nunit = 'requests'\nlimit = 2\nwindow = 'forever'\n"
    async with open_way(tmp_path, limit.format("a") + limit.format("b")) as way:
        way.use(failover(round_robin("a", "b"), "c"))
        assert [await way.served() for _ in range(6)] == ["a", "b", "a", "b", "c", "c"]


async def test_row_4_6_when_one_of_the_pool_fails_the_other_serves_with_its_own_body(way):
    def noted(model: str) -> RoutingResult:
        return RoutingResult(model, transform=lambda body: {**body, "user": model})

    way.use(failover(chain(round_robin(noted("a"), noted("b"))), noted("c")))
    way.sim.script("one", Refusal(status=503))
    way.sim.script("two", Refusal(status=503))
    assert await way.served() == "c"
    assert [(seen.key, seen.json()["user"], seen.json()["model"]) for seen in way.sim.requests] == [
        ("one", "a", "a"),
        ("two", "b", "b"),
        ("three", "c", "c"),
    ]


# --- the file ---------------------------------------------------------------------------------------------------------------


async def test_row_4_2_a_file_names_its_routers_and_they_are_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "way_routers.py").write_text("from quota_router import explicit\nfixed = explicit('b', reason='fixed')\n")
    text = MODELS.replace("[routing]\n", '[routing]\nrouters = ["way_routers:fixed"]\n')
    monkeypatch.setitem(globals(), "MODELS", text)
    async with open_way(tmp_path) as way:
        told = await way.route(model="a")
        assert (told["router"], told["model"], told["reason"]) == ("way_routers:fixed", "b", "fixed")
    sys.modules.pop("way_routers")
