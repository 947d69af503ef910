"""The scripted upstream speaks both dialects as the vendors' own SDKs understand them, and fails exactly as ordered."""

import asyncio
import itertools
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import aiohttp
import anthropic
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion import Completion
from openai.types.create_embedding_response import CreateEmbeddingResponse
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from quota_router.simulator import Account, Fault, FaultKind, Refusal, Reply, Simulator, step_from_json, step_to_json

MESSAGES = [{"role": "user", "content": "Hello"}]
CHAT = {"model": "m", "messages": MESSAGES}
FIGURES = Reply(
    text="one two three",
    input_tokens=1000,
    cached_tokens=400,
    cache_write_5m=30,
    cache_write_1h=7,
    output_tokens=55,
    reasoning_tokens=20,
)
PATIENCE_S = 5.0


class Clock:
    """Aware UTC that moves when told."""

    def __init__(self):
        self.now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


@pytest.fixture
async def sim():
    async with Simulator() as simulator:
        yield simulator


@pytest.fixture
async def gpt(sim):
    async with openai.AsyncOpenAI(base_url=sim.openai_base_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(sim):
    async with anthropic.AsyncAnthropic(base_url=sim.anthropic_base_url, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def http(sim):
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(sim.anthropic_base_url, timeout=timeout) as session:
        yield session


async def chat(http, key="k", **more):
    return await http.post("/v1/chat/completions", json={**CHAT, **more}, headers={"authorization": f"Bearer {key}"})


async def message(http, key="k", **more):
    headers = {"x-api-key": key, "anthropic-version": "2023-06-01"}
    return await http.post("/v1/messages", json={**CHAT, "max_tokens": 9, **more}, headers=headers)


# --- the OpenAI side --------------------------------------------------------------------------------------------------


async def test_a_chat_completion_has_the_official_shape_and_the_scripted_figures(sim, gpt):
    sim.script("k", FIGURES)
    raw = await gpt.chat.completions.with_raw_response.create(**CHAT)
    answer = ChatCompletion.model_validate_json(raw.content, strict=True)
    assert answer.choices[0].message.content == "one two three"
    assert answer.usage.prompt_tokens == 1000
    assert answer.usage.completion_tokens == 55
    assert answer.usage.total_tokens == 1055
    assert answer.usage.prompt_tokens_details.cached_tokens == 400
    assert answer.usage.prompt_tokens_details.cache_write_tokens == 37
    assert answer.usage.completion_tokens_details.reasoning_tokens == 20
    assert raw.headers["x-request-id"] == "req_sim00000001"
    assert answer.id == "chatcmpl-sim00000001"


async def test_a_chat_stream_tells_its_usage_only_when_asked(sim, gpt):
    sim.script("k", FIGURES, FIGURES)
    asked = [c async for c in await gpt.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})]
    not_asked = [c async for c in await gpt.chat.completions.create(**CHAT, stream=True)]
    for chunk in (*asked, *not_asked):
        ChatCompletionChunk.model_validate(chunk.to_dict(), strict=True)
    assert asked[-1].choices == []
    assert asked[-1].usage.total_tokens == 1055
    assert [chunk.usage for chunk in asked[:-1]] == [None] * 5
    assert all(chunk.choices for chunk in not_asked)
    assert not any("usage" in chunk.to_dict() for chunk in not_asked)
    texts = [chunk.choices[0].delta.content for chunk in not_asked]
    assert "".join(text or "" for text in texts) == "one two three"
    assert not_asked[0].choices[0].delta.role == "assistant"
    assert not_asked[-1].choices[0].finish_reason == "stop"


async def test_a_chat_stream_ends_with_done(http):
    async with await chat(http, stream=True) as answer:
        body = await answer.read()
    assert answer.content_type == "text/event-stream"
    assert body.endswith(b"\n\ndata: [DONE]\n\n")


async def test_completions_answer_whole_and_streamed(sim, gpt):
    sim.script(None, FIGURES, FIGURES)
    raw = await gpt.completions.with_raw_response.create(model="m", prompt="Hello")
    whole = Completion.model_validate_json(raw.content, strict=True)
    stream = await gpt.completions.create(model="m", prompt="Hello", stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert whole.choices[0].text == "one two three"
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "one two three"
    assert whole.usage.total_tokens == chunks[-1].usage.total_tokens == 1055


async def test_responses_answer_whole_and_in_the_official_events(sim, gpt):
    sim.script("k", FIGURES, FIGURES)
    raw = await gpt.responses.with_raw_response.create(model="m", input="Hello")
    whole = Response.model_validate_json(raw.content)
    events = [event async for event in await gpt.responses.create(model="m", input="Hello", stream=True)]
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict())
    assert whole.output_text == "one two three"
    assert whole.usage.input_tokens_details.cached_tokens == 400
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(11))
    assert events[-1].response.usage == whole.usage
    assert events[-1].response.output_text == "one two three"


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}])
async def test_embeddings_say_the_same_in_both_encodings(sim, gpt, encoding):
    sim.script("k", Reply(input_tokens=9))
    answer = await gpt.embeddings.create(model="m", input=["a", "b"], **encoding)
    CreateEmbeddingResponse.model_validate(answer.to_dict(), strict=True)
    assert [item.embedding for item in answer.data] == [[0.25, -0.5, 0.75]] * 2
    assert answer.usage.total_tokens == 9


async def test_a_list_of_token_numbers_is_one_input(gpt):
    assert len((await gpt.embeddings.create(model="m", input=[1, 2, 3])).data) == 1
    assert len((await gpt.embeddings.create(model="m", input=[[1, 2], [3]])).data) == 2


# --- the Anthropic side -----------------------------------------------------------------------------------------------


async def test_a_message_has_the_official_shape_and_the_scripted_figures(sim, claude):
    sim.script("k", FIGURES)
    raw = await claude.messages.with_raw_response.create(**CHAT, max_tokens=99)
    answer = anthropic.types.Message.model_validate_json(await raw.read(), strict=True)
    assert answer.content[0].text == "one two three"
    assert answer.usage.input_tokens == 1000
    assert answer.usage.cache_read_input_tokens == 400
    assert answer.usage.cache_creation_input_tokens == 37
    assert answer.usage.cache_creation.ephemeral_5m_input_tokens == 30
    assert answer.usage.cache_creation.ephemeral_1h_input_tokens == 7
    assert answer.usage.output_tokens == 55
    assert answer.usage.output_tokens_details.thinking_tokens == 20
    assert raw.headers["request-id"] == "req_sim00000001"


async def test_a_message_stream_has_the_official_events_and_cumulative_usage(sim, claude):
    sim.script("k", FIGURES)
    events = [event async for event in await claude.messages.create(**CHAT, max_tokens=99, stream=True)]
    for event in events:
        TypeAdapter(anthropic.types.RawMessageStreamEvent).validate_python(event.to_dict(), strict=True)
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0].message.usage.input_tokens == events[-2].usage.input_tokens == 1000
    assert events[0].message.usage.output_tokens == 1
    assert events[-2].usage.output_tokens == 55
    assert events[-2].usage.cache_read_input_tokens == 400


async def test_the_sdk_assembles_a_streamed_message(sim, claude):
    sim.script("k", FIGURES)
    async with claude.messages.stream(**CHAT, max_tokens=99) as stream:
        final = await stream.get_final_message()
    assert final.content[0].text == "one two three"
    assert final.usage.output_tokens == 55


async def test_a_message_stream_pings(http):
    async with await message(http, stream=True) as answer:
        assert b"event: ping\n" in await answer.read()


async def test_counting_tokens_is_free_and_scriptable(sim, claude):
    sim.script("k", Reply(input_tokens=321))
    counted = await claude.messages.count_tokens(model="m", messages=MESSAGES)
    assert counted.input_tokens == 321


@pytest.mark.parametrize(("more", "headers"), [({}, {}), ({"max_tokens": None}, {"anthropic-version": "2023-06-01"})])
async def test_the_messages_api_insists_on_its_version_and_max_tokens(http, more, headers):
    async with http.post("/v1/messages", json={**CHAT, "max_tokens": 9, **more}, headers=headers) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["type"] == "invalid_request_error"


async def test_both_dialects_list_the_models_of_the_account():
    async with Simulator([Account(key="k", models=("a", "b"))]) as sim, AsyncExitStack() as stack:
        gpt = await stack.enter_async_context(openai.AsyncOpenAI(base_url=sim.openai_base_url, api_key="k"))
        claude = await stack.enter_async_context(anthropic.AsyncAnthropic(base_url=sim.anthropic_base_url, api_key="k"))
        assert [model.id async for model in gpt.models.list()] == ["a", "b"]
        models = [model async for model in claude.models.list()]
        assert [model.id for model in models] == ["a", "b"]
        anthropic.types.ModelInfo.model_validate(models[0].model_dump())
        with pytest.raises(openai.NotFoundError) as caught:
            await gpt.chat.completions.create(model="c", messages=MESSAGES)
        assert caught.value.code == "model_not_found"


# --- figures ----------------------------------------------------------------------------------------------------------


async def test_unscripted_figures_follow_from_the_request(sim, http):
    """
    Input is a quarter of the body's bytes; output is 12, or the caller's own cap when that is lower.
    """
    async with await chat(http) as plain, await chat(http, max_tokens=5) as capped:
        usages = [(await answer.json())["usage"] for answer in (plain, capped)]
    assert [usage["prompt_tokens"] for usage in usages] == [len(seen.body) // 4 for seen in sim.requests]
    assert [usage["completion_tokens"] for usage in usages] == [12, 5]
    assert [(seen.input_tokens, seen.output_tokens) for seen in sim.requests] == [
        (usage["prompt_tokens"], usage["completion_tokens"]) for usage in usages
    ]


async def test_figures_may_be_missing_absurd_priced_or_of_another_model(sim, http):
    sim.script("k", Reply(no_usage=True), Reply(usage={"prompt_tokens": -1}), Reply(cost_usd="0.000000123"), Reply(model="other"))
    missing, absurd, priced, other = [await (await chat(http)).text() for _ in range(4)]
    assert "usage" not in json.loads(missing)
    assert json.loads(absurd)["usage"] == {"prompt_tokens": -1}
    assert '"cost":0.000000123' in priced
    assert json.loads(other)["model"] == "other"


async def test_a_message_stream_may_say_nothing_of_usage(sim, http):
    sim.script("k", Reply(no_usage=True))
    async with await message(http, stream=True) as answer:
        body = await answer.read()
    assert b"usage" not in body
    assert b"message_stop" in body


async def test_a_reply_keeps_its_pace_and_its_headers(sim, http):
    sim.script("k", Reply(chunks=5, first_byte_delay_s=0.02, chunk_delay_s=0.01, headers={"X-Request-Id": "mine"}))
    started_at = asyncio.get_running_loop().time()
    async with await chat(http, stream=True) as answer:
        body = await answer.read()
    assert asyncio.get_running_loop().time() - started_at >= 0.07
    assert body.count(b'"content"') == 6
    assert answer.headers.getall("x-request-id") == ["mine"]


# --- refusals ---------------------------------------------------------------------------------------------------------

OPENAI_ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


@pytest.mark.parametrize(("status", "error"), OPENAI_ERRORS)
async def test_the_openai_sdk_understands_each_refusal(sim, gpt, status, error):
    sim.script("k", Refusal(status=status, retry_after=17))
    with pytest.raises(error) as caught:
        await gpt.chat.completions.create(**CHAT)
    assert caught.value.status_code == status
    assert caught.value.type
    assert caught.value.response.headers["retry-after"] == "17"


async def test_a_used_up_balance_is_told_as_insufficient_quota(sim, gpt):
    sim.script("k", Refusal(status=429, code="insufficient_quota"))
    with pytest.raises(openai.RateLimitError) as caught:
        await gpt.chat.completions.create(**CHAT)
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    assert "retry-after" not in caught.value.response.headers


ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@pytest.mark.parametrize(("status", "kind"), ANTHROPIC_ERRORS.items())
async def test_the_anthropic_sdk_understands_each_refusal(sim, claude, status, kind):
    sim.script("k", Refusal(status=status, code="some_code", message="Said so."))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await claude.messages.create(**CHAT, max_tokens=9)
    assert caught.value.status_code == status
    error = caught.value.body["error"]
    assert error == {"type": kind, "message": "Said so.", "details": {"error_code": "some_code"}}


async def test_a_refusal_may_have_any_body_and_headers(sim, http):
    sim.script("k", Refusal(status=200, body="data: x\n\n", headers={"Content-Type": "text/event-stream"}, retry_after="NaN"))
    async with await chat(http) as answer:
        assert (answer.status, answer.content_type, answer.headers["retry-after"]) == (200, "text/event-stream", "NaN")
        assert await answer.text() == "data: x\n\n"


UNREADABLE = {
    "cut": b"{",
    "list": b"[]",
    "no model": b"{}",
    "model of a wrong type": b'{"model": 3}',
    "not UTF-8": b'{"model": "\xff"}',
    "nested too deep": b'{"model":"m","x":' + b"[" * 200_000,
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_body_is_a_400_and_uses_no_step(sim, http, body):
    sim.script(None, Refusal(status=500))
    async with http.post("/v1/chat/completions", data=body) as refused, await chat(http) as scripted:
        assert (refused.status, scripted.status) == (400, 500)


async def test_an_unknown_path_is_a_404(http):
    async with http.get("/v1/nothing") as answer:
        assert answer.status == 404


# --- faults -----------------------------------------------------------------------------------------------------------


async def read_all(http, *, stream, ask=chat):
    """Status, body as far as it came, and the name of the error that ended it."""
    body = bytearray()
    try:
        async with await ask(http, stream=stream) as answer:
            async for piece in answer.content.iter_any():
                body += piece
    except aiohttp.ClientError as exc:
        return bytes(body), type(exc).__name__
    return bytes(body), None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (FaultKind.CLOSE_BEFORE_ANSWER, "ServerDisconnectedError"),
        (FaultKind.RESET, "ClientOSError"),
        (FaultKind.CUT_BODY, "ClientPayloadError"),
        (FaultKind.TRUNCATED_BODY, None),
    ],
)
async def test_a_connection_breaks_as_ordered(sim, http, kind, error, stream):
    sim.script("k", Fault(kind=kind))
    body, ended = await read_all(http, stream=stream)
    assert ended == error
    assert b"[DONE]" not in body
    await sim.quiet()
    assert not sim.requests[0].answered
    assert not sim.requests[0].client_left
    assert (await read_all(http, stream=stream))[1] is None


@pytest.mark.parametrize(
    ("kind", "after_chunks"),
    [
        *itertools.product((FaultKind.CUT_STREAM, FaultKind.END_STREAM, FaultKind.ERROR_IN_STREAM), (None, 0, 2)),
        (FaultKind.RESET, 0),
        (FaultKind.RESET, 2),
    ],
)
@pytest.mark.parametrize("ask", [chat, message])
async def test_a_stream_breaks_after_the_ordered_number_of_chunks(sim, http, kind, after_chunks, ask):
    sim.script("k", Fault(kind=kind, after_chunks=after_chunks, reply=Reply(text="abc", chunks=3)))
    body, ended = await read_all(http, stream=True, ask=ask)
    assert (ended is None) == (kind in {FaultKind.END_STREAM, FaultKind.ERROR_IN_STREAM})
    delta = b'"content":"' if ask is chat else b"text_delta"
    opening = b'"role":"assistant"' if ask is chat else b"message_start"
    assert body.count(delta) == (after_chunks or 0) + (ask is chat and after_chunks is not None)
    assert body.count(opening) >= (after_chunks is not None)
    assert b"[DONE]" not in body
    assert b"message_stop" not in body
    assert (b'"error"' in body) == (kind is FaultKind.ERROR_IN_STREAM)


async def test_an_error_in_a_chat_stream_reaches_the_sdk(sim, gpt):
    sim.script("k", Fault(kind=FaultKind.ERROR_IN_STREAM, after_chunks=1, status=429))
    stream = await gpt.chat.completions.create(**CHAT, stream=True)
    with pytest.raises(openai.APIError) as caught:
        [chunk async for chunk in stream]
    assert caught.value.code == "rate_limit_exceeded"


async def test_an_error_in_a_message_stream_reaches_the_sdk(sim, claude):
    sim.script("k", Fault(kind=FaultKind.ERROR_IN_STREAM))
    stream = await claude.messages.create(**CHAT, max_tokens=9, stream=True)
    with pytest.raises(anthropic.APIStatusError) as caught:
        [event async for event in stream]
    assert caught.value.body["error"]["type"] == "overloaded_error"


async def test_an_error_among_response_events_is_an_event(sim, gpt):
    sim.script("k", Fault(kind=FaultKind.ERROR_IN_STREAM, after_chunks=0))
    events = [event async for event in await gpt.responses.create(model="m", input="Hello", stream=True)]
    assert (events[-1].type, events[-1].code) == ("error", "server_is_overloaded")


@pytest.mark.parametrize("kind", [FaultKind.ERROR_IN_200, FaultKind.ERROR_IN_STREAM])
async def test_a_200_may_hold_an_error_object(sim, http, kind):
    sim.script("k", Fault(kind=kind, status=503))
    async with await chat(http) as answer:
        assert answer.status == 200
        assert (await answer.json())["error"]["code"] == "server_is_overloaded"


async def test_garbage_is_a_200_of_html_or_of_anything(sim, http):
    sim.script("k", Fault(kind=FaultKind.GARBAGE), Fault(kind=FaultKind.GARBAGE, body='{"id": '))
    async with await chat(http) as page, await chat(http) as text:
        assert (page.status, page.content_type) == (200, "text/html")
        assert (text.status, await text.text()) == (200, '{"id": ')


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after_chunks", [None, 1])
async def test_a_stall_lasts_until_the_peer_leaves(sim, http, stream, after_chunks):
    sim.script("k", Fault(kind=FaultKind.STALL, after_chunks=after_chunks))
    task = asyncio.create_task(read_all(http, stream=stream))
    await sim.wait_for_requests(1)
    with pytest.raises(TimeoutError):
        await sim.quiet(timeout_s=0.05)
    task.cancel()
    await sim.quiet()
    assert sim.requests[0].client_left
    assert sim.counters["client_left"] == 1


@pytest.mark.parametrize(("ask", "stream", "beat"), [(chat, True, b": keep-alive"), (message, True, b"ping"), (chat, False, b"\n")])
async def test_heartbeats_go_on_until_the_peer_leaves(sim, http, ask, stream, beat):
    sim.script("k", Fault(kind=FaultKind.HEARTBEATS, delay_s=0.001))
    async with await ask(http, stream=stream) as answer:
        beats = b""
        while beats.count(beat) < 5:
            beats += await answer.content.readany()
        answer.close()
    await sim.quiet()
    assert sim.requests[0].client_left


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drip_is_the_right_answer_byte_by_byte(sim, http, stream):
    sim.script("k", Fault(kind=FaultKind.DRIP, delay_s=0))
    body, ended = await read_all(http, stream=stream)
    assert ended is None
    assert body.endswith(b"[DONE]\n\n") if stream else json.loads(body)["usage"]
    assert sim.requests[0].answered


@pytest.mark.parametrize("stream", [False, True])
async def test_a_giant_line_has_the_ordered_size(sim, http, stream):
    sim.script("k", Fault(kind=FaultKind.GIANT_LINE, size_bytes=100_000))
    body, _ = await read_all(http, stream=stream)
    assert body.count(b"x") == 100_000
    assert b"\n" not in body


async def test_a_gzip_bomb_is_small_until_unfolded(sim, http):
    sim.script("k", Fault(kind=FaultKind.GZIP_BOMB, size_bytes=3_000_000))
    async with await chat(http) as answer:
        assert int(answer.headers["content-length"]) < 10_000
        assert len(await answer.read()) == 3_000_000


async def test_a_redirect_points_where_it_was_told(sim, http):
    sim.script("k", Fault(kind=FaultKind.REDIRECT, location="http://127.0.0.1:1/"))
    async with http.post("/v1/responses", json=CHAT, headers={"x-api-key": "k"}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["location"]) == (307, "http://127.0.0.1:1/")


async def test_the_simulator_stops_while_a_peer_still_waits():
    async with aiohttp.ClientSession() as session:
        async with Simulator() as sim:
            sim.script(None, Fault(kind=FaultKind.STALL))
            task = asyncio.create_task(session.post(f"{sim.openai_base_url}/responses", json=CHAT))
            await sim.wait_for_requests(1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await task
    assert not sim.requests[0].client_left


# --- the script -------------------------------------------------------------------------------------------------------


async def test_steps_are_used_in_order_by_their_account_first(sim, http):
    sim.script(None, Refusal(status=503, times=2))
    sim.script("a", Refusal(status=500), Refusal(status=429))
    statuses = [(await chat(http, key)).status for key in ("a", "b", "a", "a", "a")]
    assert statuses == [500, 503, 429, 503, 200]


async def test_a_step_may_last_for_ever_or_wait_for_its_path(sim, http):
    sim.script(None, Refusal(status=500, path="/api/oauth/usage"), Refusal(status=503, times=None))
    assert [(await chat(http)).status for _ in range(3)] == [503] * 3
    assert [(await http.get("/api/oauth/usage")).status for _ in range(2)] == [500, 200]


async def test_a_key_that_no_account_has_cannot_be_scripted():
    with pytest.raises(ValueError, match="no account"):
        Simulator([Account(key="k")]).script("other", Reply())


@pytest.mark.parametrize(
    "step",
    [FIGURES, Refusal(status=429, retry_after=3, headers={"a": "b"}), Fault(kind=FaultKind.STALL, reply=FIGURES, times=None)],
)
def test_a_step_survives_its_json_form(step):
    assert step_from_json(json.loads(json.dumps(step_to_json(step)))) == step


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"step": "nothing"},
        {"step": "reply", "txet": ""},
        {"step": "fault", "kind": "cut"},
        {"step": "fault", "kind": "stall", "reply": {"chunk": 1}},
        {"step": "refusal", "status": "429"},
    ],
)
async def test_a_wrong_step_is_refused_with_its_reason(http, value):
    async with http.post("/_sim/script", json={"key": None, "steps": [value]}) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]


async def test_another_process_can_steer_over_http(sim, http):
    order = {"key": None, "steps": [{"step": "refusal", "status": 429, "retry_after": 9}]}
    async with http.post("/_sim/script", json=order) as answer:
        assert answer.status == 200
    async with await chat(http, "k") as refused:
        assert (refused.status, refused.headers["retry-after"]) == (429, "9")
    async with http.get("/_sim/requests") as answer:
        told = await answer.json()
    assert told["counters"] == {"requests": 1, "answered": 1, "client_left": 0, "quota_refused": 0}
    assert told["items"][0]["key"] == "k"
    assert told["items"][0]["path"] == "/v1/chat/completions"
    assert json.loads(told["items"][0]["body"]) == CHAT
    async with http.post("/_sim/reset") as answer:
        assert answer.status == 200
    assert sim.requests == []
    assert (await http.get("/_sim/nothing")).status == 404


# --- quotas -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def vendor(clock):
    accounts = [
        Account(key="two", requests=2, tokens=1000, window_s=90),
        Account(key="small", tokens=50),
        Account(key="poor", credit_usd="0.03"),
    ]
    async with Simulator(accounts, clock=clock) as simulator:
        yield simulator


@pytest.fixture
async def asked(vendor):
    async with aiohttp.ClientSession(vendor.anthropic_base_url) as session:
        yield session


async def test_an_unknown_key_is_refused_in_the_dialect(asked):
    async with await chat(asked, "nobody") as openai_answer, await message(asked, "nobody") as anthropic_answer:
        assert (openai_answer.status, anthropic_answer.status) == (401, 401)
        assert (await openai_answer.json())["error"]["code"] == "invalid_api_key"
        assert (await anthropic_answer.json())["error"]["type"] == "authentication_error"


async def test_a_quota_of_two_admits_two_and_tells_when_to_come_back(vendor, asked, clock):
    vendor.script("two", Reply(input_tokens=100, output_tokens=20, times=None))
    first = await chat(asked, "two")
    clock.advance(29.5)
    second, third = await message(asked, "two"), await chat(asked, "two")
    assert [answer.status for answer in (first, second, third)] == [200, 200, 429]
    assert third.headers["retry-after"] == "61"
    assert (await third.json())["error"]["code"] == "rate_limit_exceeded"
    assert vendor.counters["quota_refused"] == 1
    limits = {name: value for name, value in first.headers.items() if name.startswith("x-ratelimit")}
    assert limits == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "1m30s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "1m30s",
    }
    assert third.headers["x-ratelimit-remaining-tokens"] == "760"
    assert third.headers["x-ratelimit-reset-tokens"] == "1m0.5s"
    limits = {name: value for name, value in second.headers.items() if name.startswith("anthropic-ratelimit")}
    assert limits == {
        "anthropic-ratelimit-requests-limit": "2",
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-20T12:01:30Z",
        "anthropic-ratelimit-tokens-limit": "1000",
        "anthropic-ratelimit-tokens-remaining": "780",
        "anthropic-ratelimit-tokens-reset": "2026-11-20T12:01:30Z",
    }
    clock.advance(60.5)
    assert (await chat(asked, "two")).status == 200


async def test_a_refused_request_uses_no_step(vendor, asked):
    vendor.script("two", Reply(), Reply(), Reply(text="third"))
    statuses = [(await chat(asked, "two")).status for _ in range(4)]
    assert statuses == [200, 200, 429, 429]


async def test_no_more_requests_get_in_at_once_than_the_quota_admits(asked):
    answers = await asyncio.gather(*(chat(asked, "two") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] * 2 + [429] * 18


async def test_used_up_tokens_close_the_window(vendor, asked):
    vendor.script("small", Reply(input_tokens=49, output_tokens=0), Reply(input_tokens=1, output_tokens=0))
    assert [(await chat(asked, "small")).status for _ in range(3)] == [200, 200, 429]


async def test_counting_tokens_and_listing_models_use_no_quota(asked):
    headers = {"x-api-key": "two", "anthropic-version": "2023-06-01"}
    for _ in range(3):
        assert (await asked.post("/v1/messages/count_tokens", json=CHAT, headers=headers)).status == 200
        assert (await asked.get("/v1/models", headers=headers)).status == 200
    assert [(await chat(asked, "two")).status for _ in range(3)] == [200, 200, 429]


async def test_the_key_endpoint_tells_the_credit_and_calls_end_with_it(vendor, asked):
    vendor.script("poor", Reply(cost_usd="0.01"), Reply(cost_usd="0.025"))
    assert [(await chat(asked, "poor")).status for _ in range(3)] == [200, 200, 402]
    async with asked.get("/api/v1/key", headers={"authorization": "Bearer poor"}) as answer:
        data = (await answer.json())["data"]
    assert (data["limit"], data["usage"], data["limit_remaining"]) == (0.03, 0.035, 0)


async def test_a_window_opens_with_the_first_call_and_not_with_a_look_at_it(asked, clock):
    headers = {"authorization": "Bearer two"}
    await asked.get("/api/oauth/usage", headers=headers)
    clock.advance(89)
    await chat(asked, "two")
    clock.advance(2)
    async with asked.get("/api/oauth/usage", headers=headers) as answer:
        assert (await answer.json())["five_hour"]["utilization"] == 50.0
    clock.advance(88)
    async with asked.get("/api/oauth/usage", headers=headers) as answer:
        assert (await answer.json())["five_hour"]["utilization"] == 0.0


async def test_the_subscription_endpoint_tells_the_window_of_the_fuller_quota(vendor, asked):
    vendor.script("two", Reply(input_tokens=740, output_tokens=20))
    await chat(asked, "two")
    async with asked.get("/api/oauth/usage", headers={"authorization": "Bearer two"}) as answer:
        told = await answer.json()
    assert told["five_hour"] == {"utilization": 76.0, "resets_at": "2026-11-20T12:01:30+00:00"}
    async with asked.get("/api/oauth/usage", headers={"authorization": "Bearer poor"}) as answer:
        assert (await answer.json())["five_hour"] is None


# --- as a process -----------------------------------------------------------------------------------------------------


async def test_the_process_prints_its_port_serves_and_ends_cleanly_on_sigterm():
    account = json.dumps({"key": "k", "requests": 1})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "quota_router.simulator", "--port", "0", "--account", account),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ,
    )
    try:
        port = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))["port"]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            statuses = [(await chat(session)).status for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        _, complaints = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    finally:
        if process.returncode is None:
            process.kill()
    assert statuses == [200, 429]
    assert (process.returncode, complaints) == (0, b"")
