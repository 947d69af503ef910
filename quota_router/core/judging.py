"""
What speaks against a rung, in the order of `Reason`.

Law: each function of this file looks at its arguments alone, and says with every reason by which numbers it came and when it goes.
Never: prefers one rung to another.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from quota_router.core.breaker import free_at, may_try
from quota_router.core.candidates import Candidate, Question, Reason, Rung
from quota_router.core.catalog import Billing, Family
from quota_router.core.health import Cooldown, Failure, FailureKind
from quota_router.core.holds import amount_held
from quota_router.core.limits import Enforcement, Gauge, Kind, Limit, Unit
from quota_router.core.restraints import restrain

_NEEDS_BOUND = frozenset({Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS})
"""Units of which an attempt without an upper bound could take more than is left."""


_ASK_AT = {
    Family.OPENAI: "The model is served in the openai dialect: ask for it at `/v1/chat/completions` or `/v1/responses`.",
    Family.ANTHROPIC: "The model is served in the anthropic dialect: ask for it at `/v1/messages`.",
}
_PRICELESS = "Nobody knows what it costs: give the model its price, or `unmetered = true` to its attachment."


def refuse(candidate: Candidate, question: Question, now: datetime) -> Rung | None:
    """
    Return the rung with the first reason that speaks against it, or `None`: it is usable.

    It becomes usable when the last of all reasons is gone, which nobody knows if one of them has no end that is known.
    """
    against = [*_lasting(candidate, question, now), *_passing(candidate, now), *_money(candidate, question, now)]
    if not against:
        return None
    moments = [rung.usable_at for rung in against if rung.usable_at is not None]
    usable_at = max(moments) if len(moments) == len(against) else None
    reasons = tuple([rung.reason for rung in against if rung.reason is not None])
    return replace(against[0], usable_at=usable_at, against=reasons)


def _lasting(candidate: Candidate, question: Question, now: datetime) -> Iterator[Rung]:
    """Judge what the operator set and the call asks for, and what this call has tried; a refused key stands among them."""
    provider, cooling = candidate.provider, standing(candidate, now)
    if not (provider.enabled and candidate.attachment.enabled):
        yield _skip(candidate, Reason.DISABLED)
    if provider.paused:
        yield _skip(candidate, Reason.PAUSED)
    if not candidate.has_credential:
        yield _skip(candidate, Reason.NO_CREDENTIAL, {"credential_ref": provider.credential_ref})
    if cooling is not None and cooling.cause is FailureKind.AUTH:
        yield _cooling(candidate, Reason.AUTH_FAILED, cooling, now)
    if question.pinned_provider not in {None, provider.name}:
        yield _skip(candidate, Reason.PINNED_ELSEWHERE, {"pinned": question.pinned_provider})
    if candidate.tried is not None:
        yield _already_tried(candidate, candidate.tried, now)
    if question.family not in {None, provider.family}:
        yield _skip(
            candidate,
            Reason.DIALECT_MISMATCH,
            {"asked": question.family, "answers": provider.family, "remedy": _ASK_AT[provider.family]},
        )
    yield from _unable(candidate, question)


def _unable(candidate: Candidate, question: Question) -> Iterator[Rung]:
    """Judge what the call asks of the rung's model, and of the program that would be told of it."""
    missing = question.requires - candidate.capabilities if question.requires and candidate.capabilities is not None else ()
    if missing:
        yield _skip(candidate, Reason.CAPABILITY_MISSING, {"missing": sorted(missing)})
    if candidate.cannot_be_told:
        yield _skip(candidate, Reason.CAPABILITY_MISSING, {"why": candidate.cannot_be_told})
    context = candidate.context_tokens
    more_than = max(question.least_input_tokens - 1, question.more_context_than or 0)
    if more_than > 0 and (context is None or context <= more_than) and (context is not None or question.more_context_than):
        yield _skip(candidate, Reason.CONTEXT_TOO_SMALL, {"context_tokens": context, "needed": more_than + 1})


def _passing(candidate: Candidate, now: datetime) -> Iterator[Rung]:
    """Judge what earlier failures left behind."""
    cooling = standing(candidate, now)
    if cooling is not None and cooling.cause is not FailureKind.AUTH:
        yield _cooling(candidate, Reason.BREAKER_OPEN if cooling.is_open else Reason.COOLDOWN, cooling, now)


def standing(candidate: Candidate, now: datetime) -> Cooldown | None:
    """Of what keeps a rung from being tried now, the one that does so longest."""
    if not candidate.cooldowns:
        return None
    cooling = [cooldown for cooldown in candidate.cooldowns if not may_try(cooldown, now)]
    return max(cooling, key=lambda cooldown: free_at(cooldown, now), default=None)


def _money(candidate: Candidate, question: Question, now: datetime) -> Iterator[Rung]:
    """Judge quotas, prices, bounds, budgets and places, in this order."""
    if candidate.windows:
        yield from _live(candidate, now)
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


def _live(candidate: Candidate, now: datetime) -> Iterator[Rung]:
    """Judge what upstreams told of the account's windows."""
    restraint = restrain(candidate.windows, candidate.attachment.upstream_model, candidate.caution, now)
    if restraint is not None:
        yield _skip(candidate, Reason(restraint.why.reason), restraint.detail(), usable_at=restraint.usable_at)


def _unjudgeable(candidate: Candidate, question: Question, binding: list[Limit]) -> Iterator[Rung]:
    """Refuse a rung whose cost has no price under a usd limit, or no bound under a cap that must hold: unknown is not zero."""
    priced_limits = [limit.name for limit in binding if limit.unit is Unit.USD]
    if question.max_cost_nusd is not None:
        priced_limits.append("max-cost")
    if priced_limits and not candidate.estimate.is_priced and not candidate.attachment.unmetered:
        yield _skip(candidate, Reason.UNPRICED, {"limit": priced_limits[0], "remedy": _PRICELESS})
    if candidate.estimate.upper is not None:
        return
    is_flat = candidate.provider.billing is Billing.FLAT  # whatever it uses, it asks for no usd
    strict = [limit for limit in binding if limit.enforcement is Enforcement.STRICT and limit.unit in _NEEDS_BOUND]
    caps = [limit.name for limit in strict if not (is_flat and limit.unit is Unit.USD)]
    if question.max_cost_nusd is not None and not is_flat and candidate.estimate.likely.cost_nusd <= question.max_cost_nusd:
        caps.append("max-cost")  # what is likely already goes beyond it is over budget, whatever its bound
    if caps:
        yield _skip(candidate, Reason.UNBOUNDED, {"limit": caps[0], "remedy": candidate.remedy})


def show(candidate: Candidate, status: str) -> Rung:
    """A candidate that nothing speaks against, as a rung."""
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
    cooling = standing(candidate, now)
    usable_at = free_at(cooling, now) if cooling else tried.until
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
