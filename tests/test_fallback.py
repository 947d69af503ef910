"""
Faults of a provider, over real sockets: what the caller sees, what the next call does, and what is booked.

Law: before the first content byte the next rung answers, after it nobody else does; what may have been charged is booked.
"""

import json
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from between_kit import ASKED, INPUT_NUSD, OUTPUT_NUSD, SAID, Told, open_between
from daemon_kit import AUTH, get
from multidict import CIMultiDict
from yarl import URL

from quota_router.simulator import Fault, FaultKind, Refusal, Reply, Simulator, Step

FIRST = {"chat": "chat-1", "responses": "chat-1", "messages": "messages-1"}
SECOND = {"chat": "chat-2", "responses": "chat-2", "messages": "messages-2"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory, module_database):
    async with open_between(tmp_path_factory.mktemp("fallback")) as between:
        yield between


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing."""
    shared.forget()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")
deliveries = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
dialects = pytest.mark.parametrize("dialect", ["chat", "messages"])

# --- before the first content byte ------------------------------------------------------------------------------------

FREE: dict[str, Step] = {
    "F19 429": Refusal(status=429, retry_after=30),
    "F22 500": Refusal(status=500),
    "F22 503": Refusal(status=503),
    "F23 529": Refusal(status=529),
    "F24 401": Refusal(status=401),
    "F26 402": Refusal(status=402),
    "redirect": Fault(kind=FaultKind.REDIRECT, location="http://127.0.0.1:1/"),
    "F10 error object in a 200": Fault(kind=FaultKind.ERROR_IN_200),
    "F14 error in a 200 stream": Fault(kind=FaultKind.ERROR_IN_STREAM),
}
"""The provider said no: nothing was spent."""
UNKNOWN: dict[str, Step] = {
    "F6 closed before a byte": Fault(kind=FaultKind.CLOSE_BEFORE_ANSWER),
    "F6 reset": Fault(kind=FaultKind.RESET),
    "F9 garbage": Fault(kind=FaultKind.GARBAGE),
    "F13 cut stream": Fault(kind=FaultKind.CUT_STREAM),
    "F13 ended stream": Fault(kind=FaultKind.END_STREAM),
    "gzip": Fault(kind=FaultKind.GZIP_BOMB),
    "F17 giant line": Fault(kind=FaultKind.GIANT_LINE),
    "F18 stall": Fault(kind=FaultKind.STALL),
}
"""Nobody said whether it was charged."""


@deliveries
@dialects
@pytest.mark.parametrize("fault", [*FREE, *UNKNOWN])
async def test_a_fault_of_the_first_rung_is_answered_by_the_second_and_the_next_call_skips_the_first(
    between, fault, dialect, stream
):
    first, second = FIRST[dialect], SECOND[dialect]
    between.script(first, {**FREE, **UNKNOWN}[fault])
    between.script(second, Reply(input_tokens=10, output_tokens=2, times=None))
    told = await between.ask(dialect, stream=stream)
    assert told.status == 200
    assert b"quick" in told.body
    assert b"error" not in told.body
    reason = "auth_failed" if fault == "F24 401" else "already_tried"
    assert (told.ours("provider"), told.ours("attempts"), told.ours("skipped")) == (second, "2", f"{first}={reason}")

    story = await between.story(told)
    failed, answered = story["attempts"]
    spent_nusd = 10 * INPUT_NUSD + 2 * OUTPUT_NUSD
    assert (answered["outcome"], answered["quality"], answered["cost_nusd"]) == ("ok", "reported", spent_nusd)
    assert (story["state"], failed["provider"], failed["upstream_model"]) == ("done", first, f"up-{first}")
    if fault in FREE:
        assert (failed["outcome"], failed["cost_nusd"], failed["usage"]) == ("failed", 0, None)
        assert [entry["cost_nusd"] for entry in story["entries"]] == [spent_nusd]
    else:
        assumed = failed["usage"]["input_tokens"]
        assert (failed["outcome"], failed["quality"], failed["cost_nusd"]) == ("unknown", "assumed", assumed * INPUT_NUSD)
        assert assumed > 0
        assert story["cost_nusd"] == spent_nusd + assumed * INPUT_NUSD

    again = await between.ask(dialect, stream=stream)
    reason = "auth_failed" if fault == "F24 401" else "cooldown"
    assert (again.status, again.ours("attempts"), again.ours("skipped")) == (200, "1", f"{first}={reason}")
    assert (len(between.seen(first)), len(between.seen(second))) == (1, 2)


@pytest.mark.parametrize(("dialect", "is_booked"), [("chat", False), ("messages", True)])
async def test_an_error_after_the_opening_events_moves_on_and_books_what_was_reported(between, dialect, is_booked):
    """
    Anthropic tells the input before the first word: that much was read, whatever happens then.
    """
    between.script(FIRST[dialect], Fault(kind=FaultKind.ERROR_IN_STREAM, after_chunks=0, reply=Reply(input_tokens=500)))
    told = await between.ask(dialect, stream=True)
    assert (told.ours("provider"), told.body.count(b"event: message_start")) == (SECOND[dialect], int(is_booked))
    failed = (await between.story(told))["attempts"][0]
    assert failed["outcome"] == "failed"
    assert failed["cost_nusd"] == (500 * INPUT_NUSD + OUTPUT_NUSD if is_booked else 0)


# --- after it ---------------------------------------------------------------------------------------------------------

BROKEN = {
    "F12 cut": (FaultKind.CUT_STREAM, "upstream_truncated"),
    "F12 reset": (FaultKind.RESET, "upstream_truncated"),
    "F12 ended": (FaultKind.END_STREAM, "upstream_truncated"),
    "F18 stalled": (FaultKind.STALL, "upstream_truncated"),
    "F17 giant line": (FaultKind.GIANT_LINE, "upstream_truncated"),
    "F14 error": (FaultKind.ERROR_IN_STREAM, "server_is_overloaded"),
}


def events_of(body: bytes) -> list[tuple[str | None, dict[str, Any]]]:
    """Name and data of every event; the stream is well-formed."""
    assert body.endswith(b"\n\n")
    found = []
    for event in body.decode().removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        found.append((fields.get("event"), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("dialect", ASKED)
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_stream_that_breaks_after_its_first_word_ends_with_an_error_and_is_not_tried_elsewhere(between, fault, dialect):
    kind, code = BROKEN[fault]
    size_bytes = 9 << 20 if dialect == "responses" else 1 << 20
    between.script(FIRST[dialect], Fault(kind=kind, after_chunks=2, size_bytes=size_bytes, reply=Reply(text="one two three")))
    told = await between.ask(dialect, stream=True)
    events = events_of(told.body)
    assert (told.status, told.ours("provider")) == (200, FIRST[dialect])
    assert b"thr" not in told.body
    for invented in (b'"finish_reason":"', b"[DONE]", b"response.completed", b"message_delta", b"message_stop"):
        assert invented not in told.body
    name, last = events[-1]
    assert [data for _, data in events[:-1] if "error" in (data, data.get("type")) or data.get("error")] == []
    if dialect == "messages":
        assert (name, last["type"]) == ("error", "error")
        assert last["error"]["type"] == ("overloaded_error" if fault == "F14 error" else "api_error")
    elif dialect == "responses":
        assert (name, last["type"], last["code"]) == ("error", "error", code)
    else:
        assert (name, last["error"]["code"]) == (None, code)

    story = await between.story(told)
    (attempt,) = story["attempts"]
    assert (attempt["outcome"], attempt["quality"], story["state"]) == ("failed", "estimated", "failed")
    assert attempt["usage"]["output_tokens"] > 0
    assert story["cost_nusd"] == attempt["usage"]["input_tokens"] * INPUT_NUSD + attempt["usage"]["output_tokens"] * OUTPUT_NUSD
    assert between.seen(SECOND[dialect]) == []


# --- the caller's own mistakes ----------------------------------------------------------------------------------------

MISTAKES = {
    "F25 400": Refusal(status=400, body='{ "error" : {"message":"caf\\u00e9", "n": 1.0e0} }\n'),
    "F25 413": Refusal(status=413),
    "F25 422": Refusal(status=422, body="no JSON at all", headers={"content-type": "text/plain"}),
    "F25 context": Refusal(status=400, code="context_length_exceeded", message="prompt is too long: 9 tokens > 8 maximum"),
}


@deliveries
@dialects
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_the_callers_own_mistake_comes_back_byte_for_byte_and_costs_nothing(between, mistake, dialect, stream):
    refusal = MISTAKES[mistake]
    between.script(FIRST[dialect], refusal)
    told = await between.ask(dialect, stream=stream)
    direct = await _refused_by(between.sim, refusal, FIRST[dialect], dialect)
    assert (told.status, told.body, told.headers["content-type"]) == (refusal.status, direct.body, direct.headers["content-type"])
    assert told.ours("attempts") == "1"
    (attempt,) = (await between.story(told))["attempts"]
    assert (attempt["outcome"], attempt["status"], attempt["cost_nusd"]) == ("failed", refusal.status, 0)
    again = await between.ask(dialect, stream=stream)
    assert (again.ours("provider"), again.ours("skipped")) == (FIRST[dialect], None)


async def _refused_by(sim: Simulator, refusal: Refusal, key: str, dialect: str) -> Told:
    """The same refusal, asked of the upstream itself."""
    sim.script(key, refusal)
    path, asked = ASKED[dialect]
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(sim.anthropic_base_url) as http, http.post(path, json=asked, headers=headers) as answer:
        return Told(status=answer.status, headers=answer.headers.copy(), body=await answer.read())


# --- nobody left ------------------------------------------------------------------------------------------------------


@deliveries
@dialects
async def test_row_1_9_when_all_are_out_of_quota_the_true_soonest_moment_is_told_unclamped(between, dialect, stream):
    between.script(FIRST[dialect], Refusal(status=429, retry_after=90_000))
    between.script(SECOND[dialect], Refusal(status=429, retry_after=7_999))
    for reason in ("already_tried", "cooldown"):
        told = await between.ask(dialect, stream=stream)
        error = told.json["error"]
        assert (told.status, told.headers["x-should-retry"]) == (429, "false")
        assert 7_990 < int(told.headers["Retry-After"]) <= 7_999
        assert 7_990 < error["retry_after_s"] <= 7_999
        assert (error["code"], error["type"]) == (
            "insufficient_quota",
            "rate_limit_error" if dialect == "messages" else "insufficient_quota",
        )
        assert told.ours("skipped") == f"{FIRST[dialect]}={reason},{SECOND[dialect]}={reason}"
        assert [rung["reason"] for rung in error["rungs"]] == [reason, reason]
    assert len(between.sim.requests) == 2


@dialects
async def test_row_1_9_an_outage_of_all_is_503_and_soon_over(between, dialect):
    for provider in (FIRST[dialect], SECOND[dialect]):
        between.script(provider, Refusal(status=503))
    told = await between.ask(dialect)
    assert told.status == 503
    assert 0 < int(told.headers["Retry-After"]) <= 30
    assert "x-should-retry" not in told.headers
    story = await between.story(told)
    assert (story["state"], story["cost_nusd"], len(story["attempts"])) == ("failed", 0, 2)


async def test_row_1_9_without_any_credential_it_is_503_and_nobody_knows_until_when(between):
    told = await between.send("/v1/chat/completions", json.dumps({"model": "unset", "messages": SAID}))
    assert (told.status, told.ours("skipped")) == (503, "unset=no_credential")
    assert "Retry-After" not in told.headers
    assert told.headers["x-should-retry"] == "false"
    assert told.json["error"]["retry_after_s"] is None
    assert between.sim.requests == []


@dialects
async def test_row_1_8_a_pinned_call_has_no_fallback(between, dialect):
    first, second = FIRST[dialect], SECOND[dialect]
    told = await between.ask(dialect, x_quota_router_provider=second)
    assert (told.status, told.ours("provider"), told.ours("skipped")) == (200, second, f"{first}=pinned_elsewhere")
    between.script(second, Refusal(status=429, retry_after=50))
    told = await between.ask(dialect, x_quota_router_provider=second)
    assert (told.status, told.headers["Retry-After"]) == (429, "50")
    assert told.ours("skipped") == f"{first}=pinned_elsewhere,{second}=already_tried"
    told = await between.ask(dialect, x_quota_router_provider="nobody")
    assert told.status == 400
    assert between.seen(first) == []


# --- bytes ------------------------------------------------------------------------------------------------------------


@dialects
async def test_the_body_reaches_the_upstream_as_the_caller_wrote_it_but_for_the_model(between, dialect):
    """
    So does the query string, and of the headers only what is on the list.
    """
    body = (
        '{ "stream" : false ,\t"temperature":1.0e0 , "\\u006dodel"\n:\r\n "%s" , "x":"\\u00e9\\ud83d\\ude00\\/é東",'
        '"messages" : [ {"role":"user","content":null} ],"big":123456789012345678901234567890.10, "max_tokens": 5}\n'
    )
    query = "beta=true&x=%20a+b%2F&x=%C3%A9&empty"
    headers = CIMultiDict({**AUTH, "Cookie": "a=b", "X-Forwarded-For": "10.0.0.1", "OpenAI-Organization": "org"})
    headers.update({"anthropic-version": "2023-01-01", "anthropic-beta": "one-2025-01-01,two-2025-02-02"})
    headers.add("anthropic-beta", "three-2025-03-03")
    url = URL(f"{between.daemon.url}{ASKED[dialect][0]}?{query}", encoded=True)
    async with between.http.post(url, data=body % dialect, headers=headers) as answer:
        assert answer.status == 200
    (seen,) = between.sim.requests
    assert (seen.body.decode(), seen.query, seen.key) == (body % f"up-{FIRST[dialect]}", query, FIRST[dialect])
    sent = {name.lower(): value for name, value in seen.headers.items()}
    named = {"host", "content-length", "content-type", "accept", "accept-encoding"}
    if dialect == "chat":
        assert sent.keys() == named | {"authorization"}
    else:
        assert sent.keys() == named | {"x-api-key", "anthropic-version", "anthropic-beta"}
        assert sent["anthropic-version"] == "2023-01-01"
        assert sent["anthropic-beta"] == "one-2025-01-01,two-2025-02-02, three-2025-03-03"


WHOLE = {
    "chat": '{ "choices" : [ {"message":{"content":"\\u00e9 é"},"x":1.0e0} ],\n"usage":{"input_tokens":1,"output_tokens":1}}\n',
    "messages": '{ "content" : [ {"type":"text","text":"\\u00e9 é","x":1.0e0} ],\n"usage":{"input_tokens":1,"output_tokens":1}}\n',
}
STREAM = {
    "chat": ': hello\n\ndata:{"choices":[{"index":0,"delta":{"content":"\\u00e9 é"}} ]}\r\n\r\nid: 7\ndata: [DONE]\n\n',
    "messages": 'event: ping\ndata: {"type": "ping"}\n\nevent: content_block_delta\ndata: {"type": "content_block_delta",\n'
    'data:  "delta":{"text":"\\u00e9 é"}}\n\nevent:message_stop\rdata:{"type":"message_stop"}\r\r',
}


@deliveries
@dialects
async def test_the_answer_reaches_the_caller_as_the_upstream_wrote_it(between, dialect, stream):
    body = (STREAM if stream else WHOLE)[dialect]
    kind = FaultKind.ERROR_IN_STREAM if stream else FaultKind.GARBAGE
    between.script(FIRST[dialect], Fault(kind=kind, body=body, reply=Reply(headers={"set-cookie": "a=b"})))
    told = await between.ask(dialect, stream=stream)
    assert (told.status, told.body.decode()) == (200, body)
    assert told.headers["content-type"] == ("text/event-stream" if stream else "application/json")
    assert "set-cookie" not in told.headers


# --- the caller's time, and the caller who leaves ---------------------------------------------------------------------


@deliveries
@dialects
@pytest.mark.parametrize("after_chunks", [None, 0])
async def test_the_callers_own_deadline_is_408_and_no_fault_of_the_rung(between, dialect, stream, after_chunks):
    between.script(FIRST[dialect], Fault(kind=FaultKind.STALL, after_chunks=after_chunks))
    told = await between.ask(dialect, stream=stream, x_quota_router_timeout="0.15")
    error = told.json["error"]
    assert (told.status, error["code"], error["type"]) == (408, "deadline_passed", "invalid_request_error")
    (attempt,) = (await between.story(told))["attempts"]
    assert (attempt["outcome"], attempt["quality"]) == ("cancelled", "estimated")
    again = await between.ask(dialect, stream=stream)
    assert (again.ours("provider"), again.ours("skipped")) == (FIRST[dialect], None)


@pytest.mark.parametrize(("model", "quality"), [("chat", "estimated"), ("drained", "reported")])
async def test_f36_a_caller_who_leaves_in_mid_stream_is_settled_and_nothing_stays_held(between, model, quality):
    """
    Where hanging up stops the bill we hang up; elsewhere the rest is read for the true usage.
    """
    between.script(f"{model}-1", Reply(text="x" * 200, chunks=40, chunk_delay_s=0.01, input_tokens=70, output_tokens=33))
    body = json.dumps({"model": model, "messages": SAID, "stream": True, "max_tokens": 50})
    async with between.post("/v1/chat/completions", body) as answer:
        call_id = answer.headers["x-quota-router-call"]
        assert await answer.content.readany()
        (held,) = (await between.daemon.lane.snapshot()).holds
        answer.close()
    await between.settled()
    (limit,) = (await get(between.daemon.url, "/api/v1/limits"))["items"]
    story = await get(between.daemon.url, f"/api/v1/calls/{call_id}")
    (entry,) = story["entries"]
    assert (limit["held"], entry["hold_id"], entry["quality"]) == (0, held, quality)
    assert between.seen(f"{model}-1")[0].client_left == (quality == "estimated")
    if quality == "reported":
        assert entry["cost_nusd"] == 70 * INPUT_NUSD + 33 * OUTPUT_NUSD
