"""
Failures of upstreams, and how long a rung is left alone after one.

Law: a cooldown only grows; what the upstream said is believed over what we assume, and is never clamped down to it. The one
thing that cuts a statement short is the known end of the window it speaks of.
Never: punishes a rung for what the caller did, reads a clock, draws a random number.

Decision 2026-11 -- a stated wait is believed up to 32 days, not up to a day: subscriptions reset weekly and spend limits monthly,
    and a drained account that is offered again each day, hour or minute is the complaint of others (faults.md F21; opencodex
    #3809, jcode #1183, read 2026-11-20). A wait longer than that is nonsense and is not read at all (`dialects/headers`).
Decision 2026-11 -- where nothing was said the wait is drawn between a second and its bound (full jitter, faults.md F20); once the
    breaker is open, between half its bound and all of it, so that "one probe per interval" holds for any draw. Waits that do not
    grow (a bad key, an empty purse) are slow re-probes already and are not shortened. Look again if replicas probe in step.
Decision 2026-11 -- only `transient` and `overloaded` open a breaker. A 429, a 402 or a 401 is the answer of an upstream that is
    up; such an answer neither adds to the failures in a row nor ends them, which only a success does.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

SAID_COOLDOWN_MAX_S = 32 * 24 * 3600
"""A stated wait beyond a month and a day is no wait any vendor's window knows: it is cut there."""
ASSUMED_COOLDOWN_MAX_S = 300
"""Where nothing was said, doubling ends here at the latest."""
ASSUMED_COOLDOWN_MIN_S = 1
"""No draw makes a wait shorter: the next call may not be the next millisecond's."""
BREAKER_FAILURES = 5
"""So many failures in a row are more than a pause (design 1)."""
FORGET_AFTER_S = 24 * 3600
"""Failures that lie a day behind the end of their cooldown are no longer "in a row" with one of today."""


class Action(StrEnum):
    """What becomes of the call after a failure before the first content byte."""

    NEXT_RUNG = "next_rung"
    LONGER_CONTEXT = "longer_context"
    """only a rung with a longer context may be tried; without one the answer is the caller's, byte for byte"""
    PASS = "pass"  # noqa: S105 -- no password
    """the answer is the caller's, byte for byte"""


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
    def action(self) -> Action:
        """What becomes of the call."""
        if self in _ASSUMED_WAITS_S:
            return Action.NEXT_RUNG
        return Action.LONGER_CONTEXT if self is FailureKind.CONTEXT_TOO_LONG else Action.PASS

    @property
    def moves_on(self) -> bool:
        """Whether the next rung may be tried and this one is cooled."""
        return self in _ASSUMED_WAITS_S

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
    """every provider of the account: `reached` names them"""


class CooldownSource(StrEnum):
    """Who says until when."""

    SAID = "said"
    ASSUMED = "assumed"


_ASSUMED_WAITS_S: dict[FailureKind, tuple[int, int]] = {
    FailureKind.RATE_LIMITED: (30, ASSUMED_COOLDOWN_MAX_S),
    FailureKind.QUOTA_WINDOW: (300, 300),
    FailureKind.BILLING: (900, 900),
    FailureKind.IN_FLIGHT_BUDGET: (5, 60),
    FailureKind.AUTH: (600, 600),
    FailureKind.OVERLOADED: (10, 60),
    FailureKind.TRANSIENT: (5, ASSUMED_COOLDOWN_MAX_S),
    FailureKind.MODEL_UNAVAILABLE: (600, 600),
}
"""The first wait where nothing was said, and where doubling ends (upstreams.md C.1, faults.md F22-F24, read 2026-11-20)."""
_ABOUT_QUOTA = {
    FailureKind.RATE_LIMITED,
    FailureKind.QUOTA_WINDOW,
    FailureKind.BILLING,
    FailureKind.IN_FLIGHT_BUDGET,
}
_OF_A_WINDOW = {FailureKind.RATE_LIMITED, FailureKind.QUOTA_WINDOW}
"""What is over when the window is: a purse or a key is not."""
BREAKS = frozenset({FailureKind.TRANSIENT, FailureKind.OVERLOADED})
"""What an upstream that is up does not answer: enough in a row open the breaker; the same request may do better in a moment."""

FORBIDDEN = "network_refused"
"""The cause where our own network policy forbids the address."""
HOPELESS = frozenset({FORBIDDEN, "not_found"})
"""Causes that a moment does not change; the other is that of a program that is not installed."""


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
class Probe:
    """The lease of the one call that may try a rung whose cooldown has ended. The hold that claimed it is its name."""

    hold_id: str
    until: datetime
    """the hold's own end: after a crash the next call may probe"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cooldown:
    """
    Do not try this rung before `until`, and then with one call at a time until one succeeds. `model` is empty when the whole
    provider cools.
    """

    provider: str
    model: str
    until: datetime
    source: CooldownSource
    cause: FailureKind
    failures: int
    """failures in a row that led here, of any kind: they double the wait"""
    strikes: int = 0
    """those among them that open the breaker"""
    probe: Probe | None = None

    @property
    def is_open(self) -> bool:
        """Whether this is a breaker: the upstream is down, not only busy."""
        return self.strikes >= BREAKER_FAILURES

    def probe_at(self, now: datetime) -> Probe | None:
        """The lease that is held at *now*."""
        return self.probe if self.probe is not None and self.probe.until > now else None

    def is_stale(self, now: datetime) -> bool:
        """Whether it may be forgotten: nobody tried the rung for a day after it was free again."""
        return self.probe_at(now) is None and self.until + timedelta(seconds=FORGET_AFTER_S) <= now


def broken(cause: str) -> Failure:
    """
    The failure of an attempt that got no answer, or none that can be read, however it broke.

    A time-out of the caller's own, or his leaving, is no failure of the rung and is never told to this module.
    """
    return Failure(kind=FailureKind.TRANSIENT, scope=Scope.PROVIDER, cause=cause)


def reached(failure: Failure, *, provider: str, model: str, siblings: Iterable[str] = ()) -> tuple[tuple[str, str], ...]:
    """
    Every (provider, model) that a failure cools; model `""` stands for the whole provider.

    Args:
        failure: what happened.
        provider: whose rung it was.
        model: the model asked for.
        siblings: the other providers of its account.

    Returns:
        nothing when the failure is the caller's own, or concerns this call alone.
    """
    if not failure.kind.moves_on:
        return ()
    match failure.scope:
        case Scope.CALL | Scope.ATTEMPT:
            return ()
        case Scope.ATTACHMENT:
            return ((provider, model),)
        case Scope.PROVIDER:
            return ((provider, ""),)
        case Scope.ACCOUNT:
            return ((provider, ""), *((sibling, "") for sibling in siblings if sibling != provider))


def cool(
    failure: Failure,
    *,
    provider: str,
    model: str,
    before: Cooldown | None,
    now: datetime,
    window_end: datetime | None = None,
    jitter: float = 1.0,
    hold_id: str | None = None,
) -> Cooldown | None:
    """
    The cooldown that follows *failure*.

    Args:
        failure: what happened.
        provider: whose rung it was.
        model: the model asked for; ignored when the failure reaches the whole provider.
        before: the cooldown that stands on the same rung, if any.
        now: aware UTC.
        window_end: when the window that is full ends, if a reading or a limit of ours knows it: nothing said or assumed about a
            window reaches beyond. It does not shorten what stands already.
        jitter: a number of 0..1 drawn before; 1 takes the whole of an assumed wait.
        hold_id: whose attempt failed: if it was the probe, its lease ends here.

    Returns:
        `None` when the failure is the caller's own and touches no health.
    """
    touched = reached(failure, provider=provider, model=model)
    if not touched:
        return None
    if before is not None and before.is_stale(now):
        before = None
    failures = (before.failures if before else 0) + 1
    strikes = (before.strikes if before else 0) + (failure.kind in BREAKS)
    if failure.until is not None and failure.until >= now:  # a moment in the past says nothing
        until, source = min(failure.until, now + timedelta(seconds=SAID_COOLDOWN_MAX_S)), CooldownSource.SAID
    else:
        wait_s = _assumed_wait_s(failure.kind, failures, is_open=strikes >= BREAKER_FAILURES, jitter=jitter)
        until, source = now + timedelta(seconds=wait_s), CooldownSource.ASSUMED
    if window_end is not None and window_end >= now and failure.kind in _OF_A_WINDOW:
        until = min(until, window_end)
    cause = failure.kind
    if before is not None and before.until > until:
        until, source, cause = before.until, before.source, before.cause
    return Cooldown(
        provider=provider,
        model=touched[0][1],
        until=until,
        source=source,
        cause=cause,
        failures=failures,
        strikes=strikes,
        probe=before.probe if before is not None and not _is_held_by(before.probe, hold_id) else None,
    )


def _assumed_wait_s(kind: FailureKind, failures: int, *, is_open: bool, jitter: float) -> float:
    first_s, longest_s = _ASSUMED_WAITS_S[kind]
    if first_s == longest_s:
        return first_s
    most_s = min(first_s << min(failures - 1, 16), longest_s)
    least_s = most_s / 2 if is_open else ASSUMED_COOLDOWN_MIN_S
    return least_s + min(max(jitter, 0.0), 1.0) * (most_s - least_s)


def _is_held_by(probe: Probe | None, hold_id: str | None) -> bool:
    return probe is not None and probe.hold_id == hold_id
