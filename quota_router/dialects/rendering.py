"""
What both families' own answers share: the extras of an error, the field at fault, how an event is written, and what is told of an
answer that came as text.

Law: an error says the same in every dialect: message, code, call id, when to come back, and every rung's reason. What we write of
usage and cost, the dialect's own reader reads back: bucket by bucket, to the nano-dollar.
"""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from quota_router.core.health import Failure, FailureKind
from quota_router.core.pricing import format_usd
from quota_router.core.usage import Quality, Usage
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


JSON_HEADERS: Mapping[str, str] = {"Content-Type": "application/json"}
_SAID = {
    FailureKind.RATE_LIMITED: "was asked too often",
    FailureKind.IN_FLIGHT_BUDGET: "was asked too often",
    FailureKind.QUOTA_WINDOW: "has used up its window",
    FailureKind.BILLING: "has no money left",
    FailureKind.AUTH: "is not logged in",
    FailureKind.OVERLOADED: "met an overloaded upstream",
    FailureKind.MODEL_UNAVAILABLE: "does not have this model",
    FailureKind.CONTEXT_TOO_LONG: "was given more than its model takes",
    FailureKind.CONTENT_POLICY: "was refused by its upstream's policy",
    FailureKind.CLIENT_ERROR: "was refused what this call asks for",
}
PIECE_MAX_CHARS = 64 * 1024
"""Of one content event: six bytes for each of its characters, and an event is still below the bound of any reader (`sse`)."""


def pieces(text: str) -> list[str]:
    """A text as contents of events: one, or as many as the bound asks; none when it is empty."""
    return [text[start : start + PIECE_MAX_CHARS] for start in range(0, len(text), PIECE_MAX_CHARS)]


def told_of(usage: Usage, cost_nusd: int | None) -> dict[str, Any]:
    """Members of a usage object that no vendor sends: the cost that a tool reported, and that counts are no report."""
    told: dict[str, Any] = {}
    if usage.quality is not Quality.REPORTED:
        told["quality"] = usage.quality.value
    if cost_nusd is not None:
        told["cost"] = msgspec.Raw(format_usd(cost_nusd).encode())
    return told


def resets_at(failure: Failure) -> dict[str, Any]:
    """When to come back, in epoch seconds, as a member of an error; nothing when nobody knows."""
    return {} if failure.until is None else {"resets_at": math.ceil(failure.until.timestamp())}


def sentence_of(failure: Failure) -> str:
    """What is said of a tool's failure: ours, never the tool's own words."""
    return f"The command-line tool of this provider {_SAID.get(failure.kind, 'failed')}."
