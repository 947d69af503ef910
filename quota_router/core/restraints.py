"""
What the operator keeps back of live windows, and why a window holds a call back.

Law: whatever holds a call back carries its numbers and ends by itself, when the window resets or is seen to be less used.
Never: undoes a pause that the operator set; holds anything back for what is unknown.

    exhausted   nothing is left, or less than the call needs, or the vendor refuses
    reserve     the call would go into what is kept back
    pause_at    so much of the window is used that the provider pauses by itself
    pace        more is used than is due at this moment of the window
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from quota_router.core.catalog import Provider
from quota_router.core.headroom import Headroom, binds, least_left, relief_at, to_us
from quota_router.core.live_windows import window_start
from quota_router.core.readings import PPM
from quota_router.core.shares import to_ppm

PACE_HEAD_START_PPM = 50_000
"""What pacing allows from the first moment of a window: without it the first call would have to wait."""


class Why(StrEnum):
    """What speaks against a window, in the order of judging."""

    EXHAUSTED = "exhausted"
    RESERVE = "reserve"
    PAUSE_AT = "pause_at"
    PACE = "pace"

    @property
    def reason(self) -> str:
        """The reason under which a rung is passed over (design 7)."""
        return "quota_exhausted" if self is Why.EXHAUSTED else "quota_reserved"


class Caution(Struct, frozen=True, kw_only=True):
    """What the operator keeps back in every live window of a provider. Shares are in parts per million."""

    reserve_ppm: int = 0
    pause_at_ppm: int | None = None
    """`None`: never"""
    pace: bool = False


def caution_of(provider: Provider) -> Caution:
    """What the operator keeps back of a provider's live windows, as it is counted."""
    return Caution(
        reserve_ppm=to_ppm(provider.reserve),
        pause_at_ppm=None if provider.pause_at is None else to_ppm(provider.pause_at),
        pace=provider.pace,
    )


class Restraint(Struct, frozen=True, kw_only=True):
    """Why a window holds a rung back, and the numbers that decided."""

    why: Why
    headroom: Headroom
    bound_ppm: int
    """the share that may be used at this moment"""
    usable_at: datetime | None
    """aware UTC; `None`: nobody knows, or the call is larger than the whole window"""

    def detail(self) -> Mapping[str, Any]:
        """The numbers, in the shape in which a rung shows them."""
        reading = self.headroom.reading
        return {
            "why": self.why,
            "window": reading.window,
            "window_model": reading.model or None,
            "unit": reading.unit,
            "used": self.headroom.used,
            "cap": self.headroom.cap,
            "needed": self.headroom.needed,
            "used_ppm": self.headroom.share_used_ppm,
            "bound_ppm": self.bound_ppm,
            "status": reading.status,
            "observed_at": reading.observed_at,
            "source": reading.source,
            "stale": self.headroom.is_stale,
        }


def restrain(
    headrooms: Iterable[Headroom | None],
    upstream_model: str,
    caution: Caution,
    now: datetime,
) -> Restraint | None:
    """
    Say why the windows of an account hold a call back, if they do.

    Returns:
        the first of `Why` that applies to any window, and among windows the one that binds; it becomes usable when the last
        restrained window does. `None`: nothing that is known speaks against the call.
    """
    windows = [found for found in headrooms if found is not None and binds(found, upstream_model)]
    judged = [first for found in windows if (first := _first(found, caution, now)) is not None]
    if not judged:
        return None
    reliefs = [restraint.usable_at for restraint in judged]
    known = [moment for moment in reliefs if moment is not None]
    order = list(Why)
    foremost = min(judged, key=lambda restraint: (order.index(restraint.why), least_left(restraint.headroom)))
    return replace(foremost, usable_at=max(known) if len(known) == len(reliefs) else None)


def _first(found: Headroom, caution: Caution, now: datetime) -> Restraint | None:
    return (
        exhausted(found)
        or reserved(found, caution.reserve_ppm)
        or (paused(found, caution.pause_at_ppm) if caution.pause_at_ppm is not None else None)
        or (paced(found, now) if caution.pace else None)
    )


def exhausted(found: Headroom) -> Restraint | None:
    """Nothing is left, or less than the call needs. A call larger than the whole window never fits."""
    if found.left is None or (found.left > 0 and found.needed <= found.left):
        return None
    return _restraint(Why.EXHAUSTED, found, PPM, _relief(found, PPM, more=max(1, found.needed)))


def reserved(found: Headroom, reserve_ppm: int) -> Restraint | None:
    """With this call less than *reserve_ppm* of the window would be left."""
    bound_ppm = PPM - reserve_ppm
    if reserve_ppm <= 0 or found.share_used_ppm is None:
        return None
    asked_ppm = -(-found.needed * PPM // found.cap) if found.cap else 0
    if found.share_used_ppm + asked_ppm <= bound_ppm:
        return None
    return _restraint(Why.RESERVE, found, bound_ppm, _relief(found, bound_ppm, more=found.needed))


def paused(found: Headroom, pause_at_ppm: int) -> Restraint | None:
    """*pause_at_ppm* of the window is used: the provider pauses, until the window resets or is seen to be less used."""
    if found.share_used_ppm is None or found.share_used_ppm < pause_at_ppm:
        return None
    return _restraint(Why.PAUSE_AT, found, pause_at_ppm, _relief(found, pause_at_ppm, more=1))


def paced(found: Headroom, now: datetime) -> Restraint | None:
    """More is used than is due at *now*. A window whose length or end is unknown, and a bucket, are not paced."""
    start, end = window_start(found.reading), found.reading.resets_at
    if found.share_used_ppm is None or start is None or end is None:
        return None
    bound_ppm = due_ppm(start, end, now)
    if found.share_used_ppm <= bound_ppm:
        return None
    return _restraint(Why.PACE, found, bound_ppm, _due_at(start, end, found.share_used_ppm))


def due_ppm(start: datetime, end: datetime, now: datetime) -> int:
    """The share of `[start, end)` that may be used at *now*: the head start, then in step with time; all of it at the end."""
    elapsed = min(max(now - start, timedelta(0)), end - start)
    return PACE_HEAD_START_PPM + (PPM - PACE_HEAD_START_PPM) * to_us(elapsed) // to_us(end - start)


def _due_at(start: datetime, end: datetime, used_ppm: int) -> datetime:
    """When so much is due: the first microsecond at which `due_ppm` says so, at the latest the end."""
    over_ppm = min(used_ppm, PPM) - PACE_HEAD_START_PPM
    return start + timedelta(microseconds=-(-over_ppm * to_us(end - start) // (PPM - PACE_HEAD_START_PPM)))


def _relief(found: Headroom, bound_ppm: int, *, more: int) -> datetime | None:
    """When the window has room for *more* below the bound; `None` where the call alone is larger than an empty one allows."""
    if not found.cap:  # unknown, or a balance of nothing: neither tells how much there will be
        return found.reading.resets_at
    target = found.cap * bound_ppm // PPM - more
    return relief_at(found, target) if target >= 0 else None


def _restraint(why: Why, found: Headroom, bound_ppm: int, usable_at: datetime | None) -> Restraint:
    return Restraint(why=why, headroom=found, bound_ppm=bound_ppm, usable_at=usable_at)
