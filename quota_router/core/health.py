"""
Failures of upstreams, and how long a rung is left alone after one.

Law: a cooldown only grows; what the upstream said is believed over what we assume, and is never clamped down to it.
Never: punishes a rung for what the caller did.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

SAID_COOLDOWN_MAX_S = 32 * 24 * 3600
"""A stated wait beyond a month and a day is no wait any vendor's window knows: it is cut there."""
ASSUMED_COOLDOWN_MAX_S = 300
"""Where nothing was said, doubling ends here."""


class FailureKind(StrEnum):
    """What went wrong, read from status, headers and body. The first eight move on to the next rung."""

    RATE_LIMITED = "rate_limited"
    QUOTA_WINDOW = "quota_window"
    BILLING = "billing"
    IN_FLIGHT_BUDGET = "in_flight_budget"
    AUTH = "auth"
    OVERLOADED = "overloaded"
    TRANSIENT = "transient"
    MODEL_UNAVAILABLE = "model_unavailable"
    CONTEXT_TOO_LONG = "context_too_long"
    CONTENT_POLICY = "content_policy"
    CLIENT_ERROR = "client_error"
    CANCELLED = "cancelled"

    @property
    def moves_on(self) -> bool:
        """Whether the next rung may be tried and this one is cooled."""
        return self in _ASSUMED_COOLDOWN_S

    @property
    def is_about_quota(self) -> bool:
        """Whether a call refused for this cause is answered with 429 rather than 503."""
        return self in _ABOUT_QUOTA


class Scope(StrEnum):
    """How far a failure reaches."""

    CALL = "call"
    ATTEMPT = "attempt"
    ATTACHMENT = "attachment"
    PROVIDER = "provider"
    ACCOUNT = "account"


class CooldownSource(StrEnum):
    """Who says until when."""

    SAID = "said"
    ASSUMED = "assumed"


_ASSUMED_COOLDOWN_S: dict[FailureKind, int] = {
    FailureKind.RATE_LIMITED: 30,
    FailureKind.QUOTA_WINDOW: 300,
    FailureKind.BILLING: 900,
    FailureKind.IN_FLIGHT_BUDGET: 5,
    FailureKind.AUTH: 600,
    FailureKind.OVERLOADED: 10,
    FailureKind.TRANSIENT: 5,
    FailureKind.MODEL_UNAVAILABLE: 600,
}
_ABOUT_QUOTA = {
    FailureKind.RATE_LIMITED,
    FailureKind.QUOTA_WINDOW,
    FailureKind.BILLING,
    FailureKind.IN_FLIGHT_BUDGET,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One attempt's failure. `until`: when the upstream asks us to come back, aware UTC, `None` if it does not say."""

    kind: FailureKind
    scope: Scope
    until: datetime | None = None
    status: int | None = None
    """HTTP status; `None`: no answer came"""
    cause: str | None = None
    """what broke when no answer came: `dns`, `refused`, `closed`, `network_refused`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """Do not try this rung before `until`. `model` is empty when the whole provider cools."""

    provider: str
    model: str
    until: datetime
    source: CooldownSource
    cause: FailureKind
    failures: int
    """failures in a row that led here"""


def cool(failure: Failure, *, provider: str, model: str, before: Cooldown | None, now: datetime) -> Cooldown | None:
    """
    The cooldown that follows *failure*.

    Args:
        failure: what happened.
        provider: whose rung it was.
        model: the model asked for; ignored when the failure reaches the whole provider.
        before: the cooldown that stands on the same rung, if any.
        now: aware UTC.

    Returns:
        `None` when the failure is the caller's own and touches no health.
    """
    if not failure.kind.moves_on or failure.scope in {Scope.CALL, Scope.ATTEMPT}:
        return None
    failures = (before.failures if before else 0) + 1
    if failure.until is not None and failure.until >= now:  # a moment in the past says nothing
        until, source = min(failure.until, now + timedelta(seconds=SAID_COOLDOWN_MAX_S)), CooldownSource.SAID
    else:
        base_s = _ASSUMED_COOLDOWN_S[failure.kind]
        wait_s = min(base_s * 2 ** min(failures - 1, 16), max(base_s, ASSUMED_COOLDOWN_MAX_S))
        until, source = now + timedelta(seconds=wait_s), CooldownSource.ASSUMED
    cause = failure.kind
    if before is not None and before.until > until:
        until, source, cause = before.until, before.source, before.cause
    reaches_provider = failure.scope in {Scope.PROVIDER, Scope.ACCOUNT}
    return Cooldown(
        provider=provider,
        model="" if reaches_provider else model,
        until=until,
        source=source,
        cause=cause,
        failures=failures,
    )
