"""
What we answer ourselves in OpenAI's dialect: errors, the list of models, and how a tool's failure reads as an answer.

Law: official clients take these for the vendor's own: status, `type` and `code` are what their libraries look at. What is rendered
of a failure, `classify` and `classify_event` read as that failure.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.core.health import Failure, FailureKind
from quota_router.core.usage import Usage
from quota_router.dialects.base import ModelCard, Refusal
from quota_router.dialects.openai.speech import render_usage
from quota_router.dialects.rendering import JSON_HEADERS, event, extras, param_of, resets_at, sentence_of
from quota_router.errors import QuotaRouterError

_SPENT = "insufficient_quota"
_SPENT_STATUS = 429
_SERVER_STATUS = 500
_OK = 200
OWNER = "quota-router"

_REFUSALS: dict[FailureKind, tuple[int, str, str | None]] = {
    FailureKind.RATE_LIMITED: (429, "requests", "rate_limit_exceeded"),
    FailureKind.IN_FLIGHT_BUDGET: (429, "requests", "rate_limit_exceeded"),
    FailureKind.QUOTA_WINDOW: (429, "usage_limit_reached", "usage_limit_reached"),
    FailureKind.BILLING: (429, "insufficient_quota", "insufficient_quota"),
    FailureKind.AUTH: (401, "invalid_request_error", "invalid_api_key"),
    FailureKind.OVERLOADED: (503, "service_unavailable_error", "server_is_overloaded"),
    FailureKind.TRANSIENT: (500, "server_error", "server_error"),
    FailureKind.MODEL_UNAVAILABLE: (404, "invalid_request_error", "model_not_found"),
    FailureKind.CONTEXT_TOO_LONG: (400, "invalid_request_error", "context_length_exceeded"),
    FailureKind.CONTENT_POLICY: (400, "invalid_request_error", "content_policy_violation"),
    FailureKind.CLIENT_ERROR: (400, "invalid_request_error", None),
}
"""Status, type and code, from the tables of `failures`."""


def render_error(error: QuotaRouterError, call_id: str | None) -> bytes:
    """The body of an error answer."""
    return msgspec.json.encode({"error": _error(error, call_id)})


def error_event(operation: Operation, error: QuotaRouterError, call_id: str | None) -> bytes:
    """
    The event that ends a stream which broke.

    The Responses API's error event is flat; `error` is there besides because the official SDK raises only on that member
    (openai 3.52, read 2026-11-20).
    """
    body = _error(error, call_id)
    if operation is Operation.RESPONSES:
        flat = {name: body[name] for name in ("code", "message", "param")}
        return event({"type": "error", **flat, "error": body}, "error")
    return event({"error": body})


def render_refusal(failure: Failure, usage: Usage | None, cost_nusd: int | None) -> Refusal:
    """
    A failure that came in words, as this dialect's upstreams tell it.

    Args:
        failure: any but a cancellation; a full reservation is told as a busy minute.
        usage: what it used all the same, which makes it an error inside a 200; `None`: nobody knows of any.
        cost_nusd: what that cost, as reported.
    """
    status, kind, code = _REFUSALS[failure.kind]
    told: dict[str, Any] = {
        "error": {"message": sentence_of(failure), "type": kind, "code": code, "param": None, **resets_at(failure)}
    }
    if usage is not None:
        told["usage"] = render_usage(usage, cost_nusd)
    return Refusal(status=_OK if usage is not None else status, headers=JSON_HEADERS, body=msgspec.json.encode(told))


def models_page(cards: Sequence[ModelCard]) -> bytes:
    """The body of `GET /v1/models`."""
    return msgspec.json.encode({"object": "list", "data": [_card(card) for card in cards]})


def model_page(card: ModelCard) -> bytes:
    """The body of `GET /v1/models/{id}`."""
    return msgspec.json.encode(_card(card))


def _error(error: QuotaRouterError, call_id: str | None) -> dict[str, Any]:
    if error.status == _SPENT_STATUS:
        kind = code = _SPENT
    else:
        kind = "server_error" if error.status >= _SERVER_STATUS else "invalid_request_error"
        code = error.code
    return {
        "message": error.message,
        "type": kind,
        "code": code,
        "param": param_of(error),
        **extras(error, call_id),
    }


def _card(card: ModelCard) -> dict[str, Any]:
    return {"id": card.id, "object": "model", "created": int(card.created_at.timestamp()), "owned_by": OWNER}
