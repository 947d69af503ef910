"""
Trying the same rung again within a call.

Law: one layer of it in the whole system, here, before the first content byte; never while another rung is usable, and never where
the upstream said when to come back: then the caller is told.
Never: waits, counts, or draws.

A call repeats a rung that broke (`transient`, `overloaded`) when it is the only one that can serve it: `lone` times at most, or
`member` times when it has tried several. All calls together repeat within a budget, so that a bad minute is not made worse.
"""

from dataclasses import dataclass

from quota_router.core.health import BREAKS, HOPELESS, Failure

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
BUDGET_SHARE = 0.2
"""Of the calls under way, so many may repeat at a time: what repeating adds is bounded by what there is."""
BUDGET_LEAST = 3
"""A single user's few calls may all repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a call tries a rung again that failed."""

    lone: int
    """the only rung it could try, or one it is pinned to"""
    member: int
    """one of several: low, so that a limited provider fails fast to the next"""

    def left(self, attempts: int, tried: int) -> int:
        """
        How often a call may still repeat.

        Args:
            attempts: it has made.
            tried: on so many rungs.
        """
        allowed = self.lone if tried <= 1 else self.member
        return max(0, allowed - (attempts - tried))


def is_repeatable(failure: Failure) -> bool:
    """Whether the same request may do better on the same rung in a moment. What our own policy forbids stays
    forbidden, and a program that is not there will not be.
    """
    return failure.kind in BREAKS and failure.until is None and failure.cause not in HOPELESS


def budget(running: int) -> int:
    """How many of *running* calls may repeat at a time."""
    return max(BUDGET_LEAST, int(running * BUDGET_SHARE))


def pause_s(repeat: int, jitter: float) -> float:
    """
    How long to wait before a repeat.

    Args:
        repeat: which one, from 1.
        jitter: a number of 0..1 drawn before; the pause lies between half its bound and all of it.
    """
    most_s = min(FIRST_PAUSE_S * 2 ** min(repeat - 1, 16), LONGEST_PAUSE_S)
    return float(most_s / 2 + min(max(jitter, 0.0), 1.0) * most_s / 2)
