"""
What one percent of a subscription is worth, and how much of it others use.

Law: the worth of a share is learned only from readings of one window and from what we posted between them; until enough is
known there is none. All sums are exact integers, so a state stored and read back goes on as if it had never left memory.
Never: books, prices or rounds money: what is learned here converts our tokens into a vendor's share, and is shown.

How: a window's readings are cut into intervals of at least a hundredth of it. In each the share grew by what we posted and by
what others used. Least squares over the intervals separates the two, taking that others use in step with time and we in
step with our tokens:

    growth = tokens / window_tokens + others * seconds

Decision 2026-11 -- regression, not the ratio of sums or the median of ratios: both put the use of others on our account. Simulated
    with 30 % foreign use they are 30 % and 20 to 37 % low, the regression within a few percent (`benchmarks/forecast.py`).
Decision 2026-11 -- intervals are closed by the clock, never by growth: closing them when the share has grown would pick those
    in which others were busy.
Decision 2026-11 -- intervals in which the share fell are dropped; those in which we posted nothing, that lasted too long to say
    who was active, or that leapt beyond all expectation teach nothing of the worth, but count as use, so also of others.
Decision 2026-11 -- while the two cannot be told apart all growth is taken to be ours. That makes our tokens dear and headroom
    small, which is the careful side.
"""

from datetime import datetime, timedelta
from math import isqrt
from typing import Annotated, Self

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, replace

from quota_router.core.limits import Amounts
from quota_router.core.live_windows import window_length
from quota_router.core.readings import PPM, Reading, ReadingUnit

INTERVALS_NEEDED = 20
"""Intervals that must be known before a worth is told."""
GROWTH_NEEDED_PPM = 50_000
"""And how much the share must have grown in them: below, rounding to whole percents is most of what is seen."""
INTERVALS_PER_BLOCK = 32
BLOCKS_KEPT = 32
"""1,024 intervals: ten windows of continuous use. Older ones are forgotten, so a changed plan is learned again."""
SEPARATED_ERROR_PPM = 250_000
"""With a standard error above a quarter the use of others is not told apart from ours."""
LEAP_PPM = 100_000
"""Growth that much beyond what was expected of an interval is no use of ours."""
SAME_RESET = timedelta(minutes=2)
"""Resets that are told as a wait move by a few seconds; those of different windows by hours."""

_INTERVALS_PER_WINDOW = 100
_INTERVAL_MIN = timedelta(minutes=5)
"""Of a window whose length is unknown."""
_INTERVAL_MAX = 20
"""An interval that lasted so many times the least is one of which we saw too little."""


class Mark(Struct, frozen=True, kw_only=True):
    """Where the open interval began. Totals are the account's running ones."""

    at: datetime
    share_ppm: int
    tokens: int
    cost_nusd: int
    resets_at: datetime | None


class Sums(Struct, frozen=True, array_like=True):
    """
    A block of intervals, as sums over them. y: growth in parts per million; x: tokens; z: nano-USD; t: seconds.

    `y_all` and `x_all` also hold the intervals that teach nothing of the worth.
    """

    n: int = 0
    y_all: int = 0
    x_all: int = 0
    y: int = 0
    x: int = 0
    z: int = 0
    yy: int = 0
    xx: int = 0
    zz: int = 0
    tt: int = 0
    xy: int = 0
    zy: int = 0
    ty: int = 0
    xt: int = 0
    zt: int = 0

    def plus(self, other: Self) -> Self:
        """Both blocks together."""
        return type(self)(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))


class Worth(Struct, frozen=True, kw_only=True):
    """What the whole of a window is worth."""

    window_tokens: int
    """tokens of ours that would use it up alone; at least 1"""
    window_nusd: int | None
    """the same at list price; `None`: our use had no price"""
    error_ppm: int
    """standard error of `window_tokens`, relative to it"""
    others_ppm: int | None
    """the part of all use that was not ours; `None`: it cannot be told apart yet, and everything was taken to be ours"""
    intervals: int
    """from how many it was learned"""

    @property
    def point_tokens(self) -> int:
        """What one percent is worth in tokens."""
        return self.window_tokens // 100

    def share_ppm(self, tokens: int) -> int:
        """What share of the window *tokens* of ours use, rounded up: headroom is never overstated by it."""
        return -(-tokens * PPM // self.window_tokens)


class Calibration(Struct, frozen=True, kw_only=True):
    """What was learned of one `share` window, and the interval that is open. Bounded; stored as JSON."""

    opened: Mark | None = None
    blocks: Annotated[tuple[Sums, ...], msgspec.Meta(max_length=BLOCKS_KEPT)] = ()
    """the newest last"""

    def learn(self, reading: Reading, posted: Amounts) -> Self:
        """
        With what one more reading tells.

        Args:
            reading: of this window, in the order of observation; one that is no share, or older than the open interval, teaches
                nothing.
            posted: the account's running totals when it was observed; `cost_nusd` at list price.
        """
        if reading.unit is not ReadingUnit.SHARE or reading.share_ppm is None or reading.refills:
            return self
        mark = Mark(
            at=reading.observed_at,
            share_ppm=reading.share_ppm,
            tokens=posted.input_tokens + posted.output_tokens,
            cost_nusd=posted.cost_nusd,
            resets_at=reading.resets_at,
        )
        before = self.opened
        if before is not None and mark.at <= before.at:
            return self
        if before is None or not is_same_window(before.resets_at, mark.resets_at):
            return replace(self, opened=mark)
        length_min = interval_min(reading.window)
        if mark.at - before.at < length_min:
            return self
        if mark.share_ppm < before.share_ppm or mark.tokens < before.tokens:
            return replace(self, opened=mark)
        return replace(self, opened=mark, blocks=_added(self.blocks, self._interval(before, mark, length_min)))

    def worth(self) -> Worth | None:
        """What the window is worth; `None`: too little is known to say."""
        sums = self._total()
        if sums.n < INTERVALS_NEEDED or sums.y < GROWTH_NEEDED_PPM or sums.x == 0:
            return None
        by_tokens = _slope(sums.xx, sums.xt, sums.tt, sums.xy, sums.ty, sums.yy, sums.n)
        if by_tokens is None or by_tokens.error_ppm > SEPARATED_ERROR_PPM:
            error_ppm = PPM if by_tokens is None else by_tokens.error_ppm
            return Worth(
                window_tokens=max(1, sums.x * PPM // sums.y),
                window_nusd=sums.z * PPM // sums.y or None,
                error_ppm=error_ppm,
                others_ppm=None,
                intervals=sums.n,
            )
        by_cost = _slope(sums.zz, sums.zt, sums.tt, sums.zy, sums.ty, sums.yy, sums.n)
        ours_ppm = sums.x_all * by_tokens.over // by_tokens.under
        return Worth(
            window_tokens=max(1, by_tokens.under * PPM // by_tokens.over),
            window_nusd=by_cost.under * PPM // by_cost.over if by_cost is not None else None,
            error_ppm=by_tokens.error_ppm,
            others_ppm=max(0, sums.y_all - ours_ppm) * PPM // sums.y_all,
            intervals=sums.n,
        )

    def to_json(self) -> str:
        """As text that `from_json` reads back."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """
        Read back what `to_json` wrote.

        Raises:
            msgspec.ValidationError: a `ValueError`: this is no calibration.
        """
        return msgspec.json.decode(text, type=cls)

    def _total(self) -> Sums:
        total = Sums()
        for block in self.blocks:
            total = total.plus(block)
        return total

    def _interval(self, before: Mark, mark: Mark, length_min: timedelta) -> Sums:
        """One interval as a block of its own; one that teaches nothing of the worth counts as use alone."""
        y, x, z = mark.share_ppm - before.share_ppm, mark.tokens - before.tokens, max(0, mark.cost_nusd - before.cost_nusd)
        lasted = mark.at - before.at
        t = lasted // timedelta(seconds=1)
        worth = self.worth()
        is_leap = worth is not None and y > 2 * worth.share_ppm(x) + LEAP_PPM
        if x == 0 or lasted > _INTERVAL_MAX * length_min or is_leap:
            return Sums(y_all=y, x_all=x)
        return Sums(1, y, x, y, x, z, y * y, x * x, z * z, t * t, x * y, z * y, t * y, x * t, z * t)


def is_same_window(one: datetime | None, other: datetime | None) -> bool:
    """Whether two resets are the same moment, told twice."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= SAME_RESET


def interval_min(window: str) -> timedelta:
    """The least length of an interval: a hundredth of the window."""
    length = window_length(window)
    return _INTERVAL_MIN if length is None else length / _INTERVALS_PER_WINDOW


class _Slope(Struct, frozen=True):
    """Growth per token (or nano-USD) as a fraction above 0, and its relative standard error."""

    over: int
    under: int
    error_ppm: int


def _slope(xx: int, xt: int, tt: int, xy: int, ty: int, yy: int, n: int) -> _Slope | None:
    """
    Least squares of y on x and t, in exact integers; where others' use comes out negative, of y on x alone.

    Returns:
        `None` when x and t went in step, so that nothing tells them apart, or when growth goes against x.
    """
    det = xx * tt - xt * xt
    over, others = xy * tt - ty * xt, xx * ty - xt * xy
    if det <= 0 or over <= 0:
        return None
    unexplained = yy * det - over * xy - others * ty
    error_ppm = _root_ppm(unexplained * tt, (n - 2) * over * over)
    return _Slope(over, det, error_ppm) if others >= 0 else _Slope(xy, xx, error_ppm)


def _root_ppm(over: int, under: int) -> int:
    """The square root of a fraction, in parts per million."""
    return isqrt(max(0, over) * PPM * PPM // under)


def _added(blocks: tuple[Sums, ...], interval: Sums) -> tuple[Sums, ...]:
    """With one more interval: in the newest block, or in a new one when that is full."""
    if blocks and blocks[-1].n < INTERVALS_PER_BLOCK:
        return (*blocks[:-1], blocks[-1].plus(interval))
    return (*blocks, interval)[-BLOCKS_KEPT:]
