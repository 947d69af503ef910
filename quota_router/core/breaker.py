"""
Who may try a rung again: the life of a probe, and of the breaker it closes.

A cooldown ends in one call, not in all that waited for it:

    closed ──failure──> cooling ──time──> due ──claim──> probed ──success──> closed
                           ^                                 │
                           └────────────failure──────────────┘        release, or the lease's end: due again

After `BREAKER_FAILURES` in a row a cooling rung is a breaker that stands open, and a due one is half-open: the same way, told apart
only by `Cooldown.is_open`.

Law: at any moment at most one live lease stands on a rung. Only its own holder's success closes an open breaker.
Never: shortens a cooldown. A call that began before the failure and ends well ends the row of failures, not the wait.

The failure's step is `core/health.cool`. These steps run inside the transaction that reads the cooldown and writes the hold.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from quota_router.core.health import Cooldown, Probe


def may_try(cooldown: Cooldown | None, now: datetime) -> bool:
    """Whether a call may go to this rung now; where a cooldown stands, it has to `claim` the probe first."""
    return cooldown is None or (cooldown.until <= now and cooldown.probe_at(now) is None)


def free_at(cooldown: Cooldown, now: datetime) -> datetime:
    """The soonest moment the rung may be tried, as far as anybody knows: a probe that fails moves it on."""
    probe = cooldown.probe_at(now)
    return cooldown.until if probe is None else max(cooldown.until, probe.until)


def claim(cooldown: Cooldown, *, hold_id: str, until: datetime, now: datetime) -> Cooldown:
    """
    Lease the probe to a hold until *until*, the hold's own end.

    It may come before the cooldown's end: see `due_soonest`. Somebody else's live lease is a programmer error.
    """
    probe = cooldown.probe_at(now)
    assert probe is None or probe.hold_id == hold_id, "one probe at a time"
    return replace(cooldown, probe=Probe(hold_id=hold_id, until=until))


def release(cooldown: Cooldown, hold_id: str) -> Cooldown:
    """
    Give the probe back without a word on the rung: the caller left, or what failed was his own.

    Anybody else's release changes nothing.
    """
    is_holder = cooldown.probe is not None and cooldown.probe.hold_id == hold_id
    return replace(cooldown, probe=None) if is_holder else cooldown


def on_success(cooldown: Cooldown, *, hold_id: str, now: datetime) -> Cooldown | None:
    """
    What is left of a cooldown when an attempt succeeds on its rung.

    Returns:
        `None` when it is over and may be forgotten. While time stands on it, it stays and only the row of failures ends; an open
        breaker is closed by its probe alone, or by anyone once it is due and nobody holds the lease.
    """
    probe = cooldown.probe_at(now)
    is_probe = cooldown.probe is not None and cooldown.probe.hold_id == hold_id
    is_due = cooldown.until <= now
    if cooldown.is_open and not is_probe and (probe is not None or not is_due):
        return cooldown
    if is_due:
        return None
    return replace(cooldown, failures=0, strikes=0, probe=None if is_probe else cooldown.probe)


def due_soonest(cooldowns: Iterable[Cooldown | None], now: datetime) -> Cooldown | None:
    """
    Which rung of a ladder one call may probe before its time, because every breaker of the ladder is open (design 7).

    Args:
        cooldowns: what stands on each rung; `None`: nothing does.
        now: aware UTC.

    Returns:
        `None` when a rung may be tried anyway, is only cooling, or somebody probes this ladder already: the others are refused.
    """
    standing = list(cooldowns)
    closed = [rung for rung in standing if rung is None or rung.until <= now or not rung.is_open]
    probed = [rung for rung in standing if rung is not None and rung.probe_at(now) is not None]
    if closed or probed:
        return None
    return min((rung for rung in standing if rung is not None), key=lambda rung: rung.until, default=None)
