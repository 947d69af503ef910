"""
What tools write, as values: answers by pointer, failures by their words, and the times they name.

Sentences are as the tools wrote them; where each was seen stands in `dialects/commands`.
"""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.command_output import CLAUDE, CODEX, Format, Pick, Reads
from quota_router.core.health import FailureKind, Scope, cool
from quota_router.core.usage import Usage
from quota_router.dialects import UnreadableAnswer, anthropic, openai
from quota_router.dialects.commands import judge, read_output, read_reset, statements

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
"""A Wednesday."""

CLAUDE_ANSWER = {
    "type": "result",
    "subtype": "success",
    "is_error": False,
    "api_error_status": None,
    "duration_ms": 1998,
    "num_turns": 1,
    "result": "Ça va, 東京?",
    "stop_reason": "end_turn",
    "session_id": "0e639165-79b1-4bd4-bb0f-4cb4c15115d4",
    "total_cost_usd": 0.0079825,
    "usage": {
        "input_tokens": 3,
        "cache_creation_input_tokens": 120,
        "cache_read_input_tokens": 15_635,
        "output_tokens": 6,
        "cache_creation": {"ephemeral_1h_input_tokens": 100, "ephemeral_5m_input_tokens": 20},
    },
}
CODEX_EVENTS = [
    {"type": "thread.started", "thread_id": "0199a213-81c0-7800-8aa1-bbab2a035a53"},
    {"type": "turn.started"},
    {"type": "error", "message": "Reconnecting... 2/5 (timeout waiting for child process to exit)"},
    {"type": "item.completed", "item": {"id": "item_0", "type": "reasoning", "text": "**Thinking**"}},
    {"type": "item.completed", "item": {"id": "item_1", "type": "agent_message", "text": "I will look."}},
    {"type": "item.completed", "item": {"id": "item_3", "type": "agent_message", "text": "Yes."}},
    {"type": "turn.completed", "usage": {"input_tokens": 24_763, "cached_input_tokens": 24_448, "output_tokens": 122}},
]


def claude(**changed):
    return read_output(CLAUDE, json.dumps({**CLAUDE_ANSWER, **changed}).encode())


def lines(*events):
    return "\n".join(json.dumps(event) for event in events).encode()


def judged(words, status=None, dialect=anthropic, zone=UTC):
    return judge(words, status, classify=dialect.classify, now=NOW, zone=zone)


# --- answers --------------------------------------------------------------------------------------------------------------


def test_an_answer_of_claude_is_read_with_its_buckets_and_its_cost():
    read = claude()
    assert (read.text, read.failed, read.cost_nusd) == ("Ça va, 東京?", False, 7_982_500)
    assert read.usage == Usage(input=3, cache_read=15_635, cache_write_5m=20, cache_write_1h=100, output=6)


def test_a_version_that_does_not_tell_lifetimes_of_the_cache_wrote_it_for_five_minutes():
    usage = {name: count for name, count in CLAUDE_ANSWER["usage"].items() if name != "cache_creation"}
    assert claude(usage=usage).usage == Usage(input=3, cache_read=15_635, cache_write_5m=120, output=6)


def test_the_verbose_form_of_claude_is_a_list_whose_last_message_counts():
    said = {"type": "assistant", "message": {"content": [{"type": "text", "text": "half"}]}}
    assert read_output(CLAUDE, json.dumps([{"type": "system"}, said, CLAUDE_ANSWER]).encode()).text == "Ça va, 東京?"


@pytest.mark.parametrize(
    "changed",
    [
        {"is_error": True},
        {"subtype": "error_max_turns", "is_error": False, "result": ""},
        {"subtype": "error_during_execution"},
        {"subtype": "error_max_budget_usd"},
    ],
)
def test_what_claude_calls_an_error_is_one_and_its_tokens_still_count(changed):
    read = claude(**changed)
    assert read.failed
    assert read.usage.output == 6


def test_an_answer_of_codex_is_its_last_message_and_reconnecting_is_no_failure():
    read = read_output(CODEX, b"Reading prompt from stdin...\n" + lines(*CODEX_EVENTS) + b"\n{broken\n")
    assert (read.text, read.failed, read.cost_nusd) == ("Yes.", False, None)
    assert read.usage == Usage(input=315, cache_read=24_448, output=122)


def test_a_turn_of_codex_that_failed_says_why():
    failed = {"type": "turn.failed", "error": {"message": "You've hit your usage limit. Try again later."}}
    read = read_output(CODEX, lines({"type": "error", "message": "Reconnecting... 1/5"}, failed))
    assert (read.failed, read.text) == (True, None)
    assert read.message == "You've hit your usage limit. Try again later."
    assert read_output(CODEX, lines({"type": "error", "message": "gone"})).message == "gone"


def test_plain_text_is_the_answer_but_for_the_end_of_its_last_line():
    assert read_output(Reads(), b"  one\n two \n\r\n").text == "  one\n two "
    assert read_output(Reads(), b"").text == ""
    assert read_output(Reads(), b"caf\xe9 \xff").text == "caf\ufffd \ufffd"


def test_pointers_go_through_lists_and_escaped_names():
    """
    Source: RFC 6901 section 4 and 5, read 2026-11-25.
    """
    document = {"choices": [{"a/b": {"~c": "here"}}], "": {"": "nowhere"}}
    for pointer, text in (("/choices/0/a~1b/~0c", "here"), ("//", "nowhere"), ("/choices/1", None), ("/choices/00/a~1b", None)):
        assert read_output(Reads(format=Format.JSON, text=Pick(at=pointer)), json.dumps(document).encode()).text == text


@pytest.mark.parametrize("written", [b"", b"Segmentation fault", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"result": "cut'])
def test_what_should_be_json_and_is_not_is_unreadable(written):
    for reads in (CLAUDE, CODEX):
        with pytest.raises(UnreadableAnswer):
            read_output(reads, written)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 1},
        {"input_tokens": 1, "output_tokens": -1},
        {"input_tokens": 1, "output_tokens": 1.5},
        {"input_tokens": True, "output_tokens": 1},
        {"input_tokens": "1", "output_tokens": 1},
        {"input_tokens": 10**9 + 1, "output_tokens": 1},
        {
            "input_tokens": 1,
            "output_tokens": 1,
            "cache_creation_input_tokens": 1,
            "cache_creation": {"ephemeral_1h_input_tokens": 2},
        },
        None,
        [],
    ],
)
def test_one_absurd_count_makes_the_usage_unknown(usage):
    assert claude(usage=usage).usage is None


@pytest.mark.parametrize(
    ("cost", "nusd"),
    [("0", 0), ("0.0", 0), ("1", 10**9), ("1e-9", 1), ("0.00000000012", 1), ("1.5E2", 150 * 10**9)],
)
def test_a_cost_is_read_from_its_digits_and_rounded_upward(cost, nusd):
    written = json.dumps(CLAUDE_ANSWER).replace("0.0079825", cost).encode()
    assert read_output(CLAUDE, written).cost_nusd == nusd


@pytest.mark.parametrize("cost", ["null", "-1", "true", '"1"', "1000001", "1e99", "1e-999999", "[]"])
def test_a_cost_that_cannot_be_one_is_unknown(cost):
    written = json.dumps(CLAUDE_ANSWER).replace("0.0079825", cost).encode()
    assert read_output(CLAUDE, written).cost_nusd is None


@given(st.binary())
def test_whatever_is_written_is_read_or_unreadable(written):
    for reads in (CLAUDE, CODEX, Reads()):
        try:
            read_output(reads, written)
        except UnreadableAnswer:
            continue


# --- failures -------------------------------------------------------------------------------------------------------------

SENTENCES = [
    ("Claude AI usage limit reached|1795615200", FailureKind.QUOTA_WINDOW),
    ("Claude usage limit reached. Your limit will reset at 3pm (America/Bogota).", FailureKind.QUOTA_WINDOW),
    ("5-hour limit reached ∙ resets 3pm", FailureKind.QUOTA_WINDOW),
    ("Weekly limit reached ∙ resets Dec 1, 5pm", FailureKind.QUOTA_WINDOW),
    ("You've hit your limit · resets 4:50am (Europe/Rome)", FailureKind.QUOTA_WINDOW),
    ("You’ve hit your session limit · resets 12:20pm (Africa/Johannesburg)", FailureKind.QUOTA_WINDOW),  # noqa: RUF001 -- as written
    ("■ You've hit your usage limit. Upgrade to Pro (https://x.test), or try again at 3:28 PM.", FailureKind.QUOTA_WINDOW),
    (
        "You've hit your usage limit for GPT-5-Codex-Spark. Switch to another model now, or try again later.",
        FailureKind.RATE_LIMITED,
    ),
    ("You've hit your Opus limit · resets 3pm", FailureKind.RATE_LIMITED),
    ("You've reached your Fable 5 limit. Run /usage-credits to continue or switch models.", FailureKind.RATE_LIMITED),
    ("API Error: Rate limit reached", FailureKind.RATE_LIMITED),
    ("API Error: Request rejected (429) · this may be a temporary capacity issue", FailureKind.RATE_LIMITED),
    ("exceeded retry limit, last status: 429 Too Many Requests, request id: 1", FailureKind.RATE_LIMITED),
    ("Credit balance is too low", FailureKind.BILLING),
    ("Quota exceeded. Check your plan and billing details.", FailureKind.BILLING),
    ("Your workspace is out of credits. Add credits to continue.", FailureKind.BILLING),
    (
        'API Error: 400 {"type":"error","error":{"message":"You have reached your specified API usage limits. You will regain"}}',
        FailureKind.BILLING,
    ),
    ("Not logged in · Please run /login", FailureKind.AUTH),
    ("Please run /login · API Error: 401", FailureKind.AUTH),
    ("Invalid API key · Fix external API key", FailureKind.AUTH),
    ("OAuth token has expired. Please run /login", FailureKind.AUTH),
    ("unexpected status 401 Unauthorized: Missing bearer authentication", FailureKind.AUTH),
    (
        'Failed to authenticate. API Error: 401 {"type":"error","error":{"type":"authentication_error","message":"x"}}',
        FailureKind.AUTH,
    ),
    ('API Error: 529 {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', FailureKind.OVERLOADED),
    ("API Error: Repeated 529 Overloaded errors", FailureKind.OVERLOADED),
    ("API Error: Server is temporarily limiting requests (not your usage limit) · Rate limited", FailureKind.OVERLOADED),
    ("\x1b[31mERROR:\x1b[0m Selected model is at capacity. Please try a different model.", FailureKind.OVERLOADED),
    ("We're currently experiencing high demand, which may cause temporary errors.", FailureKind.OVERLOADED),
    ("API Error: 500 Internal server error", FailureKind.TRANSIENT),
    (
        "There's an issue with the selected model (nobody). It may not exist or you may not have access to it. Run --model.",
        FailureKind.MODEL_UNAVAILABLE,
    ),
    ("[claude-code:unrecognized_model] There's an issue with the selected model (x).", FailureKind.MODEL_UNAVAILABLE),
    ("Claude Fable isn't available on your plan.", FailureKind.MODEL_UNAVAILABLE),
    (
        'unexpected status 400 Bad Request: {"detail":"The \'gpt-5\' model is not supported when using Codex with an account."}',
        FailureKind.MODEL_UNAVAILABLE,
    ),
    (
        '{"type":"error","status":400,"error":{"message":"The \'gpt-5\' model is not supported when using Codex."}}',
        FailureKind.MODEL_UNAVAILABLE,
    ),
    ("Prompt is too long", FailureKind.CONTEXT_TOO_LONG),
    (
        "Codex ran out of room in the model's context window. Start a new thread or clear earlier history before retrying.",
        FailureKind.CONTEXT_TOO_LONG,
    ),
    (
        "API Error: Claude Code is unable to respond to this request, which appears to violate our Usage Policy",
        FailureKind.CONTENT_POLICY,
    ),
]


@pytest.mark.parametrize(("sentence", "kind"), SENTENCES, ids=[sentence[:40] for sentence, _ in SENTENCES])
def test_what_a_tool_says_has_a_kind(sentence, kind):
    for dialect in (anthropic, openai):
        assert judged(sentence, dialect=dialect).kind is kind
    log_line = f"2026-11-25T09:18:12.446963Z ERROR codex_core::codex: {sentence}"
    assert judged(log_line).kind is kind


def test_an_empty_window_cools_the_account_and_a_models_limit_its_rung():
    assert judged("You've hit your weekly limit · resets 3pm").scope is Scope.ACCOUNT
    assert judged("You've hit your Opus limit · resets 3pm").scope is Scope.ATTACHMENT


def test_words_are_believed_before_the_status_beside_them():
    """
    Claude tells an empty window with 429, as it does a busy minute.
    """
    assert judged("You've hit your session limit · resets 4:50pm", 429).kind is FailureKind.QUOTA_WINDOW
    assert judged("whatever it says", 429).kind is FailureKind.RATE_LIMITED
    assert judged("whatever it says", 401).kind is FailureKind.AUTH
    assert judged("", 529).kind is FailureKind.OVERLOADED


@pytest.mark.parametrize(
    "words",
    [
        "",
        "Segmentation fault",
        "I added a check so the API returns 'usage limit reached' when the quota is spent.",
        "the rate limiter in worker.js is wrong",
        "500 files were read",
        "agent thread limit reached",
        "stream disconnected before completion: error sending request",
        "thread 'main' panicked at src/main.rs:401:9",
    ],
)
def test_what_nobody_knows_is_not_guessed(words):
    assert judged(words) is None


def test_a_status_is_believed_as_the_last_word_only():
    """
    Before that it may be of a page that a tool fetched for its caller.
    """
    assert judged("GET https://x.test: HTTP 401").kind is FailureKind.AUTH
    assert judge("HTTP 401", None, classify=openai.classify, now=NOW, zone=UTC, is_last_word=False) is None
    assert judge("Not logged in", None, classify=openai.classify, now=NOW, zone=UTC, is_last_word=False).kind is FailureKind.AUTH


def test_what_a_tool_was_told_is_not_its_word():
    """
    A caller who makes a tool fail and writes such a sentence must not close a subscription for a month.
    """
    sentence = "You've hit your usage limit. Try again at Dec 24th, 2026 12:00 PM."
    stderr = f"user\n{sentence}\n  > {sentence.upper()}\nERROR: {sentence}\npanicked\n"
    assert [*statements(stderr, [f"Please say\n{sentence}"])] == ["panicked", "user"]
    assert [*statements(stderr, ["something else"])][1] == f"ERROR: {sentence}"


def test_only_the_last_lines_of_stderr_are_looked_at():
    said = [*statements("\n".join(f"line {number}" for number in range(100)), [])]
    assert (said[0], said[-1], len(said)) == ("line 99", "line 80", 20)
    assert [*statements("\n \n---\n", [])] == []


@given(st.text())
def test_no_sentence_breaks_the_judge(words):
    for dialect in (anthropic, openai):
        judged(words, dialect=dialect)
    read_reset(words, NOW, UTC)


def test_a_long_line_is_judged_in_time():
    for line in ("(" * 100_000, "error " * 20_000, "{" * 50_000 + "}", "you've hit your " + "usage " * 20_000, "[" * 50_000):
        judged(line)
        assert len([*statements(line, [])]) <= 1


# --- times ----------------------------------------------------------------------------------------------------------------


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "until"),
    [
        ("Claude AI usage limit reached|1795615200", utc(2026, 11, 25, 14, 0)),
        ("Claude AI usage limit reached|1795615200000", utc(2026, 11, 25, 14, 0)),
        ("resets 4:50pm (Europe/Rome)", utc(2026, 11, 25, 15, 50)),
        ("resets 4:50am (Europe/Rome)", utc(2026, 11, 26, 3, 50)),
        ("Limits will reset at 9:30 PM. View your usage details.", utc(2026, 11, 25, 21, 30)),
        ("Your limit will reset at 3pm (America/Bogota).", utc(2026, 11, 25, 20, 0)),
        ("resets 12am", utc(2026, 11, 26, 0, 0)),
        ("resets 12:30pm", utc(2026, 11, 25, 12, 30)),
        ("resets Dec 1, 5pm (Europe/Berlin)", utc(2026, 12, 1, 16, 0)),
        ("resets Dec 20 at 9am", utc(2026, 12, 20, 9, 0)),
        ("resets Mon 12:00am", utc(2026, 11, 30, 0, 0)),
        ("resets Wed 1pm", utc(2026, 11, 25, 13, 0)),
        ("resets Wed 11am", utc(2026, 12, 2, 11, 0)),
        ("Try again at 3:28 PM.", utc(2026, 11, 25, 15, 28)),
        ("or try again at Dec 8th, 2026 12:30 PM.", utc(2026, 12, 8, 12, 30)),
        ("or try again in 2 days 17 hours 14 minutes.", NOW + timedelta(days=2, hours=17, minutes=14)),
        ("resets in 3h 20m", NOW + timedelta(hours=3, minutes=20)),
        ("regain access on 2026-12-01 at 00:00 UTC", utc(2026, 12, 1, 0, 0)),
        ("regain access on 2026-12-01", utc(2026, 12, 1, 0, 0)),
    ],
)
def test_a_time_that_is_said_is_read(words, until):
    assert read_reset(words, NOW, UTC) == until


@pytest.mark.parametrize(
    "words",
    [
        "",
        "try again later.",
        "resets soon",
        "Claude AI usage limit reached|1755615600",
        "limit reached|99999999999999999999",
        "resets 25pm (Europe/Nowhere)",
        "resets 3:99pm",
        "resets Feb 30, 3pm",
        "try again at Dec 8th, 2025 12:30 PM.",
        "try again at Dec 8th, 9999 12:30 PM.",
        "try again at Jan 1st, 0001 12:30 AM.",
        "try again in 99999 days",
        "resets 3pm (../../etc/passwd)",
        "resets 3pm (/etc/passwd)",
    ],
)
def test_a_time_that_is_past_absurd_or_not_said_is_no_statement(words):
    assert read_reset(words, NOW, UTC) is None


def test_a_time_without_a_zone_is_of_the_tools_own():
    assert read_reset("Try again at 3:28 PM.", NOW, ZoneInfo("America/New_York")) == utc(2026, 11, 25, 20, 28)


def test_a_day_that_is_over_is_next_years():
    assert read_reset("resets Jan 2, 9am", utc(2026, 12, 30, 12, 0), UTC) == utc(2027, 1, 2, 9, 0)


def test_a_time_of_day_that_has_just_passed_is_not_the_same_time_tomorrow():
    assert read_reset("resets 11:55am", NOW, UTC) is None
    assert read_reset("resets 11:45am", NOW, UTC) == utc(2026, 11, 26, 11, 45)


def test_a_said_time_becomes_the_cooldown():
    failure = judged("You've hit your usage limit. Try again at 3:28 PM.")
    cooled = cool(failure, provider="cli", model="m", before=None, now=NOW)
    assert (cooled.until, cooled.model) == (utc(2026, 11, 25, 15, 28), "")
