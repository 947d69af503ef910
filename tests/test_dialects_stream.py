"""Streams are cut into events and read as they pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Family
from quota_router.core.usage import Quality, Usage
from quota_router.dialects import Event, EventKind, UnreadableAnswer, dialect_of
from quota_router.dialects.sse import MAX_EVENT_BYTES, SplitEvents, data_of

OPENAI, ANTHROPIC = dialect_of(Family.OPENAI), dialect_of(Family.ANTHROPIC)
ASKED = CallFacts(stream=True)
NOT_ASKED = CallFacts(stream=True, asks_usage=False)
O, C, T, E, H = EventKind.OPENING, EventKind.CONTENT, EventKind.TERMINAL, EventKind.ERROR, EventKind.HIDDEN  # noqa: E741 -- a legend
DONE = b"data: [DONE]\n\n"


def sse(document, name=None):
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def chunk(delta=None, *, finish=None, usage=None, **more):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return sse({"id": "chatcmpl-1", "model": "gpt-x", "choices": choices, "usage": usage, **more})


ROLE = chunk({"role": "assistant", "content": "", "refusal": None})
COUNTS = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}
COUNTED = Usage(input=60, cache_read=40, output=5)
USAGE = chunk(usage=COUNTS)
STOP = chunk({}, finish="stop")
CHAT = [ROLE, chunk({"content": "Hé"}), chunk({"content": 'say "usage" [DONE] "error"'}), STOP, USAGE, DONE]

START = sse(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "model": "claude-x",
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 3,
                "cache_creation_input_tokens": 7,
                "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 2},
                "output_tokens": 1,
            },
        },
    },
    "message_start",
)
PING = sse({"type": "ping"}, "ping")
BLOCK = sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, "content_block_start")
TEXT = sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "héllo"}}, "content_block_delta")
TRICK = sse(
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": '{"type":"message_stop"} "error"'}},
    "content_block_delta",
)
BLOCK_STOP = sse({"type": "content_block_stop", "index": 0}, "content_block_stop")
DELTA = sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 15}}, "message_delta")
STOPPED = sse({"type": "message_stop"}, "message_stop")
MESSAGES = [START, PING, BLOCK, TEXT, PING, TRICK, BLOCK_STOP, DELTA, STOPPED]
MESSAGE_USAGE = Usage(input=10, cache_read=3, cache_write_5m=5, cache_write_1h=2, output=15)


def response(kind, **more):
    return sse({"type": kind, **more}, kind)


RESPONSE_USAGE = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 6, "total_tokens": 15}
RESPONSES = [
    response("response.created", response={"id": "resp_1", "model": "gpt-x", "usage": None, "error": None}),
    response("response.in_progress", response={"id": "resp_1", "model": "gpt-x"}),
    response("response.output_item.added", item={"type": "message"}),
    response("response.output_text.delta", delta="Hi response.completed"),
    response("response.output_text.delta", delta='"response.completed" "error"'),
    response("response.output_text.done", text="Hi"),
    response(
        "response.completed",
        response={"id": "resp_1", "model": "gpt-x", "status": "completed", "error": None, "usage": RESPONSE_USAGE},
    ),
]

STREAMS = {
    "chat": (OPENAI, Operation.CHAT, NOT_ASKED, CHAT, [O, C, C, C, H, T], COUNTED),
    "chat that asked": (OPENAI, Operation.CHAT, ASKED, CHAT, [O, C, C, C, C, T], COUNTED),
    "completions": (
        OPENAI,
        Operation.COMPLETIONS,
        NOT_ASKED,
        [sse({"choices": [{"text": "a", "index": 0, "finish_reason": None}]}), USAGE, DONE],
        [C, H, T],
        COUNTED,
    ),
    "responses": (OPENAI, Operation.RESPONSES, ASKED, RESPONSES, [O, O, O, C, C, C, T], Usage(input=5, cache_read=4, output=6)),
    "messages": (ANTHROPIC, Operation.MESSAGES, ASKED, MESSAGES, [O, O, O, C, C, C, C, C, T], MESSAGE_USAGE),
}


def read_all(dialect, operation, facts, pieces):
    reader = dialect.reader(operation, facts)
    events = [event for piece in pieces for event in reader.feed(piece)]
    return reader, events + reader.close()


def kinds(events):
    return [event.kind for event in events]


@pytest.mark.parametrize(("dialect", "operation", "facts", "stream", "expected", "usage"), STREAMS.values(), ids=STREAMS.keys())
def test_each_event_is_known_for_what_it_is(dialect, operation, facts, stream, expected, usage):
    reader, events = read_all(dialect, operation, facts, stream)
    assert kinds(events) == expected
    assert [event.data for event in events] == stream
    assert (reader.usage, reader.is_complete, reader.saw_content, reader.failed) == (usage, True, True, False)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(data=st.data())
def test_however_a_stream_is_cut_the_same_events_and_usage_come_out(name, line_end, data):
    dialect, operation, facts, stream, _, _ = STREAMS[name]
    extra = [b": keep-alive\n\n", b"\n", "event: x\ndata: {}\nid: ü\n\n".encode()]
    whole = b"".join(stream[:1] + extra + stream[1:]).replace(b"\n", line_end)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    one, events = read_all(dialect, operation, facts, [whole])
    other, same = read_all(dialect, operation, facts, pieces)
    assert same == events
    assert b"".join(event.data for event in events) == whole
    for attribute in ("usage", "cost_nusd", "is_complete", "output_bytes", "answer_id"):
        assert getattr(one, attribute) == getattr(other, attribute)
    assert one.is_complete


def test_a_stream_that_drips_byte_by_byte_is_the_same_stream():
    whole = b"".join(CHAT)
    _, events = read_all(OPENAI, Operation.CHAT, NOT_ASKED, [bytes([byte]) for byte in whole])
    assert b"".join(event.data for event in events) == whole


def test_what_the_model_wrote_is_counted_once():
    chat, _ = read_all(OPENAI, Operation.CHAT, ASKED, CHAT)
    messages, _ = read_all(ANTHROPIC, Operation.MESSAGES, ASKED, [START, BLOCK, TEXT, BLOCK_STOP])
    responses, _ = read_all(OPENAI, Operation.RESPONSES, ASKED, [*RESPONSES[:4], RESPONSES[5]])
    assert chat.output_bytes == len('H\\u00e9say \\"usage\\" [DONE] \\"error\\"')
    assert messages.output_bytes == len("h\\u00e9llo")
    assert responses.output_bytes == len("Hi response.completed")


def test_the_id_of_the_answer_is_kept():
    for dialect, operation, facts, stream, _, _ in (STREAMS["chat"], STREAMS["responses"], STREAMS["messages"]):
        reader, _ = read_all(dialect, operation, facts, stream)
        assert reader.answer_id in {"chatcmpl-1", "resp_1", "msg_1"}


def test_an_error_inside_a_stream_is_an_error_at_any_point():
    overloaded = sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, "error")
    for stream in ([overloaded], [START, PING, overloaded], [START, BLOCK, TEXT, overloaded]):
        reader, events = read_all(ANTHROPIC, Operation.MESSAGES, ASKED, stream)
        assert (events[-1].kind, reader.failed, reader.is_complete) == (E, True, False)
    broken = sse({"error": {"code": 502, "message": "x"}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]})
    for stream in ([broken], [ROLE, broken], [*CHAT[:3], broken]):
        reader, events = read_all(OPENAI, Operation.CHAT, ASKED, stream)
        assert (events[-1], reader.failed, reader.is_complete) == (Event(kind=E, data=broken), True, False)
    flat = response("error", code="server_error", message="x")
    assert kinds(read_all(OPENAI, Operation.RESPONSES, ASKED, [RESPONSES[0], flat])[1]) == [O, E]


def test_a_failed_response_is_an_error_before_content_and_the_end_after_it():
    """Before anything was written another rung may be tried; its usage counts in both cases."""
    ended = response("response.failed", response={"status": "failed", "error": {"code": "server_error"}, "usage": RESPONSE_USAGE})
    early, events = read_all(OPENAI, Operation.RESPONSES, ASKED, [RESPONSES[0], ended])
    assert (kinds(events), early.is_complete, early.failed) == ([O, E], False, True)
    late, events = read_all(OPENAI, Operation.RESPONSES, ASKED, [*RESPONSES[:4], ended])
    assert (kinds(events)[-1], late.is_complete, late.failed) == (T, True, True)
    assert early.usage == late.usage == Usage(input=5, cache_read=4, output=6)


def test_a_chat_stream_without_a_done_marker_is_whole_once_every_choice_finished():
    assert read_all(OPENAI, Operation.CHAT, NOT_ASKED, CHAT[:5])[0].is_complete
    assert read_all(OPENAI, Operation.CHAT, NOT_ASKED, CHAT[:4])[0].is_complete
    assert not read_all(OPENAI, Operation.CHAT, NOT_ASKED, CHAT[:3])[0].is_complete
    assert not read_all(OPENAI, Operation.CHAT, CallFacts(stream=True, choices=2), CHAT[:4])[0].is_complete


@pytest.mark.parametrize("name", ["responses", "messages"])
def test_the_others_are_cut_without_their_terminal_event(name):
    dialect, operation, facts, stream, _, _ = STREAMS[name]
    assert not read_all(dialect, operation, facts, stream[:-1])[0].is_complete


def test_a_broken_frame_after_the_end_is_dropped_and_whole_ones_are_terminal():
    reader, events = read_all(OPENAI, Operation.CHAT, NOT_ASKED, [*CHAT, b": bye\n\n", b'data: {"brok'])
    assert kinds(events)[-2:] == [T, T]
    assert reader.is_complete


def test_a_last_event_without_its_blank_line_is_read_and_gets_one():
    for tail, added in ((b"data: [DONE]", b"\n\n"), (b"data: [DONE]\n", b"\n"), (b"data: [DONE]\r\n", b"\n")):
        reader, events = read_all(OPENAI, Operation.CHAT, NOT_ASKED, [*CHAT[:5], tail])
        assert events[-1] == Event(kind=T, data=tail + added)
        assert reader.is_complete


def test_a_cut_last_event_is_dropped_so_that_an_error_event_can_follow():
    reader, events = read_all(OPENAI, Operation.CHAT, NOT_ASKED, [*CHAT[:2], b'data: {"choices":[{"delta":{"content":"Hal'])
    assert kinds(events) == [O, C]
    assert not reader.is_complete


def test_usage_on_every_chunk_is_cumulative_and_final_only_at_the_end():
    early = {"prompt_tokens": 100, "completion_tokens": 1}
    stream = [ROLE, chunk({"content": "a"}, usage=early), chunk({"content": "b"}, usage={**early, "completion_tokens": 2})]
    cut, _ = read_all(OPENAI, Operation.CHAT, ASKED, stream)
    assert cut.usage == Usage(input=100, output=2, quality=Quality.ESTIMATED)
    whole, _ = read_all(OPENAI, Operation.CHAT, ASKED, [*stream, DONE])
    assert whole.usage == Usage(input=100, output=2)


def test_a_message_cut_before_its_delta_keeps_its_input_as_an_estimate():
    reader, _ = read_all(ANTHROPIC, Operation.MESSAGES, ASKED, [START, BLOCK, TEXT])
    assert reader.usage == Usage(input=10, cache_read=3, cache_write_5m=5, cache_write_1h=2, output=1, quality=Quality.ESTIMATED)


def test_counts_in_a_message_delta_overwrite_those_of_the_start():
    later = {"output_tokens": 15, "input_tokens": 20, "cache_read_input_tokens": None}
    reader, _ = read_all(
        ANTHROPIC, Operation.MESSAGES, ASKED, [START, TEXT, sse({"type": "message_delta", "usage": later}), STOPPED]
    )
    assert reader.usage == Usage(input=20, cache_read=3, cache_write_5m=5, cache_write_1h=2, output=15)


def test_absurd_counts_in_a_stream_leave_the_usage_unknown():
    chat, _ = read_all(OPENAI, Operation.CHAT, ASKED, [*CHAT[:4], chunk(usage={**COUNTS, "completion_tokens": -1}), DONE])
    absurd = sse({"type": "message_delta", "usage": {"output_tokens": 10**12}})
    messages, _ = read_all(ANTHROPIC, Operation.MESSAGES, ASKED, [START, TEXT, absurd, STOPPED])
    assert (chat.usage, messages.usage) == (None, None)


def test_the_first_word_of_a_tool_call_or_of_reasoning_is_content():
    for delta in ({"tool_calls": [{"index": 0}]}, {"reasoning_content": "hm"}, {"role": "assistant", "content": "x"}):
        assert kinds(read_all(OPENAI, Operation.CHAT, ASKED, [chunk(delta)])[1]) == [C]
    tool = sse({"type": "content_block_start", "content_block": {"type": "tool_use", "name": "f"}})
    assert kinds(read_all(ANTHROPIC, Operation.MESSAGES, ASKED, [START, tool])[1]) == [O, C]


@pytest.mark.parametrize(
    "garbage",
    [b"data: <html>\n\n", b"data: {\n\n", b"data: []\n\n", b'data: {"choices":7}\n\n', b"data: " + b"[" * 100_000 + b"\n\n"],
)
def test_garbage_before_any_content_is_an_unreadable_answer(garbage):
    with pytest.raises(UnreadableAnswer):
        read_all(OPENAI, Operation.CHAT, ASKED, [garbage])
    with pytest.raises(UnreadableAnswer):
        read_all(ANTHROPIC, Operation.MESSAGES, ASKED, [garbage.replace(b"choices", b"message")])


def test_garbage_after_content_began_passes():
    _, events = read_all(OPENAI, Operation.CHAT, ASKED, [*CHAT[:2], b'data: {"error" garbage\n\n'])
    assert kinds(events) == [O, C, C]


@pytest.mark.parametrize("piece", [1000, 64 * 1024, 10**7])
def test_an_endless_event_is_cut_and_events_before_it_are_not_lost(piece):
    endless = b"data: " + b"x" * (MAX_EVENT_BYTES + 1)
    splitter = SplitEvents()
    assert splitter.feed(ROLE) == [ROLE]
    with pytest.raises(UnreadableAnswer):
        [splitter.feed(endless[start : start + piece]) for start in range(0, len(endless), piece)]
    both = SplitEvents()
    assert both.feed(ROLE + endless + b"\n\n" + ROLE) == [ROLE]
    with pytest.raises(UnreadableAnswer):
        both.feed(ROLE)


def test_the_last_event_of_a_response_may_repeat_a_long_answer():
    long = response("response.completed", response={"usage": RESPONSE_USAGE, "output": "x" * (2 * MAX_EVENT_BYTES)})
    assert read_all(OPENAI, Operation.RESPONSES, ASKED, [*RESPONSES[:4], long])[0].is_complete


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\r\n\r\n", b" a"),
        (b"event: x\ndata: a\ndata: b\nid: 1\n\n", b"a\nb"),
        (b"\xef\xbb\xbfdata: a\r\r", b"a"),
        (b": comment\n\n", None),
        (b"event: ping\n\n", None),
        (b"database: a\n\n", None),
        (b"\n", None),
    ],
)
def test_data_is_read_as_the_standard_says(event, data):
    assert data_of(event) == data
