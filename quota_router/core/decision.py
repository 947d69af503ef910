"""
Which rung pays for this call: the first usable one, and why not the others.

Law: `decide` looks at nothing but its arguments; it runs in the write transaction, between reading balances and writing the hold.
Never: waits, writes, or prefers a rung for a reason that the answer does not show.

Decision 2026-11 -- a pause that we only assumed after a breakage (`transient`, `overloaded`) sends calls to other rungs; where
    there is none, the paused rung is tried all the same, until its breaker opens. Else one failed answer of a lone provider would
    refuse every call of the next seconds, and make one failure in fifty an outage. What an upstream said itself is always kept.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec.structs import replace

from quota_router.core.breaker import due_soonest, may_try
from quota_router.core.candidates import (
    ABOUT_QUOTA,
    ABOUT_THE_CALL,
    Candidate,
    Chosen,
    Decision,
    NoneUsable,
    Question,
    Reason,
    Rung,
)
from quota_router.core.health import BREAKER_FAILURES, BREAKS, CooldownSource, Failure
from quota_router.core.judging import refuse, show, standing
from quota_router.core.retries import is_repeatable
from quota_router.core.strategies import arrange

__all__ = [
    "ABOUT_QUOTA",
    "ABOUT_THE_CALL",
    "Candidate",
    "Chosen",
    "Decision",
    "NoneUsable",
    "Question",
    "Reason",
    "Rung",
    "decide",
]

_LASTING = frozenset(
    {
        Reason.DISABLED,
        Reason.PAUSED,
        Reason.NO_CREDENTIAL,
        Reason.PINNED_ELSEWHERE,
        Reason.DIALECT_MISMATCH,
        Reason.CAPABILITY_MISSING,
        Reason.CONTEXT_TOO_SMALL,
    }
)
"""Reasons for which a rung does not count when all breakers of a ladder are asked for."""
_PAUSED = frozenset({Reason.COOLDOWN, Reason.ALREADY_TRIED})


def decide(candidates: Sequence[Candidate], question: Question, now: datetime, turns: Mapping[str, int] | None = None) -> Decision:
    """
    Choose the first usable candidate.

    Args:
        candidates: one per rung, tier after tier.
        question: what the call needs.
        now: aware UTC; decides cooldowns and windows.
        turns: how many calls each model has had, for those whose rungs take turns.

    Returns:
        `Chosen`, or `NoneUsable`; both carry the reason of every rung passed over.
    """
    ordered = arrange(candidates, question, turns or {})
    chosen: Candidate | None = None
    rungs: list[Rung] = []
    for candidate in ordered:
        skipped = refuse(candidate, question, now)
        if skipped is not None:
            rungs.append(skipped)
        elif chosen is None:
            chosen = candidate
            rungs.append(show(candidate, "chosen"))
        else:
            rungs.append(show(candidate, "eligible"))
    if chosen is None:
        chosen = _probe(ordered, rungs, question, now) or _despite_pause(ordered, rungs, question, now)
    if chosen is None:
        return NoneUsable(rungs=tuple(rungs))
    return Chosen(candidate=chosen, rungs=tuple(rungs))


def _probe(ordered: Sequence[Candidate], rungs: list[Rung], question: Question, now: datetime) -> Candidate | None:
    """
    Choose the rung that is due soonest, when every breaker of the ladder is open and nobody probes it yet.

    Its rung becomes the chosen one. A rung whose breaker is not all that speaks against it is not probed.
    """
    counted = [(ordered[place], rung, place) for place, rung in enumerate(rungs) if rung.reason not in _LASTING]
    if not counted or any(not _is_only_open(candidate, rung, question, now) for candidate, rung, _ in counted):
        return None
    open_ones = [(place, standing(candidate, now)) for candidate, _, place in counted]
    due = due_soonest([cooldown for _, cooldown in open_ones], now)
    for place, cooldown in open_ones:
        if due is not None and cooldown is due:
            rungs[place] = replace(show(ordered[place], "chosen"), detail={"probe_of": due.until})
            return ordered[place]
    return None


def _is_only_open(candidate: Candidate, rung: Rung, question: Question, now: datetime) -> bool:
    """Whether nothing but its breaker speaks against a rung; the call whose own row of failures opened it may go on."""
    if candidate.tried is None:
        return rung.against == (Reason.BREAKER_OPEN,)
    cooldown = standing(candidate, now)
    is_just_opened = cooldown is not None and cooldown.strikes == BREAKER_FAILURES
    return rung.against == (Reason.ALREADY_TRIED, Reason.BREAKER_OPEN) and is_just_opened and _may_repeat(candidate.tried, question)


def _despite_pause(ordered: Sequence[Candidate], rungs: list[Rung], question: Question, now: datetime) -> Candidate | None:
    """
    Choose a rung that is only paused, when no other is left: the one due soonest, and one this call has tried itself last.

    A pause that nobody asked us for is a preference for other rungs. It keeps nobody out of the last one; its breaker does.
    """
    places = [
        (candidate.tried is not None, max((cooling.until for cooling in candidate.cooldowns), default=now), place)
        for place, (candidate, rung) in enumerate(zip(ordered, rungs, strict=True))
        if _is_paused(candidate, rung, question, now)
    ]
    if not places:
        return None
    is_repeat, _, place = min(places)
    rungs[place] = replace(show(ordered[place], "chosen"), detail={"repeated": True} if is_repeat else {"despite": Reason.COOLDOWN})
    return ordered[place]


def _is_paused(candidate: Candidate, rung: Rung, question: Question, now: datetime) -> bool:
    """Whether nothing speaks against a rung but that it broke lately."""
    if not _PAUSED.issuperset(rung.against) or (candidate.tried is not None and not _may_repeat(candidate.tried, question)):
        return False
    cooling = [cooldown for cooldown in candidate.cooldowns if not may_try(cooldown, now)]
    return all(cooldown.source is CooldownSource.ASSUMED and cooldown.cause in BREAKS for cooldown in cooling)


def _may_repeat(tried: Failure, question: Question) -> bool:
    return question.repeats > 0 and is_repeatable(tried)
