"""
Which rung pays for this call: the first usable one, and why not the others.

Law: `decide` looks at nothing but its arguments; it runs in the write transaction, between reading balances and writing the hold.
Every rung passed over carries exactly one reason, the first of the list in `Reason`, with the numbers it was judged by.
Never: waits, writes, or prefers a rung for a reason that the answer does not show.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.breaker import free_at, may_try
from quota_router.core.catalog import Attachment, Billing, Family, Provider
from quota_router.core.estimates import Estimate
from quota_router.core.health import Cooldown, Failure, FailureKind
from quota_router.core.holds import amount_held
from quota_router.core.limits import Enforcement, Gauge, Kind, Limit, Unit
from quota_router.core.pricing import PriceTable


class Reason(StrEnum):
    """Why a rung was passed over, in the order of judging."""

    DISABLED = "disabled"
    PAUSED = "paused"
    NO_CREDENTIAL = "no_credential"
    AUTH_FAILED = "auth_failed"
    CALLER_NOT_ALLOWED = "caller_not_allowed"
    PINNED_ELSEWHERE = "pinned_elsewhere"
    ALREADY_TRIED = "already_tried"
    DIALECT_MISMATCH = "dialect_mismatch"
    CAPABILITY_MISSING = "capability_missing"
    CONTEXT_TOO_SMALL = "context_too_small"
    NETWORK_REFUSED = "network_refused"
    COOLDOWN = "cooldown"
    BREAKER_OPEN = "breaker_open"
    QUOTA_EXHAUSTED = "quota_exhausted"
    QUOTA_RESERVED = "quota_reserved"
    UNPRICED = "unpriced"
    UNBOUNDED = "unbounded"
    OVER_BUDGET = "over_budget"
    CONCURRENCY_FULL = "concurrency_full"


ABOUT_THE_CALL = {
    Reason.DIALECT_MISMATCH,
    Reason.CAPABILITY_MISSING,
    Reason.CONTEXT_TOO_SMALL,
    Reason.PINNED_ELSEWHERE,
    Reason.UNBOUNDED,
}
ABOUT_QUOTA = {Reason.QUOTA_EXHAUSTED, Reason.QUOTA_RESERVED, Reason.OVER_BUDGET, Reason.CONCURRENCY_FULL}


_NEEDS_BOUND = frozenset({Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS})
"""Units of which an attempt without an upper bound could take more than is left."""


class Question(Struct, frozen=True, kw_only=True):
    """What the call needs, for judging a rung."""

    family: Family | None
    """the dialect the caller speaks; `None`: any, the caller makes the call itself"""
    pinned_provider: str | None = None
    max_cost_nusd: int | None = None
    """the caller's own cap on this call"""


class Candidate(Struct, frozen=True, kw_only=True):
    """One rung, and everything that may be looked at to judge it."""

    attachment: Attachment
    provider: Provider
    has_credential: bool
    estimate: Estimate
    price: PriceTable | None = None
    """what its tokens cost; `None`: nobody knows"""
    subjects: tuple[str, ...] = ()
    """everything whose limits would count it"""
    tried: Failure | None = None
    """how this call's own attempt on it failed"""
    cooldowns: tuple[Cooldown, ...] = ()
    """its own, and its whole provider's"""
    gauges: tuple[Gauge, ...] = ()
    """every limit that would count it, with what is left at this moment"""


class Rung(Struct, frozen=True, kw_only=True):
    """What became of one candidate: chosen, skipped for a reason, or eligible had it been reached."""

    provider: str
    model: str
    upstream_model: str
    priority: int
    status: str
    reason: Reason | None = None
    detail: Mapping[str, Any] = {}
    usable_at: datetime | None = None
    cause: FailureKind | None = None
    """behind a cooldown, or of this call's own attempt"""


class Chosen(Struct, frozen=True, kw_only=True):
    """This rung pays."""

    candidate: Candidate
    rungs: tuple[Rung, ...]


class NoneUsable(Struct, frozen=True, kw_only=True):
    """Nobody can pay now. `rungs` says why, each with the moment it becomes usable if that is known."""

    rungs: tuple[Rung, ...]


Decision = Chosen | NoneUsable


def decide(candidates: Iterable[Candidate], question: Question, now: datetime) -> Decision:
    """
    Choose the first usable candidate.

    Args:
        candidates: one per rung, in the order to be tried.
        question: what the call needs.
        now: aware UTC; decides cooldowns.

    Returns:
        `Chosen`, or `NoneUsable`; both carry the reason of every rung passed over.
    """
    chosen: Candidate | None = None
    rungs = []
    for candidate in candidates:
        skipped = _refuse(candidate, question, now)
        if skipped is not None:
            rungs.append(skipped)
        elif chosen is None:
            chosen = candidate
            rungs.append(_rung(candidate, "chosen"))
        else:
            rungs.append(_rung(candidate, "eligible"))
    if chosen is None:
        return NoneUsable(rungs=tuple(rungs))
    return Chosen(candidate=chosen, rungs=tuple(rungs))


def _refuse(candidate: Candidate, question: Question, now: datetime) -> Rung | None:
    """
    Return the rung with the first reason that speaks against it, or `None`: it is usable.

    It becomes usable when the last of all reasons is gone, which nobody knows if one of them has no end that is known.
    """
    against = [*_lasting(candidate, question, now), *_passing(candidate, now), *_money(candidate, question)]
    if not against:
        return None
    moments = [rung.usable_at for rung in against if rung.usable_at is not None]
    return replace(against[0], usable_at=max(moments) if len(moments) == len(against) else None)


def _lasting(candidate: Candidate, question: Question, now: datetime) -> Iterator[Rung]:
    """Judge what the operator set and the call asks for, and what this call has tried; a refused key stands among them."""
    provider, standing = candidate.provider, _standing(candidate, now)
    if not (provider.enabled and candidate.attachment.enabled):
        yield _skip(candidate, Reason.DISABLED)
    if provider.paused:
        yield _skip(candidate, Reason.PAUSED)
    if not candidate.has_credential:
        yield _skip(candidate, Reason.NO_CREDENTIAL, {"credential_ref": provider.credential_ref})
    if standing is not None and standing.cause is FailureKind.AUTH:
        yield _cooling(candidate, Reason.AUTH_FAILED, standing, now)
    if question.pinned_provider not in {None, provider.name}:
        yield _skip(candidate, Reason.PINNED_ELSEWHERE, {"pinned": question.pinned_provider})
    if candidate.tried is not None:
        yield _already_tried(candidate, candidate.tried, now)
    if question.family not in {None, provider.family}:
        yield _skip(candidate, Reason.DIALECT_MISMATCH, {"asked": question.family, "answers": provider.family})


def _passing(candidate: Candidate, now: datetime) -> Iterator[Rung]:
    """Judge what earlier failures left behind."""
    standing = _standing(candidate, now)
    if standing is not None and standing.cause is not FailureKind.AUTH:
        yield _cooling(candidate, Reason.BREAKER_OPEN if standing.is_open else Reason.COOLDOWN, standing, now)


def _standing(candidate: Candidate, now: datetime) -> Cooldown | None:
    """Of what keeps a rung from being tried now, the one that does so longest."""
    if not candidate.cooldowns:
        return None
    standing = [cooldown for cooldown in candidate.cooldowns if not may_try(cooldown, now)]
    return max(standing, key=lambda cooldown: free_at(cooldown, now), default=None)


def _money(candidate: Candidate, question: Question) -> Iterator[Rung]:
    """Judge quotas, prices, bounds, budgets and places, in this order."""
    if not candidate.gauges and question.max_cost_nusd is None:
        return
    binding = [gauge for gauge in candidate.gauges if gauge.limit.enforcement is not Enforcement.ADVISORY]
    full = [gauge for gauge in binding if not gauge.fits(amount_held(gauge.limit, candidate.estimate))]
    estimate = candidate.estimate
    is_certain = estimate.is_priced and estimate.upper is not None
    if is_certain and not full and question.max_cost_nusd is None:
        return
    counted = [gauge for gauge in full if gauge.limit.unit is not Unit.CONCURRENCY]
    quotas = [gauge for gauge in counted if gauge.limit.kind is Kind.QUOTA]
    if quotas:
        yield _full(candidate, Reason.QUOTA_EXHAUSTED, quotas)
    yield from _unjudgeable(candidate, question, [gauge.limit for gauge in binding])
    budgets = [gauge for gauge in counted if gauge.limit.kind is Kind.BUDGET]
    if budgets:
        yield _full(candidate, Reason.OVER_BUDGET, budgets)
    asked_nusd = estimate.most.cost_nusd
    if question.max_cost_nusd is not None and asked_nusd > question.max_cost_nusd:
        yield _skip(candidate, Reason.OVER_BUDGET, {"limit": "max-cost", "left": question.max_cost_nusd, "needed": asked_nusd})
    if len(full) > len(counted):
        yield _full(candidate, Reason.CONCURRENCY_FULL, [gauge for gauge in full if gauge.limit.unit is Unit.CONCURRENCY])


def _unjudgeable(candidate: Candidate, question: Question, binding: list[Limit]) -> Iterator[Rung]:
    """Refuse a rung whose cost has no price under a usd limit, or no bound under a strict one: unknown is not zero."""
    priced_limits = [limit.name for limit in binding if limit.unit is Unit.USD]
    if question.max_cost_nusd is not None:
        priced_limits.append("max-cost")
    if priced_limits and not candidate.estimate.is_priced and not candidate.attachment.unmetered:
        yield _skip(candidate, Reason.UNPRICED, {"limit": priced_limits[0]})
    strict = [limit for limit in binding if limit.enforcement is Enforcement.STRICT and limit.unit in _NEEDS_BOUND]
    if candidate.provider.billing is Billing.FLAT:  # whatever it uses, it asks for no usd
        strict = [limit for limit in strict if limit.unit is not Unit.USD]
    if strict and candidate.estimate.upper is None:
        remedy = "send max_tokens, or set max_output_tokens and context_tokens on the model; hosted tools have no bound"
        yield _skip(candidate, Reason.UNBOUNDED, {"limit": strict[0].name, "remedy": remedy})


def _rung(candidate: Candidate, status: str) -> Rung:
    attachment = candidate.attachment
    return Rung(
        provider=attachment.provider,
        model=attachment.model,
        upstream_model=attachment.upstream_model,
        priority=attachment.priority,
        status=status,
    )


def _skip(
    candidate: Candidate,
    reason: Reason,
    detail: Mapping[str, Any] | None = None,
    *,
    usable_at: datetime | None = None,
    cause: FailureKind | None = None,
) -> Rung:
    attachment = candidate.attachment
    return Rung(
        provider=attachment.provider,
        model=attachment.model,
        upstream_model=attachment.upstream_model,
        priority=attachment.priority,
        status="skipped",
        reason=reason,
        detail=detail or {},
        usable_at=usable_at,
        cause=cause,
    )


def _already_tried(candidate: Candidate, tried: Failure, now: datetime) -> Rung:
    """Say how the call's own attempt failed; it is usable again when the cooldown that it left ends."""
    standing = _standing(candidate, now)
    usable_at = free_at(standing, now) if standing else tried.until
    detail = {"failure": tried.kind, "status": tried.status, "cause": tried.cause}
    return _skip(candidate, Reason.ALREADY_TRIED, detail, usable_at=usable_at, cause=tried.kind)


def _cooling(candidate: Candidate, reason: Reason, cooldown: Cooldown, now: datetime) -> Rung:
    detail = {"until": cooldown.until, "source": cooldown.source, "cause": cooldown.cause}
    if cooldown.probe_at(now) is not None:
        detail["probing"] = True
    return _skip(candidate, reason, detail, usable_at=free_at(cooldown, now), cause=cooldown.cause)


def _full(candidate: Candidate, reason: Reason, full: list[Gauge]) -> Rung:
    """
    Name the limit that binds, the one with the least left, and when the last of the full ones gives way.

    Nobody knows when a `concurrency` limit does: some call has to end first. One too small for the call never does.
    """
    binding = min(full, key=lambda gauge: gauge.remaining)
    reliefs = [gauge.relief_at for gauge in full if amount_held(gauge.limit, candidate.estimate) <= gauge.limit.limit]
    known = [moment for moment in reliefs if moment is not None]
    detail = {
        "limit": binding.limit.name,
        "unit": binding.limit.unit,
        "cap": binding.limit.limit,
        "posted": binding.posted,
        "held": binding.held,
        "needed": amount_held(binding.limit, candidate.estimate),
    }
    return _skip(candidate, reason, detail, usable_at=max(known) if len(known) == len(full) else None)
