"""
What is to be said of a live window: its state in one word, whether it lasts, and who uses it.

Law: a word for people, and for alarms; a call is judged by `core/restraints`, with its own needs.
Never: says `ok` of what is not known.
"""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from quota_router.core.calibration import Worth
from quota_router.core.forecast import Forecast, Growth
from quota_router.core.headroom import Headroom, binding
from quota_router.core.readings import PPM, Reading
from quota_router.core.restraints import Caution, Restraint, Why, restrain

LOW_PPM = PPM // 10
"""Less than a tenth is left."""


class WindowState(StrEnum):
    """How a window is doing. The first that applies."""

    UNKNOWN = "unknown"
    """nothing is believed of it: it is over, or was never told whole"""
    EXHAUSTED = "exhausted"
    RESERVED = "reserved"
    """only what the operator keeps back is left"""
    PAUSED = "paused"
    """as much is used as the provider pauses at by itself"""
    PACED = "paced"
    """more is used than is due at this moment"""
    STALE = "stale"
    """nothing was heard of it for long"""
    LOW = "low"
    OK = "ok"


_RESTRAINED = {
    Why.EXHAUSTED: WindowState.EXHAUSTED,
    Why.RESERVE: WindowState.RESERVED,
    Why.PAUSE_AT: WindowState.PAUSED,
    Why.PACE: WindowState.PACED,
}


class Outlook(Struct, frozen=True, kw_only=True):
    """One window at one moment, as it is shown."""

    reading: Reading
    """what is believed; of a window that is over, the last that was told"""
    headroom: Headroom | None
    """`None`: nothing is believed"""
    state: WindowState
    is_stale: bool
    forecast: Forecast | None
    """when it runs out if use goes on so; `None`: nobody can say"""
    worth: Worth | None
    """of its share, with the part that others use; `None`: not learned yet"""

    @property
    def lasts(self) -> bool | None:
        """Whether it will reset before it runs out; `None`: that cannot be said."""
        if self.forecast is None or self.reading.resets_at is None:
            return None
        return self.forecast.at >= self.reading.resets_at


def look_ahead(
    reading: Reading,
    found: Headroom | None,
    *,
    worth: Worth | None,
    growth: Growth,
    caution: Caution,
    is_stale: bool,
    now: datetime,
) -> Outlook:
    """
    Say how a window is doing.

    Args:
        reading: the last that is known of it.
        found: what is left of it; `None`: nothing is believed.
        worth: what was learned of its share.
        growth: how its share has grown.
        caution: what the operator keeps back.
        is_stale: whether it was not heard of for long.
        now: aware UTC.
    """
    used_ppm = found.share_used_ppm if found is not None else None
    return Outlook(
        reading=found.reading if found is not None else reading,
        headroom=found,
        state=_state(found, caution, is_stale=is_stale, now=now),
        is_stale=is_stale,
        forecast=growth.forecast(used_ppm, now) if used_ppm is not None and used_ppm < PPM else None,
        worth=worth,
    )


def binding_keys(headrooms: Iterable[Headroom], upstream_models: Iterable[str]) -> set[tuple[str, ...]]:
    """The windows that bind some call to one of these models, or without one any call."""
    rooms = tuple(headrooms)
    found = [binding(rooms, model) for model in set(upstream_models) or {""}]
    return {room.reading.key for room in found if room is not None}


def restraint_word(restraint: Restraint) -> WindowState:
    """How a window is doing that holds calls back."""
    return _RESTRAINED[restraint.why]


def _state(found: Headroom | None, caution: Caution, *, is_stale: bool, now: datetime) -> WindowState:
    if found is None or not found.is_known:
        return WindowState.UNKNOWN
    restraint = restrain((found,), found.reading.model, caution, now)
    if restraint is not None:
        return restraint_word(restraint)
    if is_stale:
        return WindowState.STALE
    is_low = found.share_used_ppm is not None and found.share_used_ppm > PPM - LOW_PPM
    return WindowState.LOW if is_low else WindowState.OK
