"""
Reading failures: what both families' tables share.

Law: a failure that a caller can bring about by what he writes never cools a rung. Messages are matched from their first word,
because vendors quote callers further on.
Never: keeps or returns a vendor's text.

Order of belief: structured code, then the vendor's type, then the message for the statuses that leave it open, then the status
(upstreams.md C.1 and C.2, read 2026-11-20).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.dialects.headers import after, retry_after
from quota_router.dialects.json import text_or_none
from quota_router.dialects.sse import data_of

_SCOPES: dict[FailureKind, Scope] = {
    FailureKind.RATE_LIMITED: Scope.ATTACHMENT,
    FailureKind.QUOTA_WINDOW: Scope.PROVIDER,
    FailureKind.BILLING: Scope.PROVIDER,
    FailureKind.IN_FLIGHT_BUDGET: Scope.PROVIDER,
    FailureKind.AUTH: Scope.PROVIDER,
    FailureKind.OVERLOADED: Scope.ATTACHMENT,
    FailureKind.TRANSIENT: Scope.ATTACHMENT,
    FailureKind.MODEL_UNAVAILABLE: Scope.ATTACHMENT,
}
"""How far a kind reaches; every other kind is the call's own."""

_BY_STATUS: dict[int, FailureKind] = {
    401: FailureKind.AUTH,
    402: FailureKind.BILLING,
    403: FailureKind.AUTH,
    408: FailureKind.TRANSIENT,
    409: FailureKind.TRANSIENT,
    424: FailureKind.TRANSIENT,
    425: FailureKind.TRANSIENT,
    429: FailureKind.RATE_LIMITED,
    499: FailureKind.TRANSIENT,
    503: FailureKind.OVERLOADED,
    529: FailureKind.OVERLOADED,
}
_ABOUT_THE_MODEL = (
    "model",
    "the model",
    "this model",
    "this is not a chat model",
    "the requested model",
    "unknown model",
    "unable to access model",
    "no endpoints found",
    "the api deployment",
    "invalid url",
    "unknown request url",
    "not found",
)
"""First words of a 404 that the operator must mend: model or address. Other 404s name something of the caller's."""
_MS_FROM = 10_000_000_000
"""An epoch at or above this is in milliseconds."""
_NO_EPOCH = 100_000_000_000_000
"""Beyond this it is neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """A message that says more than its status."""

    statuses: frozenset[int]
    starts: str
    """lower case"""
    kind: FailureKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBody:
    """The parts of an error that are classified. Texts are lower case, empty when absent."""

    fields: Mapping[str, Any]
    is_json: bool
    """whether the body held an error of the expected shape"""

    @property
    def message(self) -> str:
        """What it says, in lower case."""
        return self.text("message")

    def text(self, *path: str) -> str:
        """The text at *path*, in lower case; empty when it is absent or no text."""
        value: Any = self.fields
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        return (text_or_none(value) or "").lower()


def read_error(body: bytes) -> ErrorBody:
    """The error object of a body or of an SSE event, wherever the family's vendors put it."""
    payload = body if body.lstrip()[:1] in {b"{", b"["} else data_of(body) or b""
    try:
        found = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):  # Gemini's compatible endpoint wraps it in a list of one
        found = found[0] if found else None
    if not isinstance(found, dict):
        return ErrorBody(fields={}, is_json=False)
    response, choices = found.get("response"), found.get("choices")
    inner = response if isinstance(response, dict) else choices[0] if isinstance(choices, list) and choices else None
    error = found.get("error") or (inner.get("error") if isinstance(inner, dict) else None)
    if isinstance(error, str):
        error = {"message": error}
    if isinstance(error, dict):
        return ErrorBody(fields=error, is_json=True)
    # Flat: `{"type": "error", "code", "message"}` of the Responses API, `{"object": "error", "message"}` of vLLM.
    is_flat = isinstance(found.get("message"), str)
    return ErrorBody(fields=found if is_flat else {}, is_json=is_flat)


def trapped(error: ErrorBody, status: int, traps: tuple[Trap, ...]) -> FailureKind | None:
    """What the message gives away, for a status that leaves it open."""
    message = error.message
    for trap in traps:
        if status in trap.statuses and message.startswith(trap.starts):
            return trap.kind
    return None


def by_status(error: ErrorBody, status: int, headers: Mapping[str, str]) -> tuple[FailureKind, Scope]:
    """What the status alone says."""
    if status == 404:  # noqa: PLR2004 -- the one status read here
        is_operators = not error.is_json or error.message.startswith(_ABOUT_THE_MODEL)
        return scoped(FailureKind.MODEL_UNAVAILABLE if is_operators else FailureKind.CLIENT_ERROR)
    if status == 403 and headers.get("content-type", "").startswith("text/html"):  # noqa: PLR2004 -- likewise
        # A firewall's page: it judged this one call's text, and says nothing of the credential.
        return FailureKind.TRANSIENT, Scope.ATTEMPT
    is_clients = 400 <= status < 500  # noqa: PLR2004 -- RFC 9110's class
    return scoped(_BY_STATUS.get(status, FailureKind.CLIENT_ERROR if is_clients else FailureKind.TRANSIENT))


def scoped(kind: FailureKind) -> tuple[FailureKind, Scope]:
    """A kind with how far it reaches."""
    return kind, _SCOPES.get(kind, Scope.CALL)


def failed(
    verdict: tuple[FailureKind, Scope],
    *,
    status: int,
    headers: Mapping[str, str],
    now: datetime,
    said: datetime | None = None,
) -> Failure:
    """The failure. `said`: when the body says to come back; it is believed before the headers."""
    kind, scope = verdict
    until = (said or retry_after(headers, now)) if kind.moves_on else None
    return Failure(kind=kind, scope=scope, until=until, status=status)


def instant(value: object, now: datetime) -> datetime | None:
    """
    A reset that a body states: epoch seconds, epoch milliseconds, or RFC 3339.

    Returns:
        aware UTC; `None` when it is absent, past, or further away than any window.
    """
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return after((at - now).total_seconds(), now)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _NO_EPOCH:
        return None
    epoch_s = value / 1000 if value >= _MS_FROM else value
    return after(epoch_s - now.timestamp(), now)
