"""
What an attempt teaches: how its rung is doing, what its answers use, how fast they are.

Law: a failure cools every rung it reaches, by `core/health` alone; a success ends what it may end, by `core/breaker` alone; an
attempt that says nothing of the rung gives its probe back. Only reported usage teaches an estimate.
Never: moves money, or waits; it runs inside a job of the lane.
"""

import math
from datetime import datetime

from quota_router.core.breaker import claim, on_success, release
from quota_router.core.estimates import Learned
from quota_router.core.headroom import binding
from quota_router.core.health import Cooldown, Failure, cool, reached
from quota_router.core.holds import Hold, Outcome, Settlement
from quota_router.core.limits import Kind
from quota_router.core.usage import Quality
from quota_router.store.state import State

LATENCY_MEMORY = 8
"""The last so many answers make most of what a rung's speed is taken for."""


def learn(state: State, now: datetime, hold: Hold, settlement: Settlement) -> None:
    """Take in how an attempt ended."""
    failure = settlement.failure
    touched: tuple[tuple[str, str], ...] = ()
    if failure is not None:
        siblings = [name for name, provider in state.catalog.providers.items() if provider.account == hold.account]
        touched = reached(failure, provider=hold.provider, model=hold.model, siblings=siblings)
        for provider, model in touched:
            _cool(state, now, (provider, model), failure, hold, settlement.jitter)
    for cooldown in state.cooldowns_of(hold.provider, hold.model):
        if (cooldown.provider, cooldown.model) in touched:
            continue
        is_success = settlement.outcome is Outcome.OK
        left = on_success(cooldown, hold_id=hold.id, now=now) if is_success else release(cooldown, hold.id)
        if left is None:
            state.end_cooldown(cooldown.provider, cooldown.model)
        elif left is not cooldown:
            state.set_cooldown(left)
    if settlement.outcome is Outcome.OK and settlement.first_byte_ms is not None:
        key = (hold.model, hold.provider)
        before_ms = state.latencies.get(key, settlement.first_byte_ms)
        state.latencies[key] = (before_ms * (LATENCY_MEMORY - 1) + settlement.first_byte_ms) // LATENCY_MEMORY
    usage = settlement.usage
    if settlement.body_bytes and usage is not None and usage.quality is Quality.REPORTED:
        key = (hold.model, hold.provider)
        state.teach(key, state.learned.get(key, Learned()).add(settlement.body_bytes, usage))


def claim_probes(state: State, now: datetime, hold: Hold) -> None:
    """Let a hold on a rung whose cooldown has ended be its one probe, until it is resolved or over."""
    for cooldown in state.cooldowns_of(hold.provider, hold.model):
        if cooldown.probe_at(now) is None:  # else the hold was taken despite it, because no other rung is left
            state.set_cooldown(claim(cooldown, hold_id=hold.id, until=hold.expires_at, now=now))


def _window_end(state: State, now: datetime, hold: Hold) -> datetime | None:
    """
    When the window of the hold's account ends that binds most; `None`: none is known.

    A bucket has no end: it tells when it will be full again, which is soon, whatever the refusal was about.
    """
    told = state.headrooms(hold.account, None, now, math.inf)
    live = binding([found for found in told if not found.reading.refills], hold.upstream_model)
    if live is not None:
        return live.reading.resets_at
    quotas = [limit for limit in state.catalog.limits_of(hold.subjects) if limit.kind is Kind.QUOTA]
    ends = [gauge.window_end for gauge in (state.gauge(limit, now) for limit in quotas) if not gauge.opens]
    return min((end for end in ends if end is not None), default=None)


def _cool(state: State, now: datetime, key: tuple[str, str], failure: Failure, hold: Hold, jitter: float) -> None:
    provider, model = key
    cooldown: Cooldown | None = cool(
        failure,
        provider=provider,
        model=model or hold.model,
        before=state.cooldowns.get(key),
        now=now,
        window_end=_window_end(state, now, hold),
        jitter=jitter,
        hold_id=hold.id,
    )
    if cooldown is not None:
        state.set_cooldown(cooldown)
