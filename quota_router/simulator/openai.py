"""
The OpenAI side of the wire: chat completions, completions, responses, embeddings.

Law: written from the vendor's documentation alone, so that it can bear witness against `dialects`.
Source: the official SDK's types (openai 3.52.0) and `upstreams.md` A.1, C.2, C.3, D.1, D.2, read 2026-11-20.
"""

import base64
import struct
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from quota_router.simulator.answers import EVENT_STREAM, Answer, Call, named_event, text_pieces, to_json, whole
from quota_router.simulator.script import Reply

REQUEST_ID_HEADER = "x-request-id"
HEARTBEAT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
EMBEDDING = (0.25, -0.5, 0.75)
"""exact in 32 bits, so that both encodings say the same"""

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("insufficient_credits", "payment_required", "Insufficient credits."),
    403: ("request_forbidden", "unsupported_country_region_territory", "Country, region, or territory not supported."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    413: ("invalid_request_error", "request_too_large", "Request too large."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("service_unavailable_error", "server_is_overloaded", "The engine is currently overloaded, please try again later."),
    529: ("service_unavailable_error", "server_is_overloaded", "The engine is currently overloaded, please try again later."),
}
_QUOTA_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_usage_limit_exceeded",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
    },
)
_QUOTA_MESSAGE = "You exceeded your current quota, please check your plan and billing details."


def answer(call: Call, reply: Reply) -> Answer:
    """The right answer to *call*."""
    match call.path:
        case "/v1/embeddings":
            return _embeddings(call, reply)
        case "/v1/responses":
            return _response_events(call, reply) if call.is_stream else whole(_response(call, reply))
        case _:
            return _completion_chunks(call, reply) if call.is_stream else whole(_completion(call, reply))


def _error(status: int, code: str | None, message: str | None) -> dict[str, Any]:
    kind, usual_code, usual_message = _ERRORS.get(status) or _ERRORS[400 if status < HTTPStatus.INTERNAL_SERVER_ERROR else 500]
    if code in _QUOTA_CODES:
        kind, usual_message = "insufficient_quota", _QUOTA_MESSAGE
    return {"message": message or usual_message, "type": kind, "param": None, "code": code or usual_code}


def error_body(status: int, code: str | None = None, message: str | None = None) -> bytes:
    """The vendor's error envelope."""
    return to_json({"error": _error(status, code, message)})


def error_event(path: str, status: int, code: str | None = None) -> bytes:
    """Chat tells an error as one more `data:` object; responses have an event for it."""
    error = _error(status, code, None)
    if path == "/v1/responses":
        told = {"type": "error", "code": error["code"], "message": error["message"], "param": None, "sequence_number": 99}
        return named_event(told)
    return b"data: %s\n\n" % to_json({"error": error})


def model_list(names: tuple[str, ...]) -> bytes:
    """The list of models."""
    items = [{"id": name, "object": "model", "created": 1763600000, "owned_by": "simulator"} for name in names]
    return to_json({"object": "list", "data": items})


def quota_headers(unit: str, limit: int, remaining: int, resets_in_s: float, resets_at: str) -> Mapping[str, str]:  # noqa: ARG001 -- the other dialect's form
    """`x-ratelimit-*`; the reset is a Go duration (`6m0s`)."""
    minutes, seconds = divmod(round(resets_in_s, 3), 60)
    return {
        f"x-ratelimit-limit-{unit}": str(limit),
        f"x-ratelimit-remaining-{unit}": str(remaining),
        f"x-ratelimit-reset-{unit}": f"{minutes:.0f}m{seconds:g}s" if minutes else f"{seconds:g}s",
    }


def _usage(call: Call, reply: Reply, names: tuple[str, str] = ("prompt_tokens", "completion_tokens")) -> Mapping[str, Any]:
    """The usage object; `/v1/responses` names the same counts otherwise."""
    if reply.usage is not None:
        return reply.usage
    asked, told = names
    usage: dict[str, Any] = {
        asked: call.input_tokens,
        told: call.output_tokens,
        "total_tokens": call.input_tokens + call.output_tokens,
        f"{asked}_details": {
            "cached_tokens": reply.cached_tokens,
            "cache_write_tokens": reply.cache_write_5m + reply.cache_write_1h,
        },
        f"{told}_details": {"reasoning_tokens": reply.reasoning_tokens},
    }
    if reply.cost_usd is not None:
        usage["cost"] = msgspec.Raw(reply.cost_usd)
    return usage


def _completion(call: Call, reply: Reply) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    if call.path == "/v1/completions":
        kind, choice["text"] = "text_completion", reply.text
    else:
        kind = "chat.completion"
        choice["message"] = {"role": "assistant", "content": reply.text, "refusal": None, "annotations": []}
    body = {**_head(call, reply, kind), "choices": [choice]}
    return body if reply.no_usage else {**body, "usage": _usage(call, reply)}


def _head(call: Call, reply: Reply, kind: str) -> dict[str, Any]:
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    return {
        "id": f"{prefix}-sim{call.number:08}",
        "object": kind,
        "created": call.created,
        "model": reply.model or call.model,
        "system_fingerprint": "fp_simulator",
    }


def _completion_chunks(call: Call, reply: Reply) -> Answer:
    is_chat = call.path != "/v1/completions"
    told_usage = {"usage": None} if call.include_usage else {}
    head = _head(call, reply, "chat.completion.chunk" if is_chat else "text_completion")

    def event(choices: list[dict[str, Any]], usage: Mapping[str, Any] = told_usage) -> bytes:
        return b"data: %s\n\n" % to_json({**head, "choices": choices, **usage})

    def choice(text: str | None, finish_reason: str | None = None, **delta: str) -> dict[str, Any]:
        said = {"text": text or ""} if not is_chat else {"delta": delta if text is None else {**delta, "content": text}}
        return {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}

    closing = [event([choice(None, "stop")])]
    if call.include_usage and not reply.no_usage:
        closing.append(event([], {"usage": _usage(call, reply)}))
    return Answer(
        content_type=EVENT_STREAM,
        opening=(event([choice("", role="assistant")]),) if is_chat else (),
        chunks=tuple(event([choice(text)]) for text in text_pieces(reply)),
        closing=(*closing, DONE),
    )


def _message(call: Call, reply: Reply, *, is_complete: bool) -> dict[str, Any]:
    return {
        "id": f"msg_sim{call.number:08}",
        "type": "message",
        "role": "assistant",
        "status": "completed" if is_complete else "in_progress",
        "content": [_part(reply.text)] if is_complete else [],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _response(call: Call, reply: Reply, *, is_complete: bool = True) -> dict[str, Any]:
    has_usage = is_complete and not reply.no_usage
    return {
        "id": f"resp_sim{call.number:08}",
        "object": "response",
        "created_at": call.created,
        "status": "completed" if is_complete else "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": reply.model or call.model,
        "output": [_message(call, reply, is_complete=True)] if is_complete else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": _usage(call, reply, ("input_tokens", "output_tokens")) if has_usage else None,
    }


def _response_events(call: Call, reply: Reply) -> Answer:
    """The named events, numbered through; the terminal one carries the usage, and no `[DONE]` follows."""
    part = {"item_id": f"msg_sim{call.number:08}", "output_index": 0, "content_index": 0}
    begun, ended = _response(call, reply, is_complete=False), _response(call, reply)
    opening: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": _message(call, reply, is_complete=False)},
        {"type": "response.content_part.added", **part, "part": _part("")},
    ]
    chunks: list[dict[str, Any]] = [
        {"type": "response.output_text.delta", **part, "delta": text, "logprobs": []} for text in text_pieces(reply)
    ]
    closing: list[dict[str, Any]] = [
        {"type": "response.output_text.done", **part, "text": reply.text, "logprobs": []},
        {"type": "response.content_part.done", **part, "part": _part(reply.text)},
        {"type": "response.output_item.done", "output_index": 0, "item": _message(call, reply, is_complete=True)},
        {"type": "response.completed", "response": ended},
    ]
    events = [named_event({**event, "sequence_number": number}) for number, event in enumerate(opening + chunks + closing)]
    after_opening, before_closing = len(opening), len(opening) + len(chunks)
    return Answer(
        content_type=EVENT_STREAM,
        opening=tuple(events[:after_opening]),
        chunks=tuple(events[after_opening:before_closing]),
        closing=tuple(events[before_closing:]),
    )


def _embeddings(call: Call, reply: Reply) -> Answer:
    vector = base64.b64encode(struct.pack(f"<{len(EMBEDDING)}f", *EMBEDDING)).decode() if call.wants_base64 else EMBEDDING
    items = [{"object": "embedding", "index": index, "embedding": vector} for index in range(call.inputs)]
    usage = reply.usage or {"prompt_tokens": call.input_tokens, "total_tokens": call.input_tokens}
    body = {"object": "list", "data": items, "model": reply.model or call.model}
    return whole(body if reply.no_usage else {**body, "usage": usage})
