"""
Signs of life on streams, over real sockets, as the official SDKs read them.

Law: while nothing comes, comments keep a stream alive; they stand between events, never in one. What goes wrong after the first is
told inside the stream, in the dialect, and looks like nothing else.
"""

import asyncio
import json
import re

import anthropic
import openai
import pytest
import pytest_asyncio
from between_kit import ASKED, SAID, SERVER, open_between
from daemon_kit import TOKEN
from ledger_kit import Clock

from quota_router.simulator import Fault, FaultKind, Refusal, Reply
from quota_router.web import sink

FIRST = {"chat": "chat-1", "responses": "chat-1", "messages": "messages-1"}
COMMENT = b": keep-alive\n\n"
TEXT = "one two three four"
BEAT_S = 0.02
PAUSE_S = 0.15
"""Several beats long."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink, "KEEPALIVE_S", BEAT_S)
        async with open_between(tmp_path_factory.mktemp("alive"), server=SERVER, rungs=1, clock=clock) as between:
            yield between, clock


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing."""
    shared[0].forget()
    return shared[0]


@pytest.fixture
def clock(shared):
    return shared[1]


@pytest_asyncio.fixture(loop_scope="module")
async def sdks(between):
    url = between.daemon.url
    async with (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as of_openai,
        anthropic.AsyncAnthropic(base_url=url, api_key=TOKEN, max_retries=0) as of_anthropic,
    ):
        yield {"chat": of_openai, "responses": of_openai, "messages": of_anthropic}


pytestmark = pytest.mark.asyncio(loop_scope="module")
dialects = pytest.mark.parametrize("dialect", ASKED)


async def said_through(sdks, dialect, told: list[str], **headers: str) -> str | None:
    """The text of a stream as its SDK reads it, piece by piece into *told*; why it ended, if it says so."""
    return await _READ[dialect](sdks[dialect], told, {"extra_headers": headers, "stream": True})


async def _read_chat(sdk, told, more):
    ended = None
    async for chunk in await sdk.chat.completions.create(model="chat", messages=SAID, **more):
        for choice in chunk.choices:
            told.append(choice.delta.content or "")
            ended = choice.finish_reason or ended
    return ended


async def _read_responses(sdk, told, more):
    ended = None
    async for event in await sdk.responses.create(model="chat", input="hi", **more):
        if event.type == "response.output_text.delta":
            told.append(event.delta)
        ended = event.type
    return ended


async def _read_messages(sdk, told, more):
    ended = None
    async for event in await sdk.messages.create(model="messages", messages=SAID, max_tokens=50, **more):
        if event.type == "content_block_delta":
            told.append(event.delta.text)
        if event.type == "message_delta":
            ended = event.delta.stop_reason or ended
    return ended


_READ = {"chat": _read_chat, "responses": _read_responses, "messages": _read_messages}

# --- raw ----------------------------------------------------------------------------------------------------------------


@dialects
async def test_comments_stand_between_events_and_without_them_the_stream_is_the_usual_one(between, dialect):
    """
    Before the first word, and between words.
    """
    reply = Reply(text=TEXT, first_byte_delay_s=PAUSE_S, chunk_delay_s=PAUSE_S / 2)
    between.script(FIRST[dialect], reply)
    told = await between.ask(dialect, stream=True)
    assert told.headers["content-type"].startswith("text/event-stream")
    assert told.body.startswith(COMMENT)
    events = re.split(rb"(?<=\n\n)", told.body)
    assert events.count(COMMENT) >= 3
    assert events.index(COMMENT) < len(events) - 1 - events[::-1].index(COMMENT), "some came later"
    between.script(FIRST[dialect], Reply(text=TEXT))
    plain = await between.ask(dialect, stream=True)
    alive = [event for event in events if event != COMMENT]
    assert [_shape(event) for event in alive] == [_shape(event) for event in re.split(rb"(?<=\n\n)", plain.body)]


def _shape(event: bytes) -> bytes:
    """An event without what differs from call to call."""
    return re.sub(rb"sim\d+|\"created(_at)?\":\d+", b"", event)


async def test_an_answer_that_does_not_stream_has_no_comments(between):
    between.script("chat-1", Reply(first_byte_delay_s=PAUSE_S))
    told = await between.ask("chat")
    assert (told.status, COMMENT in told.body) == (200, False)
    assert told.json["choices"]


@dialects
async def test_a_stream_that_is_lively_has_no_comments(between, dialect, monkeypatch):
    monkeypatch.setattr(sink, "KEEPALIVE_S", 60.0)
    between.script(FIRST[dialect], Reply(text=TEXT, chunk_delay_s=0.01))
    assert COMMENT not in (await between.ask(dialect, stream=True)).body


# --- as the SDKs read it ------------------------------------------------------------------------------------------------


@dialects
async def test_an_sdk_reads_a_stream_that_was_kept_alive(between, sdks, dialect):
    between.script(FIRST[dialect], Reply(text=TEXT, first_byte_delay_s=PAUSE_S, chunk_delay_s=PAUSE_S / 3))
    told = []
    assert await said_through(sdks, dialect, told) in {"stop", "response.completed", "end_turn"}
    assert "".join(told) == TEXT


@dialects
async def test_an_sdk_reads_what_it_waited_in_line_for(between, sdks, clock, dialect):
    between.script(FIRST[dialect], Refusal(status=429, retry_after=60), Reply(text=TEXT))
    told = []
    reading = asyncio.create_task(said_through(sdks, dialect, told, **{"x-quota-router-max-wait": "300"}))
    await is_in_line(between)
    await is_kept_alive(between)
    clock.forward(seconds=60)
    between.daemon.router.admissions.waiting.stir()
    assert await reading in {"stop", "response.completed", "end_turn"}
    assert "".join(told) == TEXT


ERRORS = (openai.APIError, anthropic.APIError)


@dialects
async def test_who_waited_in_vain_is_told_inside_the_stream(between, sdks, dialect):
    """
    The status was said with the first comment.
    """
    between.script(FIRST[dialect], Refusal(status=429, retry_after=3_600))
    body = json.dumps({**ASKED[dialect][1], "stream": True})
    told = await between.send(ASKED[dialect][0], body, x_quota_router_max_wait=str(PAUSE_S))
    assert told.status == 200
    assert told.body.startswith(COMMENT)
    error = _last_error(told.body, dialect)
    assert error.get("code", "insufficient_quota") == "insufficient_quota"
    assert COMMENT not in told.body[told.body.index(b"data: ") :]

    with pytest.raises(ERRORS):
        await said_through(sdks, dialect, [], **{"x-quota-router-max-wait": str(PAUSE_S)})


@dialects
async def test_a_refusal_after_a_comment_is_told_inside_the_stream_without_the_vendors_words(between, clock, dialect):
    between.script(FIRST[dialect], Refusal(status=429, retry_after=60), Refusal(status=400, message="secret words"))
    path, asked = ASKED[dialect]
    sending = asyncio.create_task(between.send(path, json.dumps({**asked, "stream": True}), x_quota_router_max_wait="300"))
    await is_in_line(between)
    await is_kept_alive(between)
    clock.forward(seconds=60)
    between.daemon.router.admissions.waiting.stir()
    told = await sending
    assert told.status == 200
    assert b"secret words" not in told.body
    error = _last_error(told.body, dialect)
    assert "400" in error["message"]
    assert (await between.story(told))["attempts"][-1]["status"] == 400


@dialects
@pytest.mark.parametrize("kind", [FaultKind.CUT_STREAM, FaultKind.RESET, FaultKind.END_STREAM, FaultKind.ERROR_IN_STREAM])
async def test_an_sdk_is_told_when_the_upstream_dies_after_its_first_words(between, sdks, dialect, kind):
    """
    It has the words, then an error of its own kind; no reason to have stopped is invented.
    """
    reply = Reply(text=TEXT, chunks=4)
    between.script(FIRST[dialect], Fault(kind=kind, after_chunks=2, reply=reply))
    told = []
    if (dialect, kind) == ("responses", FaultKind.ERROR_IN_STREAM):  # the vendor's own: this SDK hands its event over
        assert await said_through(sdks, dialect, told) == "error"
    else:
        with pytest.raises(ERRORS):
            await said_through(sdks, dialect, told)
    assert TEXT.startswith("".join(told))
    assert "".join(told)


# --- helpers ------------------------------------------------------------------------------------------------------------


async def is_in_line(between) -> None:
    async with asyncio.timeout(5):
        while not between.daemon.router.admissions.waiting.waiting:  # noqa: ASYNC110 -- nobody signals it
            await asyncio.sleep(0.001)


async def is_kept_alive(between) -> None:
    """The one call under way has had a comment."""
    (running,) = between.daemon.router.underway
    async with asyncio.timeout(5):
        while not running.sink.is_started:  # noqa: ASYNC110 -- nobody signals it
            await asyncio.sleep(0.001)


def _last_error(body: bytes, dialect: str):
    """The error that ends a stream, in the dialect's own form."""
    assert body.endswith(b"\n\n")
    fields = dict(line.split(": ", 1) for line in body.decode().removesuffix("\n\n").rsplit("\n\n", 1)[-1].split("\n"))
    data = json.loads(fields["data"])
    match dialect:
        case "chat":
            assert "event" not in fields
            return data["error"]
        case "responses":
            assert (fields["event"], data["type"]) == ("error", "error")
            return data
        case _:
            assert (fields["event"], data["type"]) == ("error", "error")
            return data["error"]


async def test_nothing_is_sent_behind_the_end_of_an_answer_that_is_read_slowly(between, monkeypatch):
    """
    The last piece waits for its reader for several beats: what is still in the pipe is the end, and a comment behind it would be
    taken for the beginning of the next answer.
    """
    sent = []

    class Slow:
        async def write(self, data):
            sent.append(data)

        async def write_eof(self, data):
            sent.append(data)
            await asyncio.sleep(PAUSE_S)

    stream = sink.HttpSink(object(), "call", is_stream=True)
    monkeypatch.setattr(sink.HttpSink, "is_gone", False)
    stream._response = Slow()
    await stream.write(b"data: 1\n\n", 1)
    await stream.finish(b"data: [DONE]\n\n")
    assert sent == [b"data: 1\n\n", b"data: [DONE]\n\n"]
