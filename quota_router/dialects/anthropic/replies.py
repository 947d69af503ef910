"""
What we answer ourselves in Anthropic's dialect: errors, and the list of models.

Law: official clients take these for the vendor's own: status and `type` are what their libraries look at.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.dialects.base import ModelCard
from quota_router.dialects.rendering import event, extras, param_of
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
