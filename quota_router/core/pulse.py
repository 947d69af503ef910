"""
When a quota endpoint is asked again.

Law: never sooner than its interval after it was last asked, and never sooner than it said itself; chance only adds to a wait.
Never: reads a clock, draws a random number, asks anything.

Decision 2026-11 -- the moment is kept as an instant of the clock, not as a sleep: a laptop that was closed for a night asks when
    it is opened. A clock that is set back far is noticed, and the endpoint is asked then.
Decision 2026-11 -- failures are not written down: a daemon that restarts asks an endpoint that failed at once, but one that had
    answered only when its interval is over. Look again if a vendor blocks for restarts.
"""

from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.readings import CLOCK_SLACK

JITTER = 0.1
"""What chance adds to a wait at most, as a part of the interval: many pollers do not stay in step."""
START_SPREAD_S = 2.0
"""Within what time after they were told of them endpoints are asked first."""
BACKOFF_MAX_S = 3600
"""Doubling ends here; an interval that is longer stays as it is."""

RATE_LIMITED = "rate_limited"
"""The cause of a failure that no edit of ours ends."""


class Pulse(Struct, frozen=True, kw_only=True):
    """How an endpoint has answered lately, and when it is asked next. Moments are aware UTC."""

    since: datetime
    """when `due_at` was worked out"""
    due_at: datetime
    asked_at: datetime | None = None
    heard_at: datetime | None = None
    """when it last told what it was asked for; `None`: never yet"""
    failures: int = 0
    """in a row"""
    cause: str | None = None
    """of the last failure, while it fails"""
    status: int | None = None
    """HTTP status of the last failure; `None`: no answer came, or it was not the status that was wrong"""
    message: str | None = None
    """the same as a sentence, without anything the upstream wrote"""

    def is_due(self, now: datetime) -> bool:
        """Whether to ask now; also when the clock was set back so far that it would be long until then."""
        return self.due_at <= now or now < self.since - CLOCK_SLACK


def begin(now: datetime, *, draw: float) -> Pulse:
    """The pulse of an endpoint that was just made known. *draw*: of 0..1."""
    return Pulse(since=now, due_at=now + timedelta(seconds=START_SPREAD_S * draw))


def hasten(pulse: Pulse, *, interval_s: float, now: datetime) -> Pulse:
    """What is asked was edited: a wait for something that may be mended now ends with the interval."""
    if pulse.cause == RATE_LIMITED:
        return pulse
    soonest = now if pulse.asked_at is None else max(now, pulse.asked_at + timedelta(seconds=interval_s))
    return replace(pulse, since=now, due_at=min(pulse.due_at, soonest))


def put_off(pulse: Pulse, heard_at: datetime, *, interval_s: float, now: datetime, draw: float) -> Pulse:
    """Somebody else has asked, and was told at *heard_at*: another daemon of this ledger, or this one in its last life."""
    return Pulse(since=now, due_at=heard_at + _wait(interval_s, interval_s, draw), asked_at=pulse.asked_at, heard_at=heard_at)


def succeed(*, interval_s: float, now: datetime, draw: float) -> Pulse:
    """It has answered."""
    return Pulse(since=now, due_at=now + _wait(interval_s, interval_s, draw), asked_at=now, heard_at=now)


def fail(
    pulse: Pulse,
    cause: str,
    *,
    interval_s: float,
    now: datetime,
    draw: float,
    until: datetime | None = None,
    status: int | None = None,
    message: str | None = None,
) -> Pulse:
    """
    It has not answered, or not what it was asked for.

    Args:
        pulse: before.
        cause: a word for it.
        interval_s: how often it is asked while all is well.
        now: aware UTC.
        draw: of 0..1.
        until: when it asks us to come back; `None`: it does not say, then waits double.
        status: of its answer.
        message: a sentence for people.
    """
    failures = pulse.failures + 1
    wait_s = interval_s
    if until is None:
        wait_s = max(interval_s, min(interval_s * 2 ** min(failures - 1, 16), BACKOFF_MAX_S))
    due_at = max(now + _wait(wait_s, interval_s, draw), (until or now) + _wait(0, interval_s, draw))
    return Pulse(
        since=now,
        due_at=due_at,
        asked_at=now,
        heard_at=pulse.heard_at,
        failures=failures,
        cause=cause,
        status=status,
        message=message,
    )


def _wait(wait_s: float, interval_s: float, draw: float) -> timedelta:
    """So long, and a bit more by chance."""
    return timedelta(seconds=wait_s + JITTER * interval_s * min(max(draw, 0.0), 1.0))
