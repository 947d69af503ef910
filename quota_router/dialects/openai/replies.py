"""
What we answer ourselves in OpenAI's dialect: errors, and the list of models.

Law: official clients take these for the vendor's own: status, `type` and `code` are what their libraries look at.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.dialects.base import ModelCard
from quota_router.dialects.rendering import event, extras, param_of
from quota_router.errors import QuotaRouterError

_SPENT = "insufficient_quota"
_SPENT_STATUS = 429
_SERVER_STATUS = 500
OWNER = "quota-router"


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
