"""
An answer that came as text, told as OpenAI's endpoints tell theirs: whole, or as a stream.

Law: official clients and our own readers take it for the vendor's: every member that their types require is there, a stream ends
as a stream of that endpoint ends, and usage and cost are read back as they were put in.
Never: says how a text was made.

Members and events: the official SDK's types (openai 3.52) and upstreams.md D.1, D.2 and G, read 2026-11-25.

Decision 2026-11 -- the usage chunk is always in a chat stream, as it is in an upstream's: the body that goes upstream always asks
    for it, and the reader hides it from who did not.
"""

from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.core.usage import Usage
from quota_router.dialects.base import Spoken
from quota_router.dialects.rendering import event, pieces, told_of

_DONE = b"data: [DONE]\n\n"
_CHAT_NAMES = ("prompt_tokens", "completion_tokens")
_RESPONSE_NAMES = ("input_tokens", "output_tokens")


def render_answer(operation: Operation, spoken: Spoken) -> bytes:
    """The body of an answer that does not stream."""
    match operation:
        case Operation.CHAT:
            message: dict[str, Any] = {"role": "assistant", "content": spoken.text, "refusal": None, "annotations": []}
            told = _completion(_head(operation, spoken, "chat.completion"), {"message": message}, spoken)
        case Operation.COMPLETIONS:
            told = _completion(_head(operation, spoken, "text_completion"), {"text": spoken.text}, spoken)
        case Operation.RESPONSES:
            told = _response(spoken, is_complete=True)
        case _:
            raise AssertionError(f"no text answers this operation: {operation}")
    return msgspec.json.encode(told)


def render_stream(operation: Operation, spoken: Spoken, *, with_usage: bool = True) -> bytes:
    """
    The whole answer as a stream, its text in one content event where the bound of events allows.

    Args:
        operation: of the call.
        spoken: the answer.
        with_usage: whether a chat or completions stream carries its usage chunk; the terminal event of a response always does.
    """
    match operation:
        case Operation.CHAT | Operation.COMPLETIONS:
            return b"".join(_chunks(operation, spoken, with_usage=with_usage))
        case Operation.RESPONSES:
            events = [{**told, "sequence_number": number} for number, told in enumerate(_response_events(spoken))]
            return b"".join(event(told, told["type"]) for told in events)
        case _:
            raise AssertionError(f"no text answers this operation: {operation}")


def render_usage(
    usage: Usage, cost_nusd: int | None, names: tuple[str, str] = ("prompt_tokens", "completion_tokens")
) -> dict[str, Any]:
    """
    A usage object, from which `read_usage` and `read_cost` get what was put in.

    Reasoning that its tool counts beside the output shows in the total only, as xAI tells it (upstreams.md D.1).
    """
    asked, told = names
    lifetimes = {"ttl_30m_tokens": usage.cache_write_5m, "ttl_12h_tokens": usage.cache_write_1h}
    written = {"cache_write_tokens": sum(lifetimes.values()), "cache_write_tokens_details": lifetimes}
    return {
        asked: usage.input_tokens,
        told: usage.output,
        "total_tokens": usage.total_tokens,
        f"{asked}_details": {"cached_tokens": usage.cache_read, **written},
        f"{told}_details": {"reasoning_tokens": usage.reasoning},
        **told_of(usage, cost_nusd),
    }


def _usage(spoken: Spoken) -> dict[str, Any]:
    return render_usage(spoken.usage, spoken.cost_nusd)


def _head(operation: Operation, spoken: Spoken, kind: str) -> dict[str, Any]:
    prefix = "chatcmpl" if operation is Operation.CHAT else "cmpl"
    return {"id": f"{prefix}-{spoken.id}", "object": kind, "created": spoken.created, "model": spoken.model}


def _completion(head: dict[str, Any], said: dict[str, Any], spoken: Spoken) -> dict[str, Any]:
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": "stop"}
    return {**head, "choices": [choice], "usage": _usage(spoken)}


def _chunks(operation: Operation, spoken: Spoken, *, with_usage: bool) -> list[bytes]:
    is_chat = operation is Operation.CHAT
    head = _head(operation, spoken, "chat.completion.chunk" if is_chat else "text_completion")
    nothing_yet = {"usage": None} if with_usage else {}

    def chunk(said: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return event({**head, "choices": [choice], **nothing_yet})

    opening = [chunk({"delta": {"role": "assistant", "content": "", "refusal": None}})] if is_chat else []
    content = [chunk({"delta": {"content": piece}} if is_chat else {"text": piece}) for piece in pieces(spoken.text)]
    closing = [chunk({"delta": {}} if is_chat else {"text": ""}, "stop")]
    usage = [event({**head, "choices": [], "usage": _usage(spoken)})] if with_usage else []
    return [*opening, *content, *closing, *usage, _DONE]


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(spoken: Spoken, *, is_complete: bool) -> dict[str, Any]:
    return {
        "id": f"msg_{spoken.id}",
        "type": "message",
        "role": "assistant",
        "status": "completed" if is_complete else "in_progress",
        "content": [_part(spoken.text)] if is_complete else [],
    }


def _response(spoken: Spoken, *, is_complete: bool) -> dict[str, Any]:
    """A response; nobody keeps it, and it says so."""
    usage = render_usage(spoken.usage, spoken.cost_nusd, _RESPONSE_NAMES)
    return {
        "id": f"resp_{spoken.id}",
        "object": "response",
        "created_at": spoken.created,
        "status": "completed" if is_complete else "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": spoken.model,
        "output": [_message(spoken, is_complete=True)] if is_complete else [],
        "parallel_tool_calls": False,
        "previous_response_id": None,
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "none",
        "tools": [],
        "top_p": None,
        "usage": usage if is_complete else None,
    }


def _response_events(spoken: Spoken) -> list[dict[str, Any]]:
    place = {"output_index": 0}
    part = {"item_id": f"msg_{spoken.id}", **place, "content_index": 0}
    begun = _response(spoken, is_complete=False)
    return [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", **place, "item": _message(spoken, is_complete=False)},
        {"type": "response.content_part.added", **part, "part": _part("")},
        *({"type": "response.output_text.delta", **part, "delta": piece, "logprobs": []} for piece in pieces(spoken.text)),
        {"type": "response.output_text.done", **part, "text": spoken.text, "logprobs": []},
        {"type": "response.content_part.done", **part, "part": _part(spoken.text)},
        {"type": "response.output_item.done", **place, "item": _message(spoken, is_complete=True)},
        {"type": "response.completed", "response": _response(spoken, is_complete=True)},
    ]
