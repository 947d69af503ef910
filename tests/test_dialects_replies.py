"""Our own answers, in the dialect of the path, as the official clients read them."""

import json
from datetime import UTC, datetime

import anthropic.types
import openai.types
import pytest

from quota_router.core.calls import Operation
from quota_router.core.catalog import Family
from quota_router.dialects import ModelCard, dialect_of
from quota_router.errors import (
    BodyTooLarge,
    Conflict,
    Forbidden,
    InvalidRequest,
    LedgerBusy,
    MalformedBody,
    NotAuthenticated,
    NoUsableProvider,
    QuotaRouterError,
    UnknownModel,
    UpstreamCut,
)

OPENAI, ANTHROPIC = dialect_of(Family.OPENAI), dialect_of(Family.ANTHROPIC)
SPENT = NoUsableProvider(
    "Nobody can pay.", status=429, code="over_budget", rungs=[{"provider": "a", "reason": "over_budget"}], retry_after_s=7.5
)

OPENAI_ROWS = [
    (SPENT, "insufficient_quota", "insufficient_quota"),
    (NoUsableProvider("x", status=400, code="unbounded", rungs=[], retry_after_s=None), "invalid_request_error", "unbounded"),
    (NoUsableProvider("x", status=503, code="cooldown", rungs=[], retry_after_s=None), "server_error", "cooldown"),
    (UnknownModel(), "invalid_request_error", "model_not_found"),
    (NotAuthenticated(), "invalid_request_error", "invalid_api_key"),
    (Forbidden(), "invalid_request_error", "forbidden"),
    (MalformedBody(), "invalid_request_error", "malformed_body"),
    (LedgerBusy(), "server_error", "ledger_busy"),
]
ANTHROPIC_ROWS = [
    (SPENT, "rate_limit_error"),
    (UnknownModel(), "not_found_error"),
    (NotAuthenticated(), "authentication_error"),
    (Forbidden(), "permission_error"),
    (MalformedBody(), "invalid_request_error"),
    (BodyTooLarge(), "request_too_large"),
    (Conflict(), "invalid_request_error"),
    (LedgerBusy(), "overloaded_error"),
    (UpstreamCut(), "api_error"),
    (QuotaRouterError(), "api_error"),
]


@pytest.mark.parametrize(("error", "kind", "code"), OPENAI_ROWS)
def test_openai_clients_read_type_and_code(error, kind, code):
    body = json.loads(OPENAI.render_error(error, "call-1"))["error"]
    assert (body["type"], body["code"], body["message"], body["call_id"]) == (kind, code, error.message, "call-1")
    assert body.keys() == {"message", "type", "code", "param", "call_id", "retry_after_s", "rungs"}


@pytest.mark.parametrize(("error", "kind"), ANTHROPIC_ROWS)
def test_anthropic_clients_read_the_type(error, kind):
    body = json.loads(ANTHROPIC.render_error(error, "call-1"))
    assert (body["type"], body["request_id"]) == ("error", "call-1")
    assert (body["error"]["type"], body["error"]["message"], body["error"]["code"]) == (kind, error.message, error.code)


def test_a_refusal_carries_every_rungs_reason_and_when_to_come_back():
    for dialect in (OPENAI, ANTHROPIC):
        body = json.loads(dialect.render_error(SPENT, None))["error"]
        assert (body["rungs"], body["retry_after_s"], body["call_id"]) == ([{"provider": "a", "reason": "over_budget"}], 7.5, None)


def test_the_field_at_fault_and_the_call_in_conflict_are_named():
    wrong = json.loads(OPENAI.render_error(InvalidRequest("no", param="n"), None))["error"]
    unknown = json.loads(OPENAI.render_error(UnknownModel(), None))["error"]
    twice = json.loads(OPENAI.render_error(Conflict(call_id="first", state="running"), "second"))["error"]
    assert (wrong["param"], unknown["param"]) == ("n", "model")
    assert (twice["call_id"], twice["state"]) == ("first", "running")


def test_a_stream_that_broke_ends_with_an_error_event_of_its_dialect():
    chat = OPENAI.error_event(Operation.CHAT, UpstreamCut("a\nb"), "call-1")
    flat = OPENAI.error_event(Operation.RESPONSES, UpstreamCut(), "call-1")
    messages = ANTHROPIC.error_event(Operation.MESSAGES, UpstreamCut(), "call-1")
    assert chat.startswith(b'data: {"error":{"message":"a\\nb"')
    assert json.loads(flat.removeprefix(b"event: error\ndata: "))["code"] == "upstream_truncated"
    assert json.loads(messages.removeprefix(b"event: error\ndata: "))["error"]["type"] == "api_error"
    assert all(event.count(b"\n\n") == 1 and event.endswith(b"\n\n") for event in (chat, flat, messages))


CARDS = [
    ModelCard(id="a/b", display_name="", created_at=datetime(2026, 1, 1, tzinfo=UTC)),
    ModelCard(id="c", display_name="Sea", created_at=datetime(2026, 1, 1, tzinfo=UTC), context_tokens=9, max_output_tokens=3),
]


def test_model_lists_are_what_the_official_types_expect():
    page = json.loads(OPENAI.models_page(CARDS))
    assert page["object"] == "list"
    assert [openai.types.Model.model_validate(card, strict=True).id for card in page["data"]] == ["a/b", "c"]
    assert openai.types.Model.model_validate_json(OPENAI.model_page(CARDS[1])).created == 1767225600
    page = json.loads(ANTHROPIC.models_page(CARDS))
    assert (page["has_more"], page["first_id"], page["last_id"]) == (False, "a/b", "c")
    cards = [anthropic.types.ModelInfo.model_validate(card) for card in page["data"]]
    assert [(card.display_name, card.max_input_tokens, card.max_tokens) for card in cards] == [("a/b", None, None), ("Sea", 9, 3)]
    assert anthropic.types.ModelInfo.model_validate_json(ANTHROPIC.model_page(CARDS[1])).id == "c"


def test_an_empty_list_is_a_list():
    assert json.loads(OPENAI.models_page([])) == {"object": "list", "data": []}
    assert json.loads(ANTHROPIC.models_page([])) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
