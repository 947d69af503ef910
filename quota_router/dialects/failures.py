"""
Reading failures: what both families' tables share.

Law: a failure that a caller can bring about by what he writes never cools a rung.
Never: keeps or returns a vendor's text.

Order of belief: structured code, then messages known to say more than their type (`dialects/traps`), then the vendor's type, then
the status (upstreams.md C.1 and C.2, read 2026-11-20). Times: those in the body's fields, then headers, then the message's words.

Decision 2026-11 -- words stand before the type, because the types they contradict only repeat the status (`api_error`,
    `permission_error`, `rate_limit_error`). Look again if a vendor begins a message with what the caller wrote.
Decision 2026-11 -- a wait in words ("try again in 9m38s") is a statement like a header's: OpenAI, Groq, Azure and LiteLLM often
    send nothing else. A clock time in words is read only where the vendor, and so its zone, is known.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from quota_router.core.health import Failure, FailureKind, Scope
from quota_router.dialects.error_bodies import ErrorBody
from quota_router.dialects.headers import after, retry_after
from quota_router.dialects.traps import Row

Verdict = tuple[FailureKind, Scope]

_SCOPES: dict[FailureKind, Scope] = {
    FailureKind.RATE_LIMITED: Scope.ATTACHMENT,
    FailureKind.QUOTA_WINDOW: Scope.ACCOUNT,
    FailureKind.BILLING: Scope.ACCOUNT,
    FailureKind.IN_FLIGHT_BUDGET: Scope.ACCOUNT,
    FailureKind.AUTH: Scope.PROVIDER,
    FailureKind.OVERLOADED: Scope.ATTACHMENT,
    FailureKind.TRANSIENT: Scope.ATTACHMENT,
    FailureKind.MODEL_UNAVAILABLE: Scope.ATTACHMENT,
}
"""How far a kind reaches where nothing closer is known: windows and money are the account's, a key is the provider's. Every other
kind is the call's own."""

_BY_STATUS: dict[int, Row] = {
    401: FailureKind.AUTH,
    402: FailureKind.BILLING,
    403: FailureKind.AUTH,
    408: FailureKind.TRANSIENT,
    409: FailureKind.TRANSIENT,
    424: FailureKind.TRANSIENT,
    425: FailureKind.TRANSIENT,
    429: FailureKind.RATE_LIMITED,
    498: FailureKind.OVERLOADED,  # Groq: the flex tier is full (console.groq.com/docs/errors, read 2026-11-25)
    499: FailureKind.TRANSIENT,
    501: (FailureKind.MODEL_UNAVAILABLE, Scope.CALL),  # this server cannot do what this call asks of it
    503: FailureKind.OVERLOADED,
    529: FailureKind.OVERLOADED,
}

GATEWAY_TYPES: dict[str, Row] = {
    "budget_exceeded": (FailureKind.BILLING, Scope.PROVIDER),
    "key_model_access_denied": FailureKind.MODEL_UNAVAILABLE,
    "team_model_access_denied": FailureKind.MODEL_UNAVAILABLE,
    "contextwindowexceedederror": FailureKind.CONTEXT_TOO_LONG,
    "contentpolicyviolationerror": FailureKind.CONTENT_POLICY,
    "budgetexceedederror": (FailureKind.BILLING, Scope.PROVIDER),
}
"""LiteLLM's proxy says these in both dialects: `error.type`, and the class that it writes before another's words."""

_ABOUT_THE_MODEL = (
    "model",
    "the model",
    "this model",
    "this is not a chat model",
    "the requested model",
    "unknown model",
    "unable to access model",
    "no endpoints",
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

_SPAN = r"\d{1,9}(?:\.\d{1,12})?\s?(?:ms|h(?:ours?)?|m(?:in(?:utes?)?)?|s(?:ec(?:onds?)?)?|d(?:ays?)?)(?![a-z])"
_WAIT = re.compile(rf"\b(?:try again|retry) (?:in|after) (?:about )?((?:{_SPAN}\s?)+)")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|[hmsd])")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TELLS_WAIT_IN_WORDS = {FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.QUOTA_WINDOW}


def by_status(error: ErrorBody, status: int, headers: Mapping[str, str]) -> Verdict:
    """What the status alone says."""
    if status == 404:  # noqa: PLR2004 -- the one status read here
        is_operators = not error.is_json or error.message.startswith(_ABOUT_THE_MODEL)
        return scoped(FailureKind.MODEL_UNAVAILABLE if is_operators else FailureKind.CLIENT_ERROR)
    if status == 403 and headers.get("content-type", "").startswith("text/html"):  # noqa: PLR2004 -- likewise
        # A firewall's page: it judged this one call's text, and says nothing of the credential.
        return FailureKind.TRANSIENT, Scope.ATTEMPT
    is_clients = 400 <= status < 500  # noqa: PLR2004 -- RFC 9110's class
    return scoped(_BY_STATUS.get(status, FailureKind.CLIENT_ERROR if is_clients else FailureKind.TRANSIENT))


def scoped(row: Row) -> Verdict:
    """A row with how far it reaches."""
    return row if isinstance(row, tuple) else (row, _SCOPES.get(row, Scope.CALL))


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with their names in lower case: callers of the decision plane send them as they please."""
    return {name.lower(): value for name, value in headers.items()}


def failed(
    verdict: Verdict,
    error: ErrorBody,
    *,
    status: int,
    headers: Mapping[str, str],
    now: datetime,
    said: datetime | None = None,
) -> Failure:
    """The failure. `said`: when fields of the body say to come back; they are believed before headers, and those before words."""
    kind, scope = verdict
    until = said or retry_after(headers, now) or _in_words(kind, error, now)
    return Failure(kind=kind, scope=scope, until=until if kind.moves_on else None, status=status)


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


def seconds_of(value: object) -> float | None:
    """A number of seconds, or a duration as Google and Go print it (`38.2s`, `1h2m3.5s`); `None` when it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    parts = _PART.findall(value) if isinstance(value, str) else []
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else None


def soonest(*moments: datetime | None) -> datetime | None:
    """The first of the moments that are known."""
    return min((moment for moment in moments if moment is not None), default=None)


def month_after(now: datetime) -> datetime:
    """00:00 UTC on the 1st."""
    return (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=31)).replace(day=1)


def _in_words(kind: FailureKind, error: ErrorBody, now: datetime) -> datetime | None:
    """OpenAI, Groq and Azure may name the wait in the message alone; so do Codex's own clients read it."""
    found = _WAIT.search(error.message) if kind in _TELLS_WAIT_IN_WORDS else None
    seconds = seconds_of(found[1]) if found is not None else None
    return after(seconds, now) if seconds is not None else None
