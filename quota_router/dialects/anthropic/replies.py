"""
What we answer ourselves in Anthropic's dialect: errors, the list of models, and how a tool's failure reads as an answer.

Law: official clients take these for the vendor's own: status and `type` are what their libraries look at. What is rendered of a
failure, `classify` and `classify_event` read as that failure; a content policy reads as the client error it is in this dialect.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.core.health import Failure, FailureKind
from quota_router.core.usage import Usage
from quota_router.dialects.anthropic.failures import EMPTY_WINDOW
from quota_router.dialects.anthropic.speech import render_usage
from quota_router.dialects.base import ModelCard, Refusal
from quota_router.dialects.rendering import JSON_HEADERS, event, extras, param_of, resets_at, sentence_of
from quota_router.errors import QuotaRouterError

_TYPES: dict[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""By status; other statuses from 500 are `api_error`, the rest `invalid_request_error`."""
_SERVER_STATUS = 500
_OK = 200

_REFUSALS: dict[FailureKind, tuple[int, str, str]] = {
    FailureKind.RATE_LIMITED: (429, "rate_limit_error", ""),
    FailureKind.IN_FLIGHT_BUDGET: (429, "rate_limit_error", ""),
    FailureKind.QUOTA_WINDOW: (429, "rate_limit_error", ""),
    FailureKind.BILLING: (402, "billing_error", ""),
    FailureKind.AUTH: (401, "authentication_error", ""),
    FailureKind.OVERLOADED: (529, "overloaded_error", ""),
    FailureKind.TRANSIENT: (500, "api_error", ""),
    FailureKind.MODEL_UNAVAILABLE: (404, "not_found_error", "model: "),
    FailureKind.CONTEXT_TOO_LONG: (400, "invalid_request_error", "prompt is too long: "),
    FailureKind.CONTENT_POLICY: (400, "invalid_request_error", ""),
    FailureKind.CLIENT_ERROR: (400, "invalid_request_error", ""),
}
"""Status, type, and the first words where only these tell (`failures`)."""


def render_error(error: QuotaRouterError, call_id: str | None) -> bytes:
    """The body of an error answer."""
    return msgspec.json.encode(_error(error, call_id))


def error_event(
    operation: Operation,  # noqa: ARG001 -- every family's error events are made alike
    error: QuotaRouterError,
    call_id: str | None,
) -> bytes:
    """The event that ends a stream which broke."""
    return event(_error(error, call_id), "error")


def render_refusal(failure: Failure, usage: Usage | None, cost_nusd: int | None) -> Refusal:
    """
    A failure that came in words, as this dialect's upstreams tell it.

    Args:
        failure: any but a cancellation; a full reservation is told as a busy minute.
        usage: what it used all the same, which makes it an error inside a 200; `None`: nobody knows of any.
        cost_nusd: what that cost, as reported.
    """
    status, kind, opening = _REFUSALS[failure.kind]
    details = resets_at(failure)
    if failure.kind is FailureKind.QUOTA_WINDOW:
        details["error_code"] = EMPTY_WINDOW
    error = {"type": kind, "message": opening + sentence_of(failure), **({"details": details} if details else {})}
    told: dict[str, Any] = {"type": "error", "error": error}
    if usage is not None:
        told["usage"] = render_usage(usage, cost_nusd)
    return Refusal(status=_OK if usage is not None else status, headers=JSON_HEADERS, body=msgspec.json.encode(told))


def models_page(cards: Sequence[ModelCard]) -> bytes:
    """The body of `GET /v1/models`: one page with all of them."""
    data = [_card(card) for card in cards]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return msgspec.json.encode({"data": data, "has_more": False, **ends})


def model_page(card: ModelCard) -> bytes:
    """The body of `GET /v1/models/{id}`."""
    return msgspec.json.encode(_card(card))


def _error(error: QuotaRouterError, call_id: str | None) -> dict[str, Any]:
    fallback = "api_error" if error.status >= _SERVER_STATUS else "invalid_request_error"
    inner = {
        "type": _TYPES.get(error.status, fallback),
        "message": error.message,
        "code": error.code,
        "param": param_of(error),
        **extras(error, call_id),
    }
    return {"type": "error", "error": inner, "request_id": call_id}


def _card(card: ModelCard) -> dict[str, Any]:
    known = {"max_input_tokens": card.context_tokens, "max_tokens": card.max_output_tokens}
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.display_name or card.id,
        "created_at": card.created_at,
        "lifecycle": "active",
        **known,
    }
