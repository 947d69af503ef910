"""
The Anthropic side of the wire: messages and their token counts.

Law: written from the vendor's documentation alone, so that it can bear witness against `dialects`.
Source: the official SDK's types (anthropic 2.11.0) and `upstreams.md` A.2, C.2, C.3, D.1, D.2, read 2026-11-20.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from quota_router.simulator.answers import EVENT_STREAM, Answer, Call, named_event, text_pieces, to_json, whole
from quota_router.simulator.script import Reply

REQUEST_ID_HEADER = "request-id"
HEARTBEAT = named_event({"type": "ping"})

_ERRORS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "Invalid request."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model: no such model"),
    413: ("request_too_large", "Request exceeds the maximum size."),
    429: ("rate_limit_error", "This request would exceed your account's rate limit. Please try again later."),
    500: ("api_error", "Internal server error"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}


def answer(call: Call, reply: Reply) -> Answer:
    """The right answer to *call*."""
    if call.path == "/v1/messages/count_tokens":
        return whole({"input_tokens": call.input_tokens})
    if call.is_stream:
        return _events(call, reply)
    content = [{"type": "text", "text": reply.text}] if reply.text else []
    body = {**_message(call, reply), "content": content, "stop_reason": "end_turn"}
    return whole(body if reply.no_usage else {**body, "usage": _final_usage(call, reply)})


def _error(status: int, code: str | None, message: str | None) -> dict[str, Any]:
    kind, usual_message = _ERRORS.get(status) or _ERRORS[400 if status < HTTPStatus.INTERNAL_SERVER_ERROR else 500]
    error: dict[str, Any] = {"type": kind, "message": message or usual_message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error, "request_id": "req_simulator"}


def error_body(status: int, code: str | None = None, message: str | None = None) -> bytes:
    """The vendor's error envelope."""
    return to_json(_error(status, code, message))


def error_event(path: str, status: int, code: str | None = None) -> bytes:  # noqa: ARG001 -- the other dialect asks for the path
    """`event: error`, with the same envelope."""
    return named_event(_error(status, code, None))


def model_list(names: tuple[str, ...]) -> bytes:
    """The only page of the list of models."""
    created_at = "2026-01-01T00:00:00Z"
    items = [{"type": "model", "id": name, "display_name": name, "created_at": created_at, "lifecycle": "active"} for name in names]
    ends = {"first_id": names[0], "last_id": names[-1]} if names else {"first_id": None, "last_id": None}
    return to_json({"data": items, "has_more": False, **ends})


def quota_headers(unit: str, limit: int, remaining: int, resets_in_s: float, resets_at: str) -> Mapping[str, str]:  # noqa: ARG001 -- the other dialect's form
    """`anthropic-ratelimit-*`; the reset is an RFC 3339 instant."""
    prefix = f"anthropic-ratelimit-{unit}"
    return {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining), f"{prefix}-reset": resets_at}


def _message(call: Call, reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_sim{call.number:08}",
        "type": "message",
        "role": "assistant",
        "model": reply.model or call.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(call: Call, reply: Reply, output_tokens: int) -> dict[str, Any]:
    """What `message_start` says; its output count is a placeholder, the deltas' are cumulative."""
    return {
        "input_tokens": call.input_tokens,
        "cache_creation_input_tokens": reply.cache_write_5m + reply.cache_write_1h,
        "cache_read_input_tokens": reply.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": reply.cache_write_5m,
            "ephemeral_1h_input_tokens": reply.cache_write_1h,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _final_usage(call: Call, reply: Reply) -> Mapping[str, Any]:
    if reply.usage is not None:
        return reply.usage
    return {**_usage(call, reply, call.output_tokens), **_thinking(reply)}


def _delta_usage(call: Call, reply: Reply) -> Mapping[str, Any]:
    if reply.usage is not None:
        return reply.usage
    told = {
        "input_tokens": call.input_tokens,
        "cache_creation_input_tokens": reply.cache_write_5m + reply.cache_write_1h,
        "cache_read_input_tokens": reply.cached_tokens,
        "output_tokens": call.output_tokens,
    }
    return {**told, **_thinking(reply)}


def _thinking(reply: Reply) -> dict[str, Any]:
    return {"output_tokens_details": {"thinking_tokens": reply.reasoning_tokens}} if reply.reasoning_tokens else {}


def _events(call: Call, reply: Reply) -> Answer:
    start, delta = _message(call, reply), {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    if not reply.no_usage:
        start["usage"] = _usage(call, reply, min(1, call.output_tokens))
        delta["usage"] = _delta_usage(call, reply)
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    return Answer(
        content_type=EVENT_STREAM,
        opening=(named_event({"type": "message_start", "message": start}), named_event(block), HEARTBEAT),
        chunks=tuple(
            named_event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})
            for text in text_pieces(reply)
        ),
        closing=(
            named_event({"type": "content_block_stop", "index": 0}),
            named_event(delta),
            named_event({"type": "message_stop"}),
        ),
    )
