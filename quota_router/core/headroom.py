"""
What is left of the windows that upstreams told us of.

Law: headroom is what was left when it was observed, less what we posted since and what we hold now. Unknown headroom is `None`:
it holds nothing back and recommends nothing.
Never: counts a share as money, or an extra way to pay as headroom.

Decision 2026-11 -- a stale reading whose window still runs is counted as it stands, for use only grows within a window; one that
    never resets is unknown, for it may have been topped up. Whoever orders rungs looks at `is_stale` and takes no comfort from it.
Decision 2026-11 -- what a call needs is not asked of a bucket that refills: vendors judge those by what is really used, and a call
    with a generous `max_tokens` would never fit. There only an empty bucket holds a call back.
Decision 2026-11 -- a window that is refused stays empty while the vendor would sell more beyond it (overage): a subscription does
    not begin to cost money by itself. Look again when an operator can say that it may.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from quota_router.core.calibration import Worth
from quota_router.core.limits import Amounts, Unit
from quota_router.core.live_windows import window_length
from quota_router.core.readings import PPM, WINDOW_MAX, Reading, ReadingUnit, Seen, Status


class Headroom(Struct, frozen=True, kw_only=True):
    """What is left of one window at one moment. Numbers are in the unit of its reading; of a `share` in parts per million."""

    reading: Reading
    at: datetime
    """the moment it is told for, aware UTC"""
    used: int | None
    """the reading, what we posted since, and what we hold; `None`: unknown"""
    left: int | None
    """`None`: unknown; never negative"""
    share_used_ppm: int | None
    """the used part of the whole, rounded up; 1 and more is exhausted; `None`: unknown"""
    needed: int = 0
    """what the call asks of it"""
    is_stale: bool = False
    """nothing was heard of it for long: it counts against the rung, not for it"""

    @property
    def cap(self) -> int | None:
        """The whole window in the unit; `None`: unknown."""
        return PPM if self.reading.unit is ReadingUnit.SHARE else self.reading.limit

    @property
    def is_known(self) -> bool:
        """Whether anything may be concluded from it."""
        return self.left is not None


def amount_in(unit: ReadingUnit, amounts: Amounts, worth: Worth | None) -> int:
    """
    What *amounts* are in the unit of a window.

    Args:
        unit: of the window.
        amounts: posted, held or needed.
        worth: what the window's share is worth, learned from earlier readings. Without it a share cannot be told: 0, and the
            reading speaks alone.
    """
    if unit is not ReadingUnit.SHARE:
        return amounts.of(Unit(unit.value))
    return worth.share_ppm(amounts.input_tokens + amounts.output_tokens) if worth is not None else 0


def used_at(reading: Reading, now: datetime) -> int | None:
    """
    What of the use that was read still counts at *now*, by time alone.

    Returns:
        in the unit (`share`: parts per million); of a bucket less and less, down to 0 when it is full again. `None`: not said.
    """
    used = reading.share_ppm if reading.unit is ReadingUnit.SHARE else reading.used
    if used is None and reading.limit is not None and reading.left is not None:
        used = reading.limit - reading.left
    if used is None or not reading.refills or reading.resets_at is None:
        return used
    span = reading.resets_at - reading.observed_at
    remaining = min(max(reading.resets_at - now, timedelta(0)), span)
    return -(-used * to_us(remaining) // to_us(span)) if remaining else 0


def effective_use(used: int | None, *, posted_then: int, posted_now: int, held_now: int) -> int | None:
    """
    What is used of a window by now, as far as we can know. All in the unit of its reading.

    Args:
        used: by the reading; `None`: it does not say.
        posted_then: our running total when it was observed.
        posted_now: our running total now; a total that shrank (an `adjust`) counts as unchanged.
        held_now: what is set aside for attempts that are open.

    Returns:
        `None`: unknown, whatever we posted.
    """
    return None if used is None else used + max(0, posted_now - posted_then) + max(0, held_now)


def headroom(
    seen: Seen,
    *,
    posted_now: Amounts,
    held_now: Amounts,
    worth: Worth | None,
    now: datetime,
    stale_after_s: float,
    needed: Amounts | None = None,
) -> Headroom | None:
    """
    What is left of a window.

    Args:
        seen: its last readings.
        posted_now: the account's running totals; `cost_nusd` at list price where the account is flat.
        held_now: what is held on the account now.
        worth: of the window's share; `None`: not learned yet.
        now: aware UTC.
        stale_after_s: `[server] stale_after_s`.
        needed: what the call asks; `None`: nobody asks.

    Returns:
        `None` when nothing is believed of the window: none was seen, or it is over.
    """
    reading = seen.believed(now)
    if reading is None:
        return None
    unit, is_stale = reading.unit, seen.is_stale(now, stale_after_s)
    # A call that has ended holds no place, so nothing posted counts in `concurrency`.
    then = posted_now if unit is ReadingUnit.CONCURRENCY else reading.posted_then or posted_now
    used = effective_use(
        used_at(reading, now),
        posted_then=amount_in(unit, then, worth),
        posted_now=amount_in(unit, posted_now, worth),
        held_now=amount_in(unit, held_now, worth),
    )
    asked = amount_in(unit, needed, worth) if needed is not None and not reading.refills else 0
    if is_stale and reading.resets_at is None:
        return Headroom(reading=reading, at=now, used=used, left=None, share_used_ppm=None, needed=asked, is_stale=True)
    cap = PPM if unit is ReadingUnit.SHARE else reading.limit
    left = None if used is None or cap is None else max(0, cap - used)
    share_used_ppm = None if used is None or cap is None else -(-used * PPM // cap) if cap else PPM
    if reading.status is Status.REJECTED:
        left, share_used_ppm = 0, max(PPM, share_used_ppm or 0)
    return Headroom(reading=reading, at=now, used=used, left=left, share_used_ppm=share_used_ppm, needed=asked, is_stale=is_stale)


def relief_at(found: Headroom, target: int) -> datetime | None:
    """
    When no more than *target* of the window will be used, if nobody uses any until then.

    Returns:
        for a bucket the moment at which it has filled that far, at the latest its length from now; for any other window its reset.
        `None`: nobody knows.
    """
    reading = found.reading
    is_refused = reading.status is Status.REJECTED  # then its numbers say nothing of when it gives way
    if reading.resets_at is None or not reading.refills or is_refused or not reading.used or found.used is None:
        return reading.resets_at
    span = reading.resets_at - reading.observed_at
    fills_us = -(-max(0, found.used - target) * to_us(span) // reading.used)
    return found.at + timedelta(microseconds=min(fills_us, to_us(window_length(reading.window) or WINDOW_MAX)))


def binding(headrooms: Iterable[Headroom | None], upstream_model: str) -> Headroom | None:
    """
    Choose the window that binds a call to *upstream_model*: of those that count it, the one with the least share left.

    Returns:
        of several that are as empty the one that resets last, for all of them must give way. `None`: nothing is known.
    """
    known = [found for found in headrooms if found is not None and found.is_known and binds(found, upstream_model)]
    return min(known, key=least_left, default=None)


def binds(found: Headroom, upstream_model: str) -> bool:
    """Whether a call to *upstream_model* has to fit into it."""
    return not found.reading.is_extra and found.reading.covers(upstream_model)


def least_left(found: Headroom) -> tuple[int, bool, float]:
    """Sorts the window that binds first."""
    share_left_ppm = max(0, PPM - (found.share_used_ppm or 0))
    resets_at = found.reading.resets_at
    return share_left_ppm, resets_at is not None, -resets_at.timestamp() if resets_at is not None else 0.0


def to_us(span: timedelta) -> int:
    """A span in whole microseconds."""
    return span // timedelta(microseconds=1)
