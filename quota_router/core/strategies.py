"""
How the rungs of one tier are ordered.

Law: a strategy moves rungs inside their tier only; the next tier is tried when this one is exhausted. The same numbers give the
same order.
Never: leaves a rung out, or draws a random number.

    priority        as they are written
    round_robin     each in turn
    weighted        drawn by weight           random: all alike
    least_used      the smallest used share first, those that are alike in turn
    soonest_reset   whose longest window ends first: what is not used by then is lost
    cheapest        by what the call will likely cost
    fastest         by how fast each answered lately

What is unknown of a rung speaks neither for nor against it: one whose use is unknown takes turns with the least used, an unknown
price comes last, and so does a reset that a rung has not told; an unknown speed comes first, and so does the reset of an account
that was never used, so that they get known.

Decision 2026-11 -- a session stays where its prompt cache is warm: its home goes first in its tier, whatever the strategy, and
    where it was a guest last goes second. Those that spread calls on purpose (`round_robin`, `weighted`, `random`) heed only a
    session that the caller named. A call that a home drew takes nobody's turn: else each of many sessions of three calls would
    begin at the same one of three rungs.
Decision 2026-11 -- `soonest_reset` looks at the longest window that an account has, not at the one that binds now: short windows
    come again soon, and a week that ends unused is gone. Look again when accounts have windows that do not nest.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, assert_never

from quota_router.core.affinity import Home
from quota_router.core.candidates import Candidate, Question
from quota_router.core.catalog import Strategy
from quota_router.core.headroom import Headroom, binding
from quota_router.core.limits import Kind
from quota_router.core.live_windows import window_length
from quota_router.core.readings import PPM

_OLD_USE_PPM = PPM // 2
"""Old news is no comfort: at least so much is used by now."""
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_64_BITS = 1 << 64
_SPREADING = frozenset({Strategy.ROUND_ROBIN, Strategy.WEIGHTED, Strategy.RANDOM})


def arrange(candidates: Sequence[Candidate], question: Question, turns: Mapping[str, int]) -> Sequence[Candidate]:
    """
    Order the rungs of each tier by its strategy.

    Args:
        candidates: tier after tier, each as it is written.
        question: has the session's home, and a random number for those strategies that draw.
        turns: how many calls each model has had.
    """
    if question.home is None and all(candidate.strategy is Strategy.PRIORITY for candidate in candidates):
        return candidates  # the way of almost every call
    return [rung for tier in _tiers(candidates) for rung in _order(tier, question, turns)]


def used_ppm(candidate: Candidate) -> int | None:
    """The used share of what binds a candidate: its account's live windows and its own quotas; `None`: nothing is known."""
    live = binding(candidate.windows, candidate.attachment.upstream_model)
    shares = [
        (gauge.posted + gauge.held) * PPM // gauge.limit.limit
        for gauge in candidate.gauges
        if gauge.limit.kind is Kind.QUOTA and gauge.limit.limit > 0
    ]
    if live is not None and live.share_used_ppm is not None:
        shares.append(max(live.share_used_ppm, _OLD_USE_PPM) if live.is_stale else live.share_used_ppm)
    return max(shares, default=None)


def home_heeded(strategy: Strategy, question: Question) -> Home | None:
    """Where the call's session is warm, if its strategy looks at that."""
    home = question.home
    return None if home is None or (strategy in _SPREADING and not home.is_explicit) else home


def _tiers(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    for _, tier in groupby(candidates, key=lambda rung: (rung.attachment.model, rung.attachment.priority, rung.way)):
        yield list(tier)


def _order(tier: list[Candidate], question: Question, turns: Mapping[str, int]) -> list[Candidate]:
    if len(tier) == 1:
        return tier
    ordered = _by_strategy(tier[0].strategy, tier, question.draw, turns.get(tier[0].attachment.model, 0))
    home = home_heeded(tier[0].strategy, question)
    if home is None:
        return ordered
    warm = {home.guest_at: 1, home.provider: 0}
    return sorted(ordered, key=lambda candidate: warm.get(candidate.attachment.provider, len(warm)))


def _by_strategy(strategy: Strategy, tier: list[Candidate], draw: int, turn: int) -> list[Candidate]:
    match strategy:
        case Strategy.PRIORITY:
            return tier
        case Strategy.ROUND_ROBIN:
            return _in_turn(tier, turn)
        case Strategy.WEIGHTED:
            return _drawn(tier, draw, lambda candidate: candidate.attachment.weight)
        case Strategy.RANDOM:
            return _drawn(tier, draw, lambda _: 1)
        case Strategy.LEAST_USED:
            return _least_used(_in_turn(tier, turn))
        case Strategy.SOONEST_RESET | Strategy.CHEAPEST | Strategy.FASTEST:
            return sorted(tier, key=_KEYS[strategy])
        case _:
            assert_never(strategy)


def _in_turn(tier: list[Candidate], turn: int) -> list[Candidate]:
    """Begin a tier one later with each turn."""
    first = turn % len(tier)
    return tier[first:] + tier[:first]


def _drawn(tier: list[Candidate], draw: int, weight_of: Callable[[Candidate], int]) -> list[Candidate]:
    """
    Draw all of a tier, one after the other, each with a chance in proportion to its weight.

    By sorting u^(1/weight) with one u for each rung: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    """

    def key(place: int) -> float:
        u = (_mixed(draw + place * 0x9E3779B97F4A7C15) + 1) / (_64_BITS + 1)
        return -math.log(u) / weight_of(tier[place])

    return [tier[place] for place in sorted(range(len(tier)), key=key)]


def _mixed(number: int) -> int:
    """Spread one 64-bit number over all of them: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = number % _64_BITS
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % _64_BITS
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % _64_BITS
    return mixed ^ (mixed >> 31)


def _least_used(tier: list[Candidate]) -> list[Candidate]:
    """
    The smallest used share first; those that are alike as they stand.

    Decision 2026-11 -- an unknown use is as small as the smallest that is known, against half of the whole: new accounts would not
        be asked before the others are half used, and nobody would learn how they stand.
    """
    used = [used_ppm(candidate) for candidate in tier]
    least = min((share for share in used if share is not None), default=0)
    order = sorted(range(len(tier)), key=lambda place: least if (share := used[place]) is None else share)
    return [tier[place] for place in order]


def _reset(candidate: Candidate) -> datetime:
    """When the longest window of a candidate ends. Of a new one nobody knows: it is asked, to find out."""
    ends = [
        (_length(found), found.reading.resets_at)
        for found in candidate.windows
        if found.reading.resets_at is not None and not found.reading.is_extra and not found.reading.refills
    ]
    own = [
        (gauge.window_end - gauge.window_start, gauge.window_end)
        for gauge in candidate.gauges
        if gauge.limit.kind is Kind.QUOTA and gauge.window_end is not None
    ]
    if ends or own:
        return max(ends + own, key=lambda end: end[0])[1]
    return _FIRST if candidate.is_new else _LAST


def _length(found: Headroom) -> timedelta:
    return window_length(found.reading.window) or timedelta(0)


def _cost(candidate: Candidate) -> tuple[bool, int]:
    return not candidate.estimate.is_priced, candidate.estimate.likely.cost_nusd


_KEYS: Mapping[Strategy, Callable[[Candidate], Any]] = {
    Strategy.SOONEST_RESET: _reset,
    Strategy.CHEAPEST: _cost,
    Strategy.FASTEST: lambda candidate: candidate.latency_ms or 0,
}
