"""
An answer that came as text, told as Anthropic's messages are told: whole, or as a stream.

Law: official clients and our own readers take it for the vendor's: every member that their types require is there, a stream ends
with `message_stop`, and usage and cost are read back as they were put in, reasoning as the part of the output that it is here.
Never: says how a text was made.

Members and events: the official SDK's types (anthropic 2.11) and upstreams.md D.1, D.2 and G, read 2026-11-25.
"""

from typing import Any

import msgspec

from quota_router.core.calls import Operation
from quota_router.core.usage import Usage
from quota_router.dialects.base import Spoken
from quota_router.dialects.rendering import event, pieces, told_of


def render_answer(operation: Operation, spoken: Spoken) -> bytes:
    """The body of an answer that does not stream."""
    assert operation is Operation.MESSAGES, operation
    content = [{"type": "text", "text": spoken.text}] if spoken.text else []
    usage = render_usage(spoken.usage, spoken.cost_nusd)
    return msgspec.json.encode({**_message(spoken), "content": content, "stop_reason": "end_turn", "usage": usage})


def render_stream(operation: Operation, spoken: Spoken, *, with_usage: bool = True) -> bytes:
    """
    The whole answer as a stream, its text in one content event where the bound of events allows.

    Args:
        operation: of the call.
        spoken: the answer.
        with_usage: is the other family's; this one's streams always carry it.
    """
    assert operation is Operation.MESSAGES, operation
    assert with_usage, "a stream of this dialect carries its usage"
    usage = render_usage(spoken.usage, spoken.cost_nusd)
    opening = {**_message(spoken), "stop_reason": None, "usage": {**usage, "output_tokens": 0}}
    closing = {"stop_reason": "end_turn", "stop_sequence": None}
    told: list[dict[str, Any]] = [
        {"type": "message_start", "message": opening},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
            for piece in pieces(spoken.text)
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": closing, "usage": usage},
        {"type": "message_stop"},
    ]
    return b"".join(event(it, it["type"]) for it in told)


def render_usage(usage: Usage, cost_nusd: int | None) -> dict[str, Any]:
    """A usage object, from which `Counter` gets what was put in."""
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output_tokens,
        **told_of(usage, cost_nusd),
    }


def _message(spoken: Spoken) -> dict[str, Any]:
    return {
        "id": f"msg_{spoken.id}",
        "type": "message",
        "role": "assistant",
        "model": spoken.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }
