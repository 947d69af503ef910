"""What a caller's body asks for, and what goes upstream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota_router.core.calls import CallFacts, Operation
from quota_router.core.catalog import Family
from quota_router.dialects import dialect_of
from quota_router.dialects.bounds import TOOLS_TOKENS
from quota_router.errors import InvalidRequest, MalformedBody

OPENAI, ANTHROPIC = dialect_of(Family.OPENAI), dialect_of(Family.ANTHROPIC)
OPERATIONS = {
    Operation.CHAT: OPENAI,
    Operation.COMPLETIONS: OPENAI,
    Operation.RESPONSES: OPENAI,
    Operation.EMBEDDINGS: OPENAI,
    Operation.MESSAGES: ANTHROPIC,
    Operation.COUNT_TOKENS: ANTHROPIC,
}


def facts_of(operation, document):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return OPERATIONS[operation].read(operation, body).facts


def sent(operation, body, model="up"):
    dialect = OPERATIONS[operation]
    return dialect.read(operation, body).for_model(model)


def test_the_routing_fields_of_a_chat_are_read():
    body = (
        b'{"model":"m","stream":true,"max_tokens":50,"max_completion_tokens":20,"n":3,'
        b'"metadata":{"team":"x","n":7},"tools":[{"type":"function"}]}'
    )
    assert facts_of(Operation.CHAT, body) == CallFacts(
        model="m",
        stream=True,
        asks_usage=False,
        max_output_tokens=20,
        choices=3,
        input_tokens=len(body) + TOOLS_TOKENS,
        labels=("team:x",),
    )


def test_an_empty_body_asks_for_nothing_in_particular():
    for operation in OPERATIONS:
        no_output = operation in {Operation.EMBEDDINGS, Operation.COUNT_TOKENS}
        assert facts_of(operation, b"{}") == CallFacts(input_tokens=2, max_output_tokens=0 if no_output else None)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_null_is_absent(operation):
    names = [
        "model",
        "stream",
        "max_tokens",
        "max_output_tokens",
        "n",
        "tools",
        "metadata",
        "stream_options",
        "service_tier",
        "prompt",
    ]
    body = json.dumps(dict.fromkeys(names)).encode()
    assert facts_of(operation, body) == CallFacts(
        input_tokens=len(body), max_output_tokens=facts_of(operation, b"{}").max_output_tokens
    )


WRONG = [
    (Operation.CHAT, {"model": 7}, "model", "text"),
    (Operation.CHAT, {"model": "x" * 257}, "model", "256"),
    (Operation.CHAT, {"model": "a\0b"}, "model", "control"),
    (Operation.CHAT, {"max_tokens": "10"}, "max_tokens", "`max_tokens` must be a positive integer."),
    (Operation.CHAT, {"max_tokens": 0}, "max_tokens", "positive"),
    (Operation.CHAT, {"max_tokens": 1.5}, "max_tokens", "positive"),
    (Operation.CHAT, {"max_tokens": True}, "max_tokens", "positive"),
    (Operation.CHAT, {"max_completion_tokens": -1}, "max_completion_tokens", "positive"),
    (Operation.CHAT, {"max_tokens": 10**30}, "max_tokens", "positive"),
    (Operation.CHAT, {"n": 0}, "n", "integer"),
    (Operation.CHAT, {"stream": "true"}, "stream", "true or false"),
    (Operation.CHAT, {"stream_options": {"include_usage": 1}}, "stream_options", "include_usage"),
    (Operation.CHAT, {"stream_options": []}, "stream_options", "object"),
    (Operation.CHAT, {"tools": {}}, "tools", "list"),
    (Operation.CHAT, {"tools": ["x"]}, "tools", "list"),
    (Operation.CHAT, {"metadata": "x"}, "metadata", "object"),
    (Operation.COMPLETIONS, {"best_of": "2"}, "best_of", "integer"),
    (Operation.COMPLETIONS, {"prompt": 3}, "prompt", "list"),
    (Operation.RESPONSES, {"max_output_tokens": []}, "max_output_tokens", "positive"),
    (Operation.RESPONSES, {"background": True}, "background", "not served here"),
    (Operation.RESPONSES, {"conversation": 4}, "conversation", "id"),
    (Operation.MESSAGES, {"max_tokens": -1}, "max_tokens", "zero or a positive integer"),
    (Operation.MESSAGES, {"mcp_servers": {}}, "mcp_servers", "list"),
]


@pytest.mark.parametrize(("operation", "document", "param", "words"), WRONG)
def test_a_wrong_field_is_named(operation, document, param, words):
    with pytest.raises(InvalidRequest, match=words) as caught:
        facts_of(operation, document)
    assert (caught.value.param, caught.value.status) == (param, 400)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_malformed_body_is_malformed_in_every_operation(operation):
    for body in (b"", b"[]", b'{"model":"\xff"}', b'{"a":' * 100_000, b'{"n":' + b"1" * 6_000 + b"}", b'{"model":"a","model":"b"}'):
        with pytest.raises(MalformedBody):
            facts_of(operation, body)


def test_an_anthropic_cap_of_zero_fills_the_cache():
    assert facts_of(Operation.MESSAGES, {"max_tokens": 0}).max_output_tokens == 0


CHOICES = [
    ({"n": 2, "best_of": 5}, 5),
    ({"prompt": "one"}, 1),
    ({"prompt": ["one", "two", "three"], "n": 2}, 6),
    ({"prompt": [1, 2, 3]}, 1),
    ({"prompt": [[1, 2], [3]]}, 2),
    ({"prompt": []}, 1),
]


@pytest.mark.parametrize(("document", "choices"), CHOICES)
def test_each_prompt_of_a_batch_is_answered_n_times(document, choices):
    assert facts_of(Operation.COMPLETIONS, document).choices == choices


REFERRED = [
    (Operation.CHAT, b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}'),
    (Operation.CHAT, b'{"messages":[{"content":[{"image_url" : "x"}]}]}'),
    (Operation.CHAT, b'{"messages":[{"content":[{"type": "input_audio"}]}]}'),
    (Operation.CHAT, b'{"messages":[{"content":[{"type":"image\\u005furl"}]}]}'),
    (Operation.RESPONSES, b'{"input":[{"type":"message","content":[{"type":"input_file","file_id":"x"}]}]}'),
    (Operation.RESPONSES, b'{"input":[{"id":"msg_1"}]}'),
    (Operation.RESPONSES, b'{"input":[{"type":"item_reference","id":"msg_1"}]}'),
    (Operation.RESPONSES, b'{"previous_response_id":"resp_1"}'),
    (Operation.RESPONSES, b'{"conversation":{"id":"conv_1"}}'),
    (Operation.RESPONSES, b'{"prompt":{"id":"pmpt_1"}}'),
    (Operation.MESSAGES, b'{"messages":[{"content":[{"type":"document","source":{"type":"url"}}]}]}'),
    (Operation.MESSAGES, b'{"messages":[{"content":[{"type":"image"}]}]}'),
    (Operation.MESSAGES, b'{"messages":[{"content":[{"type":"container_upload"}]}]}'),
]


@pytest.mark.parametrize(("operation", "body"), REFERRED)
def test_content_by_reference_is_not_bounded_by_its_bytes(operation, body):
    assert facts_of(operation, body).input_tokens is None


def test_words_about_references_in_a_text_are_text():
    said = 'use {"type":"image_url","image_url":1} with "file_id": "file-123"; é\n'
    body = json.dumps({"messages": [{"role": "user", "content": said}], "tools": [{"function": {"name": "file_path"}}]}).encode()
    facts = facts_of(Operation.CHAT, body)
    assert (facts.input_tokens, facts.leans_on) == (len(body) + TOOLS_TOKENS, None)


LEANS = [
    (Operation.RESPONSES, {"previous_response_id": "resp_1"}, "resp_1"),
    (Operation.RESPONSES, {"conversation": "conv_1"}, "conv_1"),
    (Operation.RESPONSES, {"conversation": {"id": "conv_1"}}, "conv_1"),
    (Operation.CHAT, {"messages": [{"content": [{"type": "file", "file": {"file_id": "file-7"}}]}]}, "file-7"),
    (Operation.MESSAGES, {"messages": [{"content": [{"source": {"type": "file", "file_id": "file_7"}}]}]}, "file_7"),
    (Operation.MESSAGES, {"messages": [{"content": [{"type": "tool_use", "input": {"file_id": "row 7"}}]}]}, None),
]


@pytest.mark.parametrize(("operation", "document", "leans_on"), LEANS)
def test_state_kept_at_a_vendor_is_seen(operation, document, leans_on):
    assert facts_of(operation, document).leans_on == leans_on


OPEN_ENDED = [
    (Operation.CHAT, {"service_tier": "priority"}, True),
    (Operation.CHAT, {"service_tier": "auto"}, False),
    (Operation.CHAT, {"web_search_options": {}}, True),
    (Operation.CHAT, {"plugins": [{"id": "web"}]}, True),
    (Operation.CHAT, {"modalities": ["text", "audio"]}, True),
    (Operation.CHAT, {"modalities": ["text"], "tools": [{"type": "custom"}, {"type": "function"}]}, False),
    (Operation.RESPONSES, {"tools": [{"type": "function"}, {"type": "web_search"}]}, True),
    (Operation.RESPONSES, {"tools": [{"type": "mcp"}]}, True),
    (Operation.MESSAGES, {"tools": [{"name": "f"}, {"type": "custom"}, {"type": "bash_20250124"}]}, False),
    (Operation.MESSAGES, {"tools": [{"type": "web_search_20250305"}]}, True),
    (Operation.MESSAGES, {"tools": [{"type": "code_execution_20260120"}]}, True),
    (Operation.MESSAGES, {"service_tier": "standard_only"}, False),
    (Operation.MESSAGES, {"service_tier": "turbo"}, True),
    (Operation.MESSAGES, {"speed": "fast"}, True),
    (Operation.MESSAGES, {"inference_geo": "us"}, True),
    (Operation.MESSAGES, {"mcp_servers": [{"url": "x"}]}, True),
    (Operation.MESSAGES, {"context_management": {"edits": [{"type": "compact_20260112"}]}}, True),
    (Operation.COUNT_TOKENS, {"tools": [{"type": "web_search_20250305"}]}, False),
]


@pytest.mark.parametrize(("operation", "document", "expected"), OPEN_ENDED)
def test_what_may_cost_without_bound_is_open_ended(operation, document, expected):
    assert facts_of(operation, document).is_open_ended is expected


def test_a_tool_whose_schema_is_the_vendors_has_an_allowance_of_its_own():
    body = b'{"tools":[{"type":"bash_20250124"},{"name":"f"}]}'
    assert facts_of(Operation.MESSAGES, body).input_tokens == len(body) + 2 * TOOLS_TOKENS


def test_labels_are_bounded():
    metadata = {f"k{number}": "v" for number in range(40)} | {"long": "x" * 600, "nul": "\0"}
    labels = facts_of(Operation.CHAT, {"metadata": metadata}).labels
    assert labels == tuple(f"k{number}:v" for number in range(16))
    assert facts_of(Operation.CHAT, {"metadata": {"nul": "a\0", "a": "b"}}).labels == ("a:b",)


NAMES = st.text(st.characters(codec="utf-8")).map("x-{}".format)
TEXTS = st.text(st.characters(codec="utf-8"))


@given(document=st.dictionaries(NAMES, TEXTS | st.integers() | st.none() | st.lists(TEXTS)), escaped=st.booleans())
def test_only_the_model_differs_upstream(document, escaped):
    for operation, dialect in OPERATIONS.items():
        body = json.dumps({**document, "model": "mödel", "messages": [document]}, ensure_ascii=escaped).encode()
        start, end = dialect.read(operation, body).top.spans["model"]
        assert sent(operation, body, 'up "x"') == body[:start] + b'"up \\"x\\""' + body[end:]


def test_a_missing_model_is_added():
    assert sent(Operation.CHAT, b'{"n":1 }') == b'{"n":1 ,"model":"up"}'


STREAMED = [
    (b'{"model":"m","stream":true}', b'{"model":"up","stream":true,"stream_options":{"include_usage":true}}'),
    (b'{"stream_options":null,"stream":true,"model":"m"}', b'{"stream_options":{"include_usage":true},"stream":true,"model":"up"}'),
    (
        b'{"stream":true,"model":"m","stream_options": { "x" : 1 } }',
        b'{"stream":true,"model":"up","stream_options": { "x" : 1 ,"include_usage":true} }',
    ),
    (
        b'{"stream":true,"model":"m","stream_options":{"include_usage": false, "y":[]}}',
        b'{"stream":true,"model":"up","stream_options":{"include_usage": true, "y":[]}}',
    ),
    (
        b'{"stream":true,"model":"m","stream_options":{"include_usage": true}}',
        b'{"stream":true,"model":"up","stream_options":{"include_usage": true}}',
    ),
    (b'{"stream":false,"model":"m"}', b'{"stream":false,"model":"up"}'),
]


@pytest.mark.parametrize(("body", "expected"), STREAMED)
@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETIONS])
def test_a_stream_is_asked_for_its_usage(operation, body, expected):
    assert sent(operation, body) == expected


def test_only_a_stream_that_did_not_ask_has_its_usage_hidden():
    assert [facts_of(Operation.CHAT, body).asks_usage for body, _ in STREAMED] == [False, False, False, False, True, True]


def test_streams_that_report_usage_anyway_are_left_alone():
    for operation in (Operation.RESPONSES, Operation.MESSAGES):
        assert sent(operation, b'{"stream":true,"model":"m"}') == b'{"stream":true,"model":"up"}'
        assert facts_of(operation, b'{"stream":true}').asks_usage


def test_paths_stand_below_the_base_url():
    assert {operation: dialect.upstream_path(operation) for operation, dialect in OPERATIONS.items()} == {
        Operation.CHAT: "/chat/completions",
        Operation.COMPLETIONS: "/completions",
        Operation.RESPONSES: "/responses",
        Operation.EMBEDDINGS: "/embeddings",
        Operation.MESSAGES: "/v1/messages",
        Operation.COUNT_TOKENS: "/v1/messages/count_tokens",
    }


NASTY = {
    "authorization": "Bearer caller",
    "x-api-key": "caller",
    "api-key": "caller",
    "cookie": "a=b",
    "host": "evil",
    "connection": "x-api-key, authorization",
    "transfer-encoding": "chunked",
    "content-length": "9",
    "content-encoding": "gzip",
    "accept-encoding": "gzip",
    "x-forwarded-for": "1.2.3.4",
    "openai-organization": "other",
    "openai-project": "other",
    "x-quota-router-labels": "a",
    "user-agent": "x",
}


def test_upstream_headers_come_from_the_allow_list_alone():
    passed = {"accept": "text/event-stream", "openai-beta": "b", "anthropic-beta": "a", "anthropic-version": "2026-10-21"}
    own = {"content-type": "application/json", "accept-encoding": "identity"}
    assert OPENAI.outgoing_headers(NASTY | passed, "secret") == own | {
        "accept": "text/event-stream",
        "openai-beta": "b",
        "authorization": "Bearer secret",
    }
    assert ANTHROPIC.outgoing_headers(NASTY | passed, "secret") == own | {
        "accept": "text/event-stream",
        "anthropic-beta": "a",
        "anthropic-version": "2026-10-21",
        "x-api-key": "secret",
    }


def test_a_keyless_provider_gets_no_credential_and_an_anthropic_call_always_a_version():
    assert OPENAI.outgoing_headers(NASTY, None) == {"content-type": "application/json", "accept-encoding": "identity"}
    assert ANTHROPIC.outgoing_headers(NASTY, None)["anthropic-version"] == "2023-06-01"


@given(value=st.text(st.characters(codec="utf-8")))
def test_no_header_value_can_begin_another_header(value):
    passed = OPENAI.outgoing_headers({"accept": value}, None).get("accept")
    assert (passed == value) is not any((ord(char) < 32 and char != "\t") or ord(char) == 127 for char in value)


def test_answer_headers_come_from_the_allow_list_alone():
    hidden = {
        "Set-Cookie": "a",
        "Content-Length": "1",
        "Content-Encoding": "gzip",
        "X-Request-Id": "r",
        "request-id": "r",
        "Server": "s",
    }
    organisation = {"openai-organization": "o", "anthropic-organization-id": "o"}
    shown = {"Content-Type": "text/event-stream", "Retry-After": "3"}
    limits = {"x-ratelimit-remaining-tokens": "9", "openai-processing-ms": "5"}
    unified = {"anthropic-ratelimit-unified-status": "allowed"}
    lowered = {"content-type": "text/event-stream", "retry-after": "3"}
    assert OPENAI.answer_headers(hidden | organisation | shown | limits) == lowered | limits
    assert ANTHROPIC.answer_headers(hidden | organisation | shown | unified) == lowered | unified
