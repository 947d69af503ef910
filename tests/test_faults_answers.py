"""
Faults of an answer, over real sockets: cut, broken, endless, or an error in disguise.

Law: before the first content byte the next rung answers, after it the caller is told in his dialect; what may have been charged is
booked. The common cases stand in `test_fallback`, for every dialect and delivery.
"""

import json

import pytest
import pytest_asyncio
from between_kit import ASKED, INPUT_NUSD, OUTPUT_NUSD, SAID, SERVER, open_between
from daemon_kit import get

from quota_router import upkeep
from quota_router.core.health import FailureKind
from quota_router.simulator import Fault, FaultKind, Refusal, Reply

FIRST = {"chat": "chat-1", "responses": "chat-1", "messages": "messages-1"}
SECOND = {"chat": "chat-2", "responses": "chat-2", "messages": "messages-2"}
MAX_CALL_S = 1.0
"""Long enough for every call here that is not about it, and short enough to wait for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "LEAVE_LOOK_S", 0.01)
        async with open_between(tmp_path_factory.mktemp("answers"), server=f"{SERVER}max_call_s = {MAX_CALL_S}\n") as between:
            yield between


@pytest.fixture
def between(shared):
    """The one daemon, with no cooldown standing."""
    shared.forget()
    return shared


pytestmark = pytest.mark.asyncio(loop_scope="module")
dialects = pytest.mark.parametrize("dialect", ["chat", "messages"])


async def is_answered_by_the_second(between, dialect, told):
    """The call was; and the first attempt is booked by its input, since nobody said whether it was charged."""
    assert (told.status, told.ours("provider"), told.ours("attempts")) == (200, SECOND[dialect], "2")
    story = await between.story(told)
    failed, answered = story["attempts"]
    assumed = failed["usage"]["input_tokens"]
    assert (failed["outcome"], failed["quality"], failed["cost_nusd"]) == ("unknown", "assumed", assumed * INPUT_NUSD)
    assert assumed > 0
    assert (answered["outcome"], answered["quality"]) == ("ok", "reported")


# --- bodies -----------------------------------------------------------------------------------------------------------

BROKEN = {
    "F7 reset": Fault(kind=FaultKind.RESET, after_chunks=0),
    "F7 closed": Fault(kind=FaultKind.CUT_BODY),
    "F8 closed without an error": Fault(kind=FaultKind.TRUNCATED_BODY),
    "F8 without its last member": Fault(kind=FaultKind.GARBAGE, body='{"id":"x","type":"message","object":"chat.completion"}'),
    "F9 half a number": Fault(kind=FaultKind.GARBAGE, body='{"choices":[],"content":[],"usage":{"n":1'),
    "F9 empty": Fault(kind=FaultKind.GARBAGE, body=""),
    "F9 another kind of JSON": Fault(kind=FaultKind.GARBAGE, body='["choices"]'),
}


@dialects
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_body_that_is_not_whole_is_no_answer(between, fault, dialect):
    between.script(FIRST[dialect], BROKEN[fault])
    told = await between.ask(dialect)
    assert b"quick" in told.body
    await is_answered_by_the_second(between, dialect, told)
    assert (await between.ask(dialect)).ours("skipped") == f"{FIRST[dialect]}=cooldown"


@dialects
@pytest.mark.parametrize("kind", [FaultKind.CLOSE_BEFORE_ANSWER, FaultKind.RESET])
async def test_f06_what_was_sent_and_not_answered_may_have_been_charged(between, dialect, kind):
    """
    The story's cost holds both the assumed input and the answer.
    """
    between.script(FIRST[dialect], Fault(kind=kind))
    told = await between.ask(dialect)
    await is_answered_by_the_second(between, dialect, told)
    story = await between.story(told)
    assert sorted(entry["quality"] for entry in story["entries"]) == ["assumed", "reported"]
    assert story["cost_nusd"] == sum(entry["cost_nusd"] for entry in story["entries"])


REFUSALS = {
    "F10 401": (401, FailureKind.AUTH),
    "F10 402": (402, FailureKind.BILLING),
    "F10 429": (429, FailureKind.RATE_LIMITED),
    "F10 503": (503, FailureKind.OVERLOADED),
}


@pytest.mark.parametrize("kind", [FaultKind.ERROR_IN_200, FaultKind.ERROR_IN_STREAM])
@pytest.mark.parametrize("refusal", REFUSALS)
async def test_an_error_inside_a_200_is_what_its_status_would_have_been(between, refusal, kind):
    status, cause = REFUSALS[refusal]
    between.script("chat-1", Fault(kind=kind, status=status))
    told = await between.ask("chat", stream=kind is FaultKind.ERROR_IN_STREAM)
    assert (told.status, told.ours("provider")) == (200, "chat-2")
    failed = (await between.story(told))["attempts"][0]
    assert (failed["outcome"], failed["failure"], failed["cost_nusd"]) == ("failed", cause, 0)
    standing = [await between.cooldown("chat-1"), await between.cooldown("chat-1", "chat")]
    assert [cooldown.cause for cooldown in standing if cooldown is not None] == [cause]


EMPTY = {
    "chat": '{"id":"x","object":"chat.completion","choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}',
    "messages": '{"id":"x","type":"message","content":[],"stop_reason":"end_turn","usage":{"input_tokens":0,"output_tokens":0}}',
}


@dialects
async def test_f11_an_answer_of_nothing_is_an_answer_and_costs_what_it_says(between, dialect):
    """
    An explicit 0 is 0: nothing is estimated, and nobody else is asked.
    """
    between.script(FIRST[dialect], Fault(kind=FaultKind.GARBAGE, body=EMPTY[dialect]))
    told = await between.ask(dialect)
    assert (told.status, told.body.decode(), told.ours("attempts")) == (200, EMPTY[dialect], "1")
    story = await between.story(told)
    (attempt,) = story["attempts"]
    assert (attempt["outcome"], attempt["quality"], attempt["cost_nusd"], story["cost_nusd"]) == ("ok", "reported", 0, 0)
    assert (await between.ask(dialect)).ours("provider") == FIRST[dialect]


# --- streams ----------------------------------------------------------------------------------------------------------

USED = {
    "chat": '{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}',
    "messages": '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":7,"output_tokens":3}}',
}
WORD = {
    "chat": '{"choices":[{"index":0,"delta":{"content":"word"}}]}',
    "messages": '{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}',
}
END = {"chat": "data: [DONE]\n\n", "messages": 'event: message_stop\ndata: {"type":"message_stop"}\n\n'}
REMAINS = {"half a frame": 'data: {"choi', "no JSON": "data: {]\n\n", "half a line": "even"}


@dialects
@pytest.mark.parametrize("remains", REMAINS)
async def test_f15_what_comes_broken_after_the_end_does_not_matter(between, dialect, remains):
    body = f"data: {WORD[dialect]}\n\ndata: {USED[dialect]}\n\n{END[dialect]}"
    between.script(FIRST[dialect], Fault(kind=FaultKind.ERROR_IN_STREAM, body=body + REMAINS[remains]))
    told = await between.ask(dialect, stream=True)
    assert told.status == 200
    assert told.body.decode().startswith(f"data: {WORD[dialect]}\n\n")
    assert END[dialect].encode() in told.body
    assert b"error" not in told.body
    (attempt,) = (await between.story(told))["attempts"]
    cost_nusd = 7 * INPUT_NUSD + 3 * OUTPUT_NUSD
    assert (attempt["outcome"], attempt["quality"], attempt["cost_nusd"]) == ("ok", "reported", cost_nusd)
    assert (await between.ask(dialect)).ours("provider") == FIRST[dialect]


@pytest.mark.parametrize("dialect", ASKED)
async def test_f16_a_stream_that_only_beats_after_its_first_words_is_cut_at_the_calls_time(between, dialect):
    between.script(FIRST[dialect], Fault(kind=FaultKind.HEARTBEATS, after_chunks=2, reply=Reply(text="one two three")))
    told = await between.ask(dialect, stream=True)
    assert (told.status, told.ours("provider")) == (200, FIRST[dialect])
    last = json.loads(told.body.rstrip().rsplit(b"data: ", 1)[1])
    assert "upstream_truncated" in json.dumps(last) or last["type"] == "error"
    for invented in (b'"finish_reason":"', b"[DONE]", b"response.completed", b"message_stop"):
        assert invented not in told.body
    (attempt,) = (await between.story(told))["attempts"]
    assert (attempt["outcome"], attempt["quality"]) == ("failed", "estimated")
    assert attempt["usage"]["output_tokens"] > 0
    assert between.seen(SECOND[dialect]) == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@dialects
async def test_f16_who_only_beats_is_to_blame_and_nobody_is_tried_when_the_calls_time_is_over(between, dialect, stream):
    """
    The next rung would have no time, and would be blamed for that. The next call goes there.
    """
    between.script(FIRST[dialect], Fault(kind=FaultKind.HEARTBEATS))
    told = await between.ask(dialect, stream=stream)
    assert (told.status, told.json["error"]["code"]) == (504, "call_timed_out")
    (attempt,) = (await between.story(told))["attempts"]
    assert (attempt["provider"], attempt["outcome"], attempt["quality"]) == (FIRST[dialect], "unknown", "assumed")
    assert between.seen(FIRST[dialect])[0].client_left
    again = await between.ask(dialect, stream=stream)
    assert (again.ours("provider"), again.ours("skipped")) == (SECOND[dialect], f"{FIRST[dialect]}=cooldown")


@dialects
async def test_f18_an_answer_that_drips_is_cut_at_the_calls_time(between, dialect):
    """
    No gap is too long, and still it takes too long.
    """
    between.script(FIRST[dialect], Fault(kind=FaultKind.DRIP, delay_s=0.05))
    told = await between.ask(dialect)
    assert (told.status, told.json["error"]["code"]) == (504, "call_timed_out")
    (attempt,) = (await between.story(told))["attempts"]
    assert (attempt["outcome"], attempt["quality"]) == ("unknown", "assumed")
    assert (await between.ask(dialect)).ours("provider") == SECOND[dialect]


# --- callers who leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("model", "outcome"), [("chat", "cancelled"), ("drained", "ok")])
async def test_f35_a_caller_who_leaves_before_the_first_byte_is_charged_what_may_have_been_read(between, model, outcome, stream):
    """
    Where hanging up stops the bill we hang up and assume the input; elsewhere the answer is read, for its true usage. The rung is
    not to blame.
    """
    provider = f"{model}-1"
    between.script(provider, Reply(first_byte_delay_s=0.3, input_tokens=70, output_tokens=33))
    body = json.dumps({"model": model, "messages": SAID, "stream": stream, "max_tokens": 50})
    story = await between.left("/v1/chat/completions", body)
    (limit,) = (await get(between.daemon.url, "/api/v1/limits"))["items"]
    (attempt,) = story["attempts"]
    assert (limit["held"], attempt["provider"], attempt["outcome"]) == (0, provider, outcome)
    assert between.seen(provider)[0].client_left == (model == "chat")
    if model == "chat":
        assert attempt["quality"] in {"estimated", "assumed"}
        assert attempt["cost_nusd"] == attempt["usage"]["input_tokens"] * INPUT_NUSD > 0
    else:
        assert attempt["cost_nusd"] == 70 * INPUT_NUSD + 33 * OUTPUT_NUSD
    again = await between.send("/v1/chat/completions", body)
    assert (again.ours("provider"), again.ours("skipped")) == (provider, None)


async def test_f35_who_leaves_while_the_rung_is_silent_is_not_sent_to_the_next(between):
    between.script("chat-1", Refusal(status=503))
    between.script("chat-2", Fault(kind=FaultKind.STALL))
    path, asked = ASKED["chat"]
    story = await between.left(path, json.dumps(asked), requests=2)
    assert [(attempt["provider"], attempt["outcome"]) for attempt in story["attempts"]] == [
        ("chat-1", "failed"),
        ("chat-2", "cancelled"),
    ]
