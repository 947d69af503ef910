"""
What both families' own answers share: the extras of an error, the field at fault, and how an event is written.

Law: an error says the same in every dialect: message, code, call id, when to come back, and every rung's reason.
"""

from typing import Any

import msgspec

from quota_router.errors import Conflict, InvalidRequest, NoUsableProvider, QuotaRouterError, UnknownModel


def extras(error: QuotaRouterError, call_id: str | None) -> dict[str, Any]:
    """
    What our errors carry beside a vendor's own members.

    `retry_after_s` is null when nobody knows; a conflict names the call that came first, and its state.
    """
    known: dict[str, Any] = {
        "call_id": call_id,
        "retry_after_s": error.retry_after_s,
        "rungs": list(error.rungs) if isinstance(error, NoUsableProvider) else [],
    }
    if isinstance(error, Conflict):
        known |= {"call_id": error.call_id or call_id, "state": error.state}
    return known


def param_of(error: QuotaRouterError) -> str | None:
    """The field of the request that is at fault, if one is."""
    if isinstance(error, UnknownModel):
        return "model"
    return error.param if isinstance(error, InvalidRequest) else None


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event; JSON escapes every line end, so the data is one line."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"
