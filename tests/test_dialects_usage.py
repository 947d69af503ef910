"""Counts of whole answers become buckets, and traps stay unknown."""

import json

import pytest

from quota_router.core.calls import Operation
from quota_router.core.catalog import Family
from quota_router.core.usage import Usage
from quota_router.dialects import UnreadableAnswer, dialect_of

OPENAI, ANTHROPIC = dialect_of(Family.OPENAI), dialect_of(Family.ANTHROPIC)


def chat(usage, **more):
    body = {"id": "c1", "model": "gpt-x", "choices": [{"index": 0, "finish_reason": "stop"}], "usage": usage, **more}
    return OPENAI.read_answer(Operation.CHAT, json.dumps(body).encode())


def message(usage):
    body = {"id": "m1", "type": "message", "model": "claude-x", "content": [], "usage": usage}
    return ANTHROPIC.read_answer(Operation.MESSAGES, json.dumps(body).encode())


OPENAI_USAGES = {
    "plain": ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}, Usage(input=10, output=5)),
    "explicit zeros": ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
    "cached is inside the prompt": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 1}},
        Usage(input=1, cache_read=8, cache_write_5m=1, output=5),
    ),
    "reasoning is inside the completion": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "completion_tokens_details": {"reasoning_tokens": 3}},
        Usage(input=10, output=5),
    ),
    "reasoning beside the completion, as xAI counts": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 18, "completion_tokens_details": {"reasoning_tokens": 3}},
        Usage(input=10, output=5, reasoning=3),
    ),
    "DeepSeek's cache hits": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 4},
        Usage(input=6, cache_read=4, output=5),
    ),
    "null details": ({"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(input=10, output=5)),
    "responses": (
        {
            "input_tokens": 20,
            "input_tokens_details": {
                "cached_tokens": 5,
                "cache_write_tokens": 6,
                "cache_write_tokens_details": {"ttl_12h_tokens": 2},
            },
            "output_tokens": 7,
        },
        Usage(input=9, cache_read=5, cache_write_5m=4, cache_write_1h=2, output=7),
    ),
    "absent": (None, None),
    "empty": ({}, None),
    "no completion": ({"prompt_tokens": 10}, None),
    "negative": ({"prompt_tokens": -1, "completion_tokens": 5}, None),
    "boolean": ({"prompt_tokens": True, "completion_tokens": 5}, None),
    "fraction": ({"prompt_tokens": 1.5, "completion_tokens": 5}, None),
    "whole float": ({"prompt_tokens": 1.0, "completion_tokens": 5}, None),
    "text": ({"prompt_tokens": "10", "completion_tokens": 5}, None),
    "beyond a billion": ({"prompt_tokens": 10**9 + 1, "completion_tokens": 5}, None),
    "far beyond": ({"prompt_tokens": 10**300, "completion_tokens": 5}, None),
    "an absurd detail": ({"prompt_tokens": 1, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -3}}, None),
    "more cached than sent": ({"prompt_tokens": 1, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}, None),
    "a list": ([], None),
}


@pytest.mark.parametrize(("usage", "expected"), OPENAI_USAGES.values(), ids=OPENAI_USAGES.keys())
def test_overlapping_counts_become_buckets_that_do_not_overlap(usage, expected):
    assert chat(usage).usage == expected


ANTHROPIC_USAGES = {
    "plain": ({"input_tokens": 10, "output_tokens": 5}, Usage(input=10, output=5)),
    "zeros": ({"input_tokens": 0, "output_tokens": 0}, Usage()),
    "the cache is beside the input": (
        {"input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 30, "output_tokens": 5},
        Usage(input=10, cache_read=20, cache_write_5m=30, output=5),
    ),
    "by lifetime": (
        {
            "input_tokens": 1,
            "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "output_tokens": 5,
        },
        Usage(input=1, cache_write_5m=10, cache_write_1h=20, output=5),
    ),
    "nulls": (
        {"input_tokens": 1, "cache_creation": None, "cache_read_input_tokens": None, "output_tokens": 5},
        Usage(input=1, output=5),
    ),
    "compaction is not in the totals": (
        {
            "input_tokens": 1,
            "output_tokens": 5,
            "iterations": [
                {"type": "message", "input_tokens": 1, "output_tokens": 5},
                {"type": "compaction", "input_tokens": 100, "cache_read_input_tokens": 7, "output_tokens": 50},
            ],
        },
        Usage(input=101, cache_read=7, output=55),
    ),
    "absent": (None, None),
    "no output": ({"input_tokens": 1}, None),
    "negative": ({"input_tokens": 1, "output_tokens": -5}, None),
    "text": ({"input_tokens": "1", "output_tokens": 5}, None),
    "more kept for long than written": (
        {
            "input_tokens": 1,
            "output_tokens": 5,
            "cache_creation_input_tokens": 1,
            "cache_creation": {"ephemeral_1h_input_tokens": 2},
        },
        None,
    ),
    "an absurd compaction": ({"input_tokens": 1, "output_tokens": 5, "iterations": [{"type": "compaction"}]}, None),
}


@pytest.mark.parametrize(("usage", "expected"), ANTHROPIC_USAGES.values(), ids=ANTHROPIC_USAGES.keys())
def test_messages_counts_become_buckets(usage, expected):
    assert message(usage).usage == expected


COSTS = [
    (b"0", 0),
    (b"0.000000001", 1),
    (b"0.0000000001", 1),
    (b"0.0014505", 1_450_500),
    (b"0.1234567891", 123_456_790),
    (b"1.5e-05", 15_000),
    (b"12", 12_000_000_000),
    (b"1000001", None),
    (b"-1", None),
    (b'"0.1"', None),
    (b"null", None),
    (b"true", None),
    (b'{"total_cost":1}', None),
    (b"1e999999999", None),
    (b"0." + b"1" * 399, None),
]


@pytest.mark.parametrize(("cost", "expected"), COSTS)
def test_a_reported_cost_is_exact_and_rounded_up(cost, expected):
    body = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"cost":%s}}' % cost
    answer = OPENAI.read_answer(Operation.CHAT, body)
    assert (answer.cost_nusd, answer.usage) == (expected, Usage(input=1, output=1))


def test_absurd_counts_do_not_lose_the_cost():
    answer = chat({"prompt_tokens": -1, "cost": 0.5})
    assert (answer.usage, answer.cost_nusd) == (None, 500_000_000)


def test_embeddings_have_no_output():
    body = b'{"object":"list","data":[{"embedding":[0.1]}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}'
    assert OPENAI.read_answer(Operation.EMBEDDINGS, body).usage == Usage(input=8)


def test_counting_tokens_uses_none():
    assert ANTHROPIC.read_answer(Operation.COUNT_TOKENS, b'{"input_tokens":2095}').usage == Usage()


def test_the_answer_names_itself():
    assert (chat(None).answer_id, message(None).answer_id) == ("c1", "m1")
    assert [chat(None, id=absurd).answer_id for absurd in (7, "x" * 1000)] == [None, None]


FAILED = [
    (OPENAI, Operation.CHAT, {"error": {"message": "no", "code": 502}}),
    (OPENAI, Operation.CHAT, {"choices": [{"finish_reason": "error", "error": {"code": 502}}], "usage": {}}),
    (OPENAI, Operation.CHAT, {"base_resp": {"status_code": 1008, "status_msg": "no"}, "choices": None}),
    (OPENAI, Operation.CHAT, {"code": 1113, "msg": "no", "success": False}),
    (OPENAI, Operation.RESPONSES, {"status": "failed", "error": {"code": "server_error"}}),
    (ANTHROPIC, Operation.MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}}),
    (ANTHROPIC, Operation.COUNT_TOKENS, {"type": "error", "error": {"type": "overloaded_error"}}),
]


@pytest.mark.parametrize(("dialect", "operation", "body"), FAILED)
def test_an_error_inside_a_200_is_no_success(dialect, operation, body):
    answer = dialect.read_answer(operation, json.dumps(body).encode())
    assert (answer.failed, answer.usage) == (True, None)


def test_a_whole_answer_with_empty_errors_is_a_success():
    assert not chat(None, error=None, base_resp={"status_code": 0}, success=True).failed
    whole = b'{"id":"r","status":"incomplete","error":null,"output":[],"usage":{"input_tokens":1,"output_tokens":2}}'
    assert OPENAI.read_answer(Operation.RESPONSES, whole).usage == Usage(input=1, output=2)


GARBAGE = [
    b"",
    b"<html>",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"id":"x"}',
    b'{"choices":7}',
    b'{"usage":{}}',
    b'{"choices":' + b"[" * 100_000,
]


@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.parametrize(
    ("dialect", "operation"),
    [
        (OPENAI, Operation.CHAT),
        (OPENAI, Operation.COMPLETIONS),
        (OPENAI, Operation.RESPONSES),
        (OPENAI, Operation.EMBEDDINGS),
        (ANTHROPIC, Operation.MESSAGES),
        (ANTHROPIC, Operation.COUNT_TOKENS),
    ],
)
def test_what_is_no_whole_answer_is_unreadable(dialect, operation, body):
    with pytest.raises(UnreadableAnswer):
        dialect.read_answer(operation, body)


def test_blank_lines_that_kept_a_connection_alive_are_no_fault():
    assert OPENAI.read_answer(Operation.CHAT, b'\n\n\n{"choices":[]}').failed is False
